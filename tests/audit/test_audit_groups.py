"""`ens check` on groups: given ones that folds can't be made of, and names that suggest some."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from recorder import Recorder

from ensemble.audit.check import check
from ensemble.audit.findings import Audit, Finding
from ensemble.audit.groups import check_groups, check_own_folds
from ensemble.audit.read import read_given
from ensemble.audit.rows import Given, Rows
from ensemble.config import Config, load_config
from ensemble.data.folds import make_folds
from ensemble.data.name_groups import name_groups
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.init import init
from ensemble.train.setup import read_data

COLUMNS = {"path": "path", "label": "label", "id": None, "group": "group", "fold": "fold"}


def given(labels: list[str], groups: list[str] | None, folds: list[int] | None = None, k: int = 3) -> Given:
    rows = Rows(
        Path("t.csv"),
        np.array([str(row) for row in range(len(labels))]),
        (None,) * len(labels),
        np.array(labels),
        None if groups is None else np.array(groups),
        None if folds is None else np.array(folds),
        pd.DataFrame({"label": labels}),
        COLUMNS,
    )
    return Given(rows, True, k, None, None, None, folds is not None, "auto", ())


def found(findings: list[Finding]) -> dict[str, Finding]:
    return {one.kind: one for one in findings}


def test_sound_groups():
    assert check_groups(given(["a", "b"] * 4, list("ppqqrrss"))) == []


def test_rows_without_a_group():
    kinds = found(check_groups(given(["a", "b"] * 4, ["p", "", "q", "q", "r", "r", "s", "s"])))
    assert kinds.keys() == {"empty-group"} and kinds["empty-group"].rows == ("1",)


def test_fewer_groups_than_folds_and_a_class_in_one_group():
    kinds = found(check_groups(given(["a", "a", "b", "b"], list("pqqq"))))
    assert kinds["few-groups"].what == "groups for 3 folds" and kinds["few-groups"].count == 2
    assert kinds["lone-class"].rows == ("b",) and kinds["lone-class"].level == "error"


def test_own_folds_that_part_a_group():
    kinds = found(check_groups(given(["a", "b"] * 3, list("ppqqrr"), [0, 0, 1, 0, 1, 1])))
    assert kinds.keys() == {"group-across-folds"} and kinds["group-across-folds"].rows == ("q",)


def test_own_folds_that_are_no_folds():
    kinds = found(check_own_folds(given(["a", "b"] * 3, None, [0, 0, 2, 2, -1, -2])))
    assert kinds["odd-fold"].rows == ("5",)
    assert kinds["fold-gap"].rows == ("0", "2")
    assert check_own_folds(given(["a", "b"] * 3, None, [0, 1, 2, 0, 1, -1])) == []


def scene(path: Path, of: int, take: int) -> None:
    """An image of a place: images of one place share their large shapes, not their details."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = np.random.default_rng(of).integers(0, 200, (6, 6)).repeat(10, axis=0).repeat(10, axis=1)
    detail = np.random.default_rng(1000 + 37 * of + take).integers(0, 200, (60, 60))
    Image.fromarray((0.5 * place + 0.5 * detail).astype(np.uint8)).convert("RGB").save(path)


def audited(data: Path) -> Audit:
    return check(data, None, None, None, data.parent / "a.json", (), SILENT)


def suggestion(data: Path) -> Finding | None:
    findings = [one for one in audited(data).findings if one.kind == "suggested-groups"]
    return findings[0] if findings else None


