"""`ens check` as a whole: what may be given, where the file goes and what it holds, and the levels."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from recorder import Recorder

from ensemble.audit.check import check
from ensemble.audit.findings import Audit, Finding, finding, ordered
from ensemble.data.samples import read_samples
from ensemble.errors import UserError


@pytest.fixture(autouse=True)
def own_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pets(tmp_path, paint):
    for name in ("cat", "dog"):
        for number in range(6):
            paint(tmp_path / "pets" / "train" / name / f"{name}{number}.png", 64, 64)
    return tmp_path / "pets"


def run(data: Path, test: Path | None = None, sample: Path | None = None) -> tuple[Audit, list[str]]:
    said: list[str] = []
    return check(data, test, sample, None, None, (), Recorder(said)), said


def experiment(path: Path, train: str, more: str = "") -> Path:
    path.write_text(
        f'run = "run"\n[data]\ntrain = "{train}"\nimage_size = 64\n{more}\n'
        '[[backbone]]\nname = "a"\ntimm = "test_resnet"\n'
    )
    return path


def test_words_for_one_and_for_many():
    assert finding("k", "note", [], ("one", "many"), "do") == []
    assert finding("k", "note", ["a"], ("one", "many"), "do")[0].what == "one"
    (one,) = finding("k", "note", ["a", "b", "c", "d"], ("one", "many"), "do", "test")
    assert one == Finding("k", "note", 4, "many", "do", ("a", "b", "c"), ("a", "b", "c", "d"), "test")


def audit_of(*levels: str) -> Audit:
    findings = [Finding(str(number), level, 1, "x", "y", (), ()) for number, level in enumerate(levels)]
    return Audit("s", None, None, None, 1, None, {}, ordered(findings), (), {}, {}, {}, {}, None)


def test_levels_and_what_fails():
    audit = audit_of("note", "error", "warning", "error")
    assert [one.kind for one in audit.findings] == ["1", "3", "2", "0"] and audit.worst == "error"
    table = {(): "", ("note",): "note", ("note", "warning"): "note warning", ("error",): "note warning error"}
    for levels, fails in table.items():
        for level in ("note", "warning", "error", "never"):
            assert audit_of(*levels).fails(level) == (level in fails.split())
    assert audit_of().worst is None


def test_a_folder_that_holds_the_train_folder(pets):
    audit, said = run(pets)
    assert audit.images == 12 and audit.findings == () and audit.classes == {"cat": 6, "dog": 6}
    assert "train in" in said[0] and said[-1] == "audit.json: all rows concerned, and 0 pairs of copies"


def test_what_the_file_holds(pets, tmp_path, paint):
    paint(tmp_path / "test" / "t.png", 64, 64)
    (tmp_path / "test" / "bad.png").touch()
    (tmp_path / "sample.csv").write_text("id,label\nt,cat\nbad,cat\n")
    run(pets, tmp_path / "test", tmp_path / "sample.csv")
    held = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert (held["format"], held["worst"], held["images"], held["test_images"]) == (1, "error", 12, 2)
    assert held["source"] == str(pets / "train") and held["run"] is None and held["pairs"] == []
    assert [one["kind"] for one in held["findings"]] == ["empty-file"]
    assert held["findings"][0]["rows"] == ["bad.png"] and held["findings"][0]["side"] == "test"
    assert held["sizes"]["test"]["width"] == [64.0] * 9 and held["sizes"]["train"]["height"] == [64.0] * 9
    assert held["class_sizes"]["cat"] == [64.0, 64.0] and len(held["class_colours"]["dog"]) == 3
    assert held["scores"]["shift"] is None and held["groups"] is None


def test_an_experiment_its_columns_and_its_own_folds(tmp_path, paint):
    rows = []
    for number in range(12):
        paint(tmp_path / "pics" / f"{number}.png", 64, 64)
        rows.append({"photo": f"{number}.png", "kind": "ab"[number % 2], "who": f"p{number // 3}", "part": number % 2})
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    path = experiment(
        tmp_path / "e.toml",
        "t.csv",
        'images = "pics"\npath = "photo"\nlabel = "kind"\ngroup = "who"\n[folds]\nfold = "part"',
    )
    audit, said = run(path)
    assert [one.kind for one in audit.findings] == ["group-across-folds"] and audit.findings[0].count == 4
    assert said[0] == f"{path} trains on t.csv" and audit.run is None


def test_the_run_of_an_experiment(pets, tmp_path):
    shutil.copy(pets / "train" / "cat" / "cat0.png", pets / "train" / "cat" / "again.png")
    ids = [f"{name}/{name}{number}.png" for name in ("cat", "dog") for number in range(6)]
    (tmp_path / "run").mkdir()
    rows = "".join(f"{id},{id[:3]},{number % 2}\n" for number, id in enumerate([*ids, "cat/again.png"]))
    rows = rows.replace("cat/again.png,cat,0", "cat/again.png,cat,1")
    (tmp_path / "run" / "folds.csv").write_text("id,label,fold\n" + rows)
    audit, said = run(experiment(tmp_path / "e.toml", "pets/train"))
    assert {one.kind for one in audit.findings} == {"exact-copies", "exact-across-folds"}
    across = next(one for one in audit.findings if one.kind == "exact-across-folds")
    assert set(across.rows) == {"cat/cat0.png", "cat/again.png"} and "the folds of run" in across.what
    assert (tmp_path / "run" / "audit.json").is_file() and not (tmp_path / "audit.json").exists()
    assert audit.run == "run" and said[-1].startswith(f"{Path('run') / 'audit.json'}: ")


def test_an_experiment_that_has_not_run_makes_no_directory(pets, tmp_path):
    run(experiment(tmp_path / "e.toml", "pets/train"))
    assert (tmp_path / "audit.json").is_file() and not (tmp_path / "run").exists()


def test_ids_that_repeat_a_little_are_still_ids(tmp_path, paint):
    rows = []
    for number in range(20):
        paint(tmp_path / "pics" / f"{number}.png", 64, 64)
        rows.append({"id": f"{max(number, 1):03}", "path": f"pics/{number}.png", "label": "ab"[number % 2]})
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    audit, _ = run(tmp_path / "t.csv")
    assert [(one.kind, one.rows) for one in audit.findings] == [("repeated-id", ("001", "001"))]


@pytest.mark.parametrize(
    ("name", "error"),
    [("none", "none: no such file or folder"), ("e.toml", r"e.toml: data.train = 'gone': no such file or folder")],
)
def test_nothing_to_audit(tmp_path, name, error):
    experiment(tmp_path / "e.toml", "gone")
    with pytest.raises(UserError, match=error):
        run(Path(name))


def test_a_column_that_the_experiment_names_is_not_there(tmp_path, paint):
    paint(tmp_path / "0.png")
    (tmp_path / "t.csv").write_text("path,label\n0.png,a\n")
    with pytest.raises(UserError, match=r"t.csv: no column 'who' \(data.group\); it has: path, label"):
        run(experiment(tmp_path / "e.toml", "t.csv", 'group = "who"'))


def test_a_folder_without_images_is_one_mistake(tmp_path):
    (tmp_path / "bare" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match=r"^bare: no images in it or below it \(endings known: \.avif .*\)$"):
        run(Path("bare"))
    (tmp_path / "bare" / "cat" / "a.heic").touch()
    with pytest.raises(UserError, match=r"^bare: no images in it or below it, only others, 'a.heic' among them \("):
        run(Path("bare"))
    assert not (tmp_path / "audit.json").exists()


def test_images_outside_any_class_are_no_class(tmp_path, paint):
    for number in range(3):
        paint(tmp_path / "loose" / f"{number}.png", 64, 64)
    audit, _ = run(tmp_path / "loose")
    said = [f"{one.count} {one.what}" for one in audit.findings]
    assert said == ["3 images outside any class folder", "3 rows, and no class"]


def test_without_a_cache_nothing_is_kept(pets, tmp_path, monkeypatch):
    monkeypatch.setenv("ENS_CACHE", str(tmp_path / "cache"))
    audit, _ = run(experiment(tmp_path / "e.toml", "pets/train", 'cache = "off"'))
    assert audit.images == 12 and not (tmp_path / "cache").exists()
    run(experiment(tmp_path / "e.toml", "pets/train", 'cache = "kept"'))
    assert (tmp_path / "kept" / "scans").is_dir() and not (tmp_path / "cache").exists()


def test_the_fingerprint_is_that_of_the_samples_that_training_reads(pets, tmp_path, paint):
    audit, _ = run(pets)
    assert audit.fingerprint == read_samples(pets / "train").fingerprint()
    assert json.loads((tmp_path / "audit.json").read_text())["fingerprint"] == audit.fingerprint
    path = experiment(tmp_path / "e.toml", "pets/train")
    assert run(path)[0].fingerprint == audit.fingerprint
    paint(pets / "train" / "cat" / "new.png", 64, 64)
    after = run(path)[0].fingerprint
    assert after != audit.fingerprint and after == read_samples(pets / "train").fingerprint()
    paint(pets / "train" / "loose.png", 64, 64)
    assert run(pets)[0].fingerprint is None


def test_the_fingerprint_of_tables_and_corrections(tmp_path, paint):
    rows = []
    for number in range(12):
        paint(tmp_path / "pics" / f"{number}.png", 64, 64)
        rows.append({"photo": f"{number}.png", "label": "ab"[number % 2], "person": f"p{number // 2}"})
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "t.csv", index=False)
    held = read_samples(tmp_path / "t.csv", "photo", images=tmp_path / "pics", group="person").fingerprint()
    audit, said = run(tmp_path / "t.csv")
    assert "group in 'person'" in said[0] and audit.fingerprint == held
    (tmp_path / "right.csv").write_text("id,new_label\n3.png,a\n")
    more = 'path = "photo"\nimages = "pics"\ngroup = "person"\n'
    path = experiment(tmp_path / "e.toml", "t.csv", more + 'relabel = "right.csv"')
    table.loc[3, "label"] = "a"
    table.to_csv(tmp_path / "u.csv", index=False)
    held = read_samples(tmp_path / "u.csv", "photo", images=tmp_path / "pics", group="person").fingerprint()
    assert run(path)[0].fingerprint == held
    table.loc[0, "label"] = ""
    table.to_csv(tmp_path / "t.csv", index=False)
    assert run(tmp_path / "t.csv")[0].fingerprint is None
