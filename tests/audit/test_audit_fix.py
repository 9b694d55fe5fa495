"""`ens check --fix`: what stays, what leaves and why, and that training reads it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from recorder import Recorder

from ensemble.audit.check import check
from ensemble.audit.findings import Audit
from ensemble.audit.fix import fixed
from ensemble.audit.row_pairs import pairs_within
from ensemble.audit.rows import Given, Rows
from ensemble.data.copies.near import Pairs
from ensemble.data.samples import read_samples
from ensemble.data.scan import scan
from ensemble.errors import UserError
from ensemble.events import SILENT


def run(data: Path, fix: Path) -> tuple[Audit, list[str]]:
    said: list[str] = []
    return check(data, None, None, fix, fix.parent / "audit.json", (), Recorder(said)), said


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture
def table(tmp_path, paint):
    """Twelve sound rows of two classes, and one row of each mistake."""
    rows = []
    for number in range(12):
        paint(tmp_path / "set" / "pics" / f"{number}.png", 40, 40)
        rows.append([f"r{number}", f"pics/{number}.png", ("cat", "dog")[number % 2], f"s{number}"])
    pics = tmp_path / "set" / "pics"
    (pics / "empty.png").touch()
    for name, of in (("copy", 0), ("wrong", 1), ("lower", 4)):
        shutil.copy(pics / f"{of}.png", pics / f"{name}.png")
    rows += [
        ["r12", "pics/gone.png", "cat", "x"],
        ["r13", "pics/empty.png", "cat", "x"],
        ["r14", "pics/2.png", "cat", "x"],
        ["r15", "pics/3.png", "cat", "x"],
        ["r16", "pics/copy.png", "cat", "x"],
        ["r17", "pics/wrong.png", "cat", "x"],
        ["r18", "pics/5.png", "", "x"],
    ]
    frame = pd.DataFrame(rows, columns=["id", "path", "label", "source"])
    frame.loc[6, "label"], frame.loc[7, "label"] = " cat", "Dog"
    frame.to_csv(tmp_path / "set" / "train.csv", index=False)
    return tmp_path / "set" / "train.csv"


def test_every_mistake_leaves_or_is_mended(table, tmp_path):
    _, said = run(table, tmp_path / "out" / "clean.csv")
    made, removed = read(tmp_path / "out" / "clean.csv"), read(tmp_path / "out" / "clean.removed.csv")
    assert made.columns.tolist() == ["id", "path", "label", "source"]
    assert made["id"].tolist() == ["r0", "r2", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11"]
    assert made["label"].tolist() == ["cat", "cat", "cat", "dog", "cat", "dog", "cat", "dog", "cat", "dog"]
    assert made["source"].tolist() == ["s0", "s2", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11"]
    assert made["path"][0] == "../set/pics/0.png"
    reasons = dict(zip(removed["id"], zip(removed["reason"], removed["copy_of"], strict=True), strict=True))
    assert reasons == {
        "r1": ("exact copy with another label", "r17"),
        "r3": ("same file with another label", "r15"),
        "r12": ("missing file", ""),
        "r13": ("unreadable: empty file", ""),
        "r14": ("repeated path", "r2"),
        "r15": ("same file with another label", "r3"),
        "r16": ("exact copy", "r0"),
        "r17": ("exact copy with another label", "r1"),
        "r18": ("no label", ""),
    }
    assert f"{tmp_path / 'out' / 'clean.csv'}: 10 of 19 rows stay" in said
    assert any("9 leave" in line and "exact copy with another label: 2" in line for line in said)
    assert any(line.startswith("2 rows got a label") for line in said)
    assert said[-1].endswith('id = "id" (path and label by their own names)')


def test_training_reads_it_and_a_second_look_finds_nothing(table, tmp_path):
    clean = tmp_path / "set" / "clean.csv"
    before, _ = run(table, clean)
    assert before.worst == "error" and before.fails("error")
    samples = read_samples(clean, id="id")
    assert len(samples) == 10 and samples.classes == ("cat", "dog")
    after = check(clean, None, None, None, tmp_path / "a.json", (), SILENT)
    assert [one.kind for one in after.findings if one.level == "error"] == []
    assert {one.kind for one in after.findings} <= {"small-class"} and after.images == 10


def test_a_folder_becomes_a_table(tmp_path, paint):
    for name in ("cat", "dog"):
        for number in range(6):
            paint(tmp_path / "pets" / name / f"{name}{number}.png", 40, 40)
    shutil.copy(tmp_path / "pets" / "cat" / "cat0.png", tmp_path / "pets" / "cat" / "cat9.png")
    paint(tmp_path / "pets" / "loose.png", 40, 40)
    before = sorted(tmp_path.rglob("*.png"))
    run(tmp_path / "pets", tmp_path / "clean.csv")
    samples = read_samples(tmp_path / "clean.csv", id="id")
    assert len(samples) == 12 and samples.ids[0] == "cat/cat0.png"
    assert read(tmp_path / "clean.removed.csv")["reason"].tolist() == ["exact copy", "no label"]
    assert sorted(tmp_path.rglob("*.png")) == before


def test_files_that_are_there_stay(table, tmp_path):
    with pytest.raises(UserError, match=r"train.csv: exists already; choose another name with --fix, or delete it"):
        run(table, table)
    (tmp_path / "clean.removed.csv").write_text("x")
    with pytest.raises(UserError, match=r"clean.removed.csv: exists already"):
        run(table, tmp_path / "clean.csv")
    assert not (tmp_path / "clean.csv").exists() and not (tmp_path / "audit.json").exists()


def test_nothing_is_written_where_no_row_is_left(tmp_path, paint):
    for number in range(4):
        paint(tmp_path / f"{number}.png")
    labels = "".join(f"{number}.png,a\n{number}.png,b\n" for number in range(4))
    (tmp_path / "t.csv").write_text("path,label\n" + labels)
    with pytest.raises(UserError, match=r"clean.csv: not written: no row is left"):
        run(tmp_path / "t.csv", tmp_path / "clean.csv")
    assert not (tmp_path / "clean.csv").exists()


def made(
    tmp_path: Path, count: int, pairs: list[tuple[int, int]], **columns: list[str] | list[int]
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Fix `count` sound rows in which these pairs are near copies. columns: labels, groups, folds, ids."""
    files = []
    for number in range(count):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
        files.append(path)
    first, second = (
        (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True)) if pairs else (np.zeros(0, int),) * 2
    )
    found = Pairs(first, second, ("hflip",) * len(pairs), np.ones(len(pairs), dtype=np.float32))
    groups, folds = columns.get("groups"), columns.get("folds")
    rows = Rows(
        tmp_path / "t.csv",
        np.array(columns.get("ids", [f"r{row}" for row in range(count)])),
        tuple(files),
        np.array(columns.get("labels", ["a", "b"] * (count // 2) + ["a"] * (count % 2))),
        None if groups is None else np.array(groups),
        None if folds is None else np.array(folds),
    )
    given = Given(rows, False, 5, None, None, None, folds is not None, "auto", ())
    seen = scan(files, tmp_path / "cache", SILENT)
    result = fixed(given, np.arange(count), seen, pairs_within(found, np.arange(count)), tmp_path / "clean.csv")
    return result.table, {"renamed": result.renamed, "moved": result.moved, "grouped": result.grouped}


def test_near_copies_stay_and_share_a_group(tmp_path):
    table, facts = made(tmp_path, 5, [(0, 2), (2, 4)])
    assert table["group"].tolist() == ["r0", "r1", "r0", "r3", "r0"] and facts["grouped"] == 3


def test_a_crowd_of_look_alikes_gets_no_common_group(tmp_path):
    """Frames of a video, the whole of class a: in one group, no fold could train on the class."""
    chain = [(2 * row, 2 * row + 2) for row in range(29)]
    table, facts = made(tmp_path, 60, [*chain, (1, 3)])
    assert facts["grouped"] == 2 and table["group"].value_counts().tolist() == [2] + [1] * 58
    assert table["group"][1] == table["group"][3] == "r1"


def test_no_groups_where_nothing_belongs_together(tmp_path):
    table, _ = made(tmp_path, 4, [])
    assert "group" not in table


def test_the_users_groups_are_joined_by_near_copies_and_keep_their_names(tmp_path):
    table, facts = made(tmp_path, 6, [(1, 2)], groups=["p", "p", "q", "q", "s", ""])
    assert table["group"].tolist() == ["p", "p", "p", "p", "s", "r5"] and facts["grouped"] == 4


def test_a_row_without_a_group_takes_that_of_its_copy_and_no_name_is_taken_twice(tmp_path):
    table, _ = made(tmp_path, 4, [(0, 1)], groups=["", "q", "r3", ""])
    assert table["group"].tolist() == ["q", "q", "r3", "r3+"]


def test_own_folds_keep_copies_and_groups_together(tmp_path):
    table, facts = made(tmp_path, 6, [(0, 3), (1, 4)], folds=[0, -1, 1, 1, 0, -2])
    assert table["fold"].tolist() == [0, 0, 1, 0, 0, -1] and facts["moved"] == 3


def test_repeated_ids_are_numbered(tmp_path):
    table, facts = made(tmp_path, 5, [], ids=["x", "x", "x-2", "x", "y"])
    assert table["id"].tolist() == ["x", "x-3", "x-2", "x-4", "y"] and facts["renamed"] == 2


def test_spellings_become_the_commonest(tmp_path):
    table, _ = made(tmp_path, 5, [], labels=["Dog", "dog", "cat", "Dog", "DOG"])
    assert table["label"].tolist() == ["Dog", "Dog", "cat", "Dog", "Dog"]