NAMES = {
    "person and number": lambda who, take: f"person{who}_{take}.png",
    "film and frame": lambda who, take: f"video{who}_frame_{take:04}.png",
    "Korean names": lambda who, take: f"{'가나다라마바사아자차카타'[who]}철수 ({take}).png",
    "days": lambda who, take: f"IMG_202401{who + 10}_{take:06}.png",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_look_like_people_or_scenes(tmp_path, name):
    for who in range(12):
        for take in range(5):
            scene(tmp_path / "set" / "ab"[take % 2] / NAMES[name](who, take), who, take)
    one = suggestion(tmp_path / "set")
    assert one is not None and one.level == "warning" and one.count == 12
    assert "what stands before the last number" in one.what and "5 images each, at most 5" in one.what
    assert 'data.group = "from file names", or --fix' in one.advice and one.examples[0].endswith("(5)")


def test_a_folder_of_photos_for_each_person(tmp_path):
    kinds = ["mask1", "mask2", "mask3", "incorrect_mask", "normal"]
    rows = []
    for who in range(10):
        for take, kind in enumerate(kinds):
            path = f"images/{who:06}_female_Asian_{20 + who}/{kind}.png"
            scene(tmp_path / path, who, take)
            rows.append({"path": path, "label": "bare" if kind == "normal" else "masked"})
    pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
    one = suggestion(tmp_path / "train.csv")
    assert one is not None and "the folder" in one.what and one.count == 10
    assert one.examples[0] == "images/000000_female_Asian_20 (5)"


def test_a_number_before_what_was_photographed(tmp_path):
    for who in range(12):
        for take, kind in enumerate(("front", "back", "side")):
            scene(tmp_path / "set" / "ab"[who % 2] / f"{who:04}_{kind}.png", who, take)
    one = suggestion(tmp_path / "set")
    assert one is not None and "the first part of the name" in one.what and one.count == 12


@pytest.mark.parametrize(
    "name",
    [
        lambda number: f"pic_{number:03}.png",
        lambda number: f"IMG_{number:04}.png",
        lambda number: f"{number:06}.png",
        lambda number: f"{hash((number, 7)) & 0xFFFFFFFF:08x}.png",
        lambda number: f"breed{number % 3}_{number}.png",
    ],
)
def test_plain_numbers_suggest_nothing(tmp_path, name):
    for number in range(60):
        scene(tmp_path / "set" / "ab"[number % 2] / name(number), number, 0)
    assert suggestion(tmp_path / "set") is None


def test_names_of_groups_whose_images_are_not_alike_suggest_nothing(tmp_path):
    for number in range(60):
        scene(tmp_path / "set" / "ab"[number % 2] / f"batch{number // 5}_{number}.png", number, 0)
    assert suggestion(tmp_path / "set") is None


def test_the_class_written_into_the_names_is_no_group(tmp_path):
    for number in range(60):
        name = f"class{number // 5:02}"
        scene(tmp_path / "set" / name / f"{name}_{number}.png", number // 5, number)
    assert suggestion(tmp_path / "set") is None


def people(folder: Path) -> Path:
    """60 images of 12 people, in two class folders."""
    for who in range(12):
        for take in range(5):
            scene(folder / "ab"[take % 2] / f"person{who}_{take}.png", who, take)
    return folder


def experiment(data: Path, group: str = "") -> Config:
    path = data.parent / "e.toml"
    path.write_text(
        f'run = "{data.parent / "run"}"\n[data]\ntrain = "{data}"\n{group}\n[[backbone]]\nname = "a"\n'
        'timm = "test_resnet"\npretrained = false\n'
    )
    return load_config(path)


APPLIED = 'group = "from file names"'
WARNING = (
    "warning: file names fall into 12 groups of about 5 images (what stands before the last number), and two "
    "images of a group are more alike than "
)


def test_groups_from_file_names_are_applied_in_training(tmp_path):
    data = people(tmp_path / "set")
    said: list[str] = []
    samples = read_data(experiment(data), Recorder(said))
    assert samples.groups is None
    assert len(said) == 1 and said[0].startswith(WARNING) and 'set data.group = "from file names"' in said[0]
    said.clear()
    samples = read_data(experiment(data, APPLIED), Recorder(said))
    assert said == [] and samples.groups is not None
    assert sorted(set(samples.groups.tolist())) == sorted(f"person{who}" for who in range(12))
    assert samples.groups.tolist() == [name.split("/")[1].split("_")[0] for name in samples.ids.tolist()]
    folds = make_folds(samples.labels, samples.classes, 3, 0, samples.groups, None)
    assert all(len(set(folds[samples.groups == f"person{who}"].tolist())) == 1 for who in range(12))


def test_groups_from_file_names_of_a_table_with_ids(tmp_path):
    people(tmp_path / "set")
    files = sorted((tmp_path / "set").rglob("*.png"))
    rows = [
        {"path": str(file.relative_to(tmp_path)), "label": file.parent.name, "n": at} for at, file in enumerate(files)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    samples = read_data(experiment(tmp_path / "t.csv", f'id = "n"\n{APPLIED}'), SILENT)
    assert samples.groups is not None and len(set(samples.groups.tolist())) == 12


def test_groups_from_file_names_where_there_are_none(tmp_path):
    for number in range(60):
        scene(tmp_path / "set" / "ab"[number % 2] / f"IMG_{number:04}.png", number, 0)
    with pytest.raises(UserError, match=r"data.group = 'from file names': the file names show no groups"):
        read_data(experiment(tmp_path / "set", APPLIED), SILENT)
    said: list[str] = []
    read_data(experiment(tmp_path / "set"), Recorder(said))
    assert said == []


def test_fix_and_init_write_the_groups_of_file_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, said = people(tmp_path / "set"), list[str]()
    check(data, None, None, tmp_path / "clean.csv", tmp_path / "a.json", (), Recorder(said))
    table = pd.read_csv(tmp_path / "clean.csv")
    assert table["group"].tolist() == [Path(path).name.split("_")[0] for path in table["path"]]
    assert any('they are the column "group" of' in line for line in said)
    lines = init(data, None, None, tmp_path / "init.toml")
    config = load_config(tmp_path / "init.toml")
    assert config.data.group == "from file names"
    assert any("each stays in one fold (to change: data.group)" in line for line in lines)
    assert "12 groups, about 5.0 images each; none is split between folds" in "\n".join(lines)


def test_an_experiment_that_applies_them_is_not_warned_of_them(tmp_path):
    data = people(tmp_path / "set")
    experiment(data, APPLIED)
    audit = check(tmp_path / "e.toml", None, None, None, tmp_path / "a.json", (), SILENT)
    assert not {"suggested-groups", "few-groups", "lone-class"} & {one.kind for one in audit.findings}


@pytest.mark.parametrize(
    ("of_person", "part"), [(0.4, "the first part of the name"), (0, "what stands before the last")]
)
def test_sessions_of_a_person_are_one_group_where_they_are_alike(tmp_path: Path, of_person: float, part: str) -> None:
    """subj00_1_3 is a person, a session and an image."""
    files = []
    for person in range(12):
        for session in range(3):
            for take in range(3):
                shapes = [
                    np.random.default_rng(seed).integers(0, 200, (6, 6)).repeat(10, axis=0).repeat(10, axis=1)
                    for seed in (person, 100 + 3 * person + session, 1000 + 9 * person + 3 * session + take)
                ]
                pixels = of_person * shapes[0] + (0.8 - of_person) * shapes[1] + 0.2 * shapes[2]
                files.append(tmp_path / f"subj{person:02}_{session}_{take}.png")
                Image.fromarray(pixels.astype(np.uint8)).save(files[-1])
    groups = name_groups(files, ["a", "b"] * 54, tmp_path)
    assert groups is not None and groups.part.startswith(part) and groups.groups == (12 if of_person else 36)


@pytest.mark.parametrize("cell", ["0.7", "9" * 30, "first"])
def test_own_folds_that_are_no_whole_numbers_are_found(tmp_path: Path, cell: str) -> None:
    for row in range(4):
        scene(tmp_path / f"{row}.png", row, 0)
    (tmp_path / "t.csv").write_text(
        "path,label,part\n"
        + "".join(f"{row}.png,{'ab'[row % 2]},{cell if row == 3 else row % 2}\n" for row in range(4))
    )
    (tmp_path / "e.toml").write_text(
        f'run = "{tmp_path / "run"}"\n[data]\ntrain = "{tmp_path / "t.csv"}"\n[folds]\nfold = "part"\n'
        '[[backbone]]\nname = "r"\ntimm = "test_resnet"\n'
    )
    kinds = found(check_own_folds(read_given(tmp_path / "e.toml", None)))
    assert kinds.keys() == {"odd-fold"} and kinds["odd-fold"].rows == ("3.png",)
