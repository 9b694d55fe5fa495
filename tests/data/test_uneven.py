"""Groups larger than a fold: said with the sizes by init, check and training."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from recorder import Recorder

from ensemble.audit.check import check
from ensemble.config import load_config
from ensemble.data.labelled import read_labelled
from ensemble.data.uneven import planned, uneven, written
from ensemble.events import SILENT
from ensemble.init import init
from ensemble.train.setup import open_run


def groups(*sizes: int) -> np.ndarray:
    return np.repeat([f"g{number}" for number in range(len(sizes))], sizes)


def test_one_group_fills_a_fold() -> None:
    found = uneven(np.repeat([0, 1, 2, 3, 4], [1, 1, 20, 1, 1]), groups(1, 1, 20, 1, 1))
    assert found is not None and found.sizes == (1, 1, 20, 1, 1) and (found.largest, found.rows) == (2, 24)
    assert found.line() == (
        "warning: the folds hold 20, 1, 1, 1 and 1 images: fold 2 alone has 20 of 24, and its models are trained on "
        "the other 4; group 'g2' has 20 images, more than a fold, and groups are never split: fewer folds don't "
        "mend it; name smaller groups (data.group) if they can be told apart"
    )


def test_fewer_folds_where_they_help() -> None:
    # of 40 rows a group has 14: more than 1.5 fifths (12), less than 1.5 quarters (15)
    found = uneven(np.repeat([0, 1, 2, 3, 4], [14, 7, 7, 6, 6]), groups(14, 7, 7, 6, 6))
    assert found is not None and found.advice.startswith("set folds.k = 4, or name smaller groups")
    # six groups of 4 over five folds: one has 8 of 24, its share is 4.8
    found = uneven(np.repeat([0, 1, 2, 3, 4], [8, 4, 4, 4, 4]), groups(4, 4, 4, 4, 4, 4))
    assert found is not None and found.why.startswith("6 groups can't be spread evenly over 5 folds")
    assert found.advice.startswith("set folds.k = 4, ")  # 8, 8, 4, 4: of 24, at most 9 may be in one


def test_even_folds_and_own_ones() -> None:
    assert uneven(np.repeat([0, 1], [12, 8]), groups(12, 8)) is None
    assert uneven(np.full(3, -1), None) is None
    found = uneven(np.repeat([0, 1, -1], [9, 2, 5]), None)  # of 11 that are validated, 1.5 halves are 8.25
    assert found is not None and "fold 0 alone has 9 of 16" in found.line() and "your own folds" in found.line()


def test_small_groups_need_no_look() -> None:
    labels = np.arange(40) % 2
    assert planned(labels, ("a", "b"), 5, groups(*[4] * 10)) is None  # half a fold each
    made = planned(labels, ("a", "b"), 5, groups(20, *[2] * 10))
    assert made is not None and np.bincount(made).max() >= 20


def test_many_sizes_are_cut_short() -> None:
    assert written((3, 20, 1)) == "20, 3 and 1"
    assert written(tuple(range(12))) == "11, 10, 9, 8, 7, 6, 5, ... and 0"


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """24 images, 20 of them of one hospital."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    Path("images").mkdir()
    for number in range(24):
        Image.fromarray(noise.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(f"images/{number}.png")
    rows = pd.DataFrame({"image": [f"{number}.png" for number in range(24)], "label": ["dog", "cat"] * 12})
    rows["patient"] = ["a" if number < 20 else f"b{number}" for number in range(24)]
    rows.to_csv("train.csv", index=False)
    return tmp_path


def test_init_says_what_the_folds_will_hold(hospital: Path) -> None:
    said = init(Path("train.csv"), None, None, Path("e.toml"))
    (line,) = (line for line in said if line.startswith("warning: the folds hold"))
    assert "20, 1, 1, 1 and 1 images" in line and "group 'a' has 20 images, more than a fold" in line
    (k,) = (line for line in Path("e.toml").read_text().splitlines() if "k = 5" in line or "each scored on" in line)
    assert "each scored on the fold it never saw: 20, 1, 1, 1 and 1 images" in k and "1/5" not in k


def test_training_says_it_too(hospital: Path) -> None:
    init(Path("train.csv"), None, None, Path("e.toml"))
    config, said = load_config(Path("e.toml")), list[str]()
    folds = open_run(config, read_labelled(config), Recorder(said))
    assert sorted(np.bincount(folds).tolist()) == [1, 1, 1, 1, 20]
    assert any("the folds hold 20, 1, 1, 1 and 1 images" in line for line in said)


def test_check_has_a_finding(hospital: Path) -> None:
    audit = check(Path("train.csv"), None, None, None, Path("a.json"), (), SILENT)
    (found,) = (one for one in audit.findings if one.kind == "uneven-folds")
    assert (found.level, found.count, len(found.rows)) == ("warning", 20, 20)
    assert found.what.startswith("of 24 images in one of 5 folds, of 20, 1, 1, 1 and 1 images: group 'a' has 20")
