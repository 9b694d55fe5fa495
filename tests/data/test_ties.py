"""Rows that show one picture share a fold."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from recorder import Recorder

from ensemble.config import load_config
from ensemble.data.copies.near import Pairs
from ensemble.data.copies.ties import counted, exact_groups, near_groups, near_ties
from ensemble.data.folds import read_folds
from ensemble.data.samples import read_samples
from ensemble.events import SILENT
from ensemble.run import Run
from ensemble.train.setup import open_run


def picture(seed, side=96):
    """Blobs of colour, of which no two seeds' are alike."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def images(tmp_path):
    """Ten pictures, five a class; a/0 again as a JPEG, mirrored and small (b/x), and b/1 turned (b/y)."""
    for row in range(10):
        path = tmp_path / "train" / "ab"[row % 2] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(row).save(path)
    mirrored = picture(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((64, 64))
    mirrored.save(tmp_path / "train" / "b" / "x.jpg", quality=60)
    picture(1).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "train" / "b" / "y.png")
    return tmp_path / "train"


def joined_names(samples, groups):
    return [samples.ids[groups == name].tolist() for name in np.unique(groups) if (groups == name).sum() > 1]


@pytest.mark.parametrize("cache", ["folder", "off"])
def test_near_copies_are_joined_counted_and_said(images, tmp_path, cache):
    samples, said = read_samples(images), []
    assert exact_groups(samples, Recorder(said)) is None and said == []
    where = "off" if cache == "off" else str(tmp_path / "cache")
    groups = near_groups(samples, None, where, Recorder(said))
    assert joined_names(samples, groups) == [["a/0.png", "b/x.jpg"], ["b/1.png", "b/y.png"]]
    assert len(np.unique(groups)) == 10
    assert said == [
        "copies: 4 images in 2 pairs (2 re-encoded, resized, mirrored, turned or cut); they share a fold; to see them: "
        "ens check; to leave them apart: folds.near_copies = false",
        "warning: 1 pair of near copies has two labels (first: 'a/0.png' and 'b/x.jpg')",
    ]
    assert (tmp_path / "cache").exists() == (cache == "folder")


def test_groups_of_near_copies_become_one(images, tmp_path):
    samples = read_samples(images)
    groups = np.array(["p", "q"] * 6)
    samples = replace(samples, groups=groups)
    wide = near_groups(samples, groups, str(tmp_path / "cache"), SILENT)
    # a/0 and b/x, and b/1 and b/y, stand in the rows 0 and 10, and 5 and 11
    assert groups[[0, 10, 5, 11]].tolist() == ["p", "p", "q", "q"] and np.array_equal(wide, groups)
    groups[10] = "r"
    wide = near_groups(replace(samples, groups=groups), groups, str(tmp_path / "cache"), SILENT)
    assert wide[0] == wide[10] == "p" and wide.tolist().count("q") == 6


def test_without_near_copies_nothing_is_said(images, tmp_path):
    (images / "b" / "x.jpg").unlink()
    (images / "b" / "y.png").unlink()
    said = []
    assert near_groups(read_samples(images), None, str(tmp_path / "c"), Recorder(said)) is None
    assert said == []


def test_a_crowd_that_looks_alike_is_left_apart(images, tmp_path):
    for row in range(21):
        picture(100).rotate(row / 7, Image.Resampling.BICUBIC).save(images / "a" / f"like{row:02}.png")
    samples, said = read_samples(images), []
    groups = near_groups(samples, None, str(tmp_path / "cache"), Recorder(said))
    assert joined_names(samples, groups) == [["a/0.png", "b/x.jpg"], ["b/1.png", "b/y.png"]]
    assert said[0] == (
        "warning: 21 of the 33 images hang together by likeness, 'a/like00.png' among them: more than copies would, so "
        "they are left apart; look at them with ens check, and give those that are one picture one data.group"
    )


def test_a_crowd_that_the_user_holds_together_is_not_warned_of(images, tmp_path):
    for row in range(21):
        picture(100).rotate(row / 7, Image.Resampling.BICUBIC).save(images / "a" / f"like{row:02}.png")
    samples, said = read_samples(images), []
    groups = np.array(["scene" if "like" in id else id for id in samples.ids])
    wide = near_groups(samples, groups, str(tmp_path / "cache"), Recorder(said))
    assert (wide == "scene").sum() == 21 and not any("hang together" in line for line in said)


def tied(rows, *pairs):
    tied = near_ties(some(*pairs), rows)
    assert tied.dtype == np.int64
    return tied.tolist()


def some(*pairs):
    first, second, kinds = zip(*pairs, strict=True) if pairs else ((), (), ())
    rows = np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)
    return Pairs(*rows, kinds, np.ones(len(pairs), dtype=np.float32))


def test_which_near_pairs_tie_rows():
    assert tied(5, (0, 2, "hflip"), (2, 4, "exact")) == [0, 1, 0, 3, 0]
    for kind in ("crop", "look-alike"):
        chain = [(row, row + 1, kind) for row in range(20)]
        assert tied(22, *chain[:19]) == [0] * 20 + [20, 21]  # 20 are few enough
        assert tied(22, *chain) == list(range(22))
        assert tied(210, *chain) == [0] * 21 + list(range(21, 210))  # and 21 of 210 are a small share
        assert tied(209, *chain) == list(range(209))


def test_exact_copies_stay_tied_and_count_once():
    chain = [(row, row + 1, "crop") for row in range(19)]
    copies = [(0, row, "exact") for row in range(20, 40)]
    assert tied(40, *chain, *copies) == [0] * 40  # 20 files
    assert tied(42, *chain, *copies, (19, 40, "crop"), (1, 41, "exact")) == [*range(20)] + [0] * 20 + [40, 1]


def test_copies_stay_tied_where_their_look_alikes_are_a_crowd():
    crowd = [(row, row + 1, "look-alike") for row in range(20)]
    assert tied(25, *crowd, (3, 21, "hflip"), (22, 23, "look-alike")) == [*range(21), 3, 22, 22, 24]


def test_how_many_copies_and_look_alikes_there_are():
    assert counted(some()) == ""
    assert counted(some((0, 1, "exact"))) == "copies: 2 images in 1 pair (1 byte for byte)"
    assert counted(some((0, 1, "exact"), (0, 2, "crop"), (1, 2, "crop"), (3, 4, "look-alike"))) == (
        "copies: 3 images in 3 pairs (1 byte for byte, 2 re-encoded, resized, mirrored, turned or cut); look-alikes, "
        "perhaps of one person, object or scene: 2 images in 1 pair"
    )
    assert counted(some((5, 6, "look-alike"), (5, 7, "look-alike"))) == (
        "look-alikes, perhaps of one person, object or scene: 3 images in 2 pairs"
    )


def test_look_alikes_share_a_fold_and_no_label_of_theirs_is_doubted(images, tmp_path):
    (images / "b" / "x.jpg").unlink()
    (images / "b" / "y.png").unlink()
    masked = picture(2)
    masked.paste(picture(77, 30), (30, 50))
    masked.save(images / "b" / "z.png")
    samples, said = read_samples(images), []
    groups = near_groups(samples, None, str(tmp_path / "cache"), Recorder(said))
    assert joined_names(samples, groups) == [["a/2.png", "b/z.png"]]
    assert said == [
        "look-alikes, perhaps of one person, object or scene: 2 images in 1 pair; they share a fold; to see them: "
        "ens check; to leave them apart: folds.near_copies = false"
    ]


def test_a_crowd_of_look_alikes_is_no_reason_to_warn(images, tmp_path):
    for row in range(21):
        one = picture(100)
        one.paste(picture(200 + row, 30), (10 + row, 40))
        one.save(images / "a" / f"like{row:02}.png")
    samples, said = read_samples(images), []
    groups = near_groups(samples, None, str(tmp_path / "cache"), Recorder(said))
    assert joined_names(samples, groups) == [["a/0.png", "b/x.jpg"], ["b/1.png", "b/y.png"]]
    assert said[0].startswith("21 of the 33 images hang together by likeness, 'a/like00.png' among them")
    assert "the others share a fold" in said[1] and "look-alikes, perhaps of one person" in said[1]


def test_look_alikes_in_two_of_the_users_folds_are_accused_of_nothing(images, tmp_path):
    (images / "b" / "x.jpg").unlink()
    (images / "b" / "y.png").unlink()
    masked = picture(2)
    masked.paste(picture(77, 30), (30, 50))
    masked.save(images / "b" / "z.png")
    rows = [f"{path.relative_to(images)},{path.parent.name}" for path in sorted(images.rglob("*.*"))]
    table = images / "own.csv"
    table.write_text("path,label,part\n" + "".join(f"{row},{at % 2}\n" for at, row in enumerate(rows)))
    config = experiment(tmp_path, table, 'fold = "part"')
    said = []
    open_run(config, read_samples(table, fold="part"), Recorder(said))
    folds = read_folds(Run(config.run)).set_index("id")["fold"]
    assert folds["a/2.png"] != folds["b/z.png"]
    assert said == ["look-alikes, perhaps of one person, object or scene: 2 images in 1 pair; to see them: ens check"]


def experiment(tmp_path, images, folds):
    (tmp_path / "e.toml").write_text(
        f'run = "{tmp_path / "run"}"\n[data]\ntrain = "{images}"\ncache = "{tmp_path / "cache"}"\n[folds]\n{folds}\n'
        '[[backbone]]\nname = "resnet"\ntimm = "test_resnet"\npretrained = false\n'
    )
    return load_config(tmp_path / "e.toml")


def test_a_run_keeps_near_copies_in_one_fold_unless_told_otherwise(images, tmp_path):
    apart = 0
    for seed in range(8):
        for near in (True, False):
            (tmp_path / f"{seed}{near}").mkdir()
            config = experiment(tmp_path / f"{seed}{near}", images, f"k = 2\nnear_copies = {str(near).lower()}")
            config = config.model_copy(update={"seed": seed})
            open_run(config, read_samples(images), SILENT)
            folds = read_folds(Run(config.run)).set_index("id")["fold"]
            split = folds["a/0.png"] != folds["b/x.jpg"] or folds["b/1.png"] != folds["b/y.png"]
            assert not (near and split)
            apart += split
    assert apart > 0


def test_own_folds_that_split_near_copies_are_warned_of(images, tmp_path):
    rows = [f"{path.relative_to(images)},{path.parent.name}" for path in sorted(images.rglob("*.*"))]
    table = images / "own.csv"
    table.write_text("path,label,part\n" + "".join(f"{row},{at % 3}\n" for at, row in enumerate(rows)))
    config = experiment(tmp_path, table, 'fold = "part"')
    said = []
    samples = read_samples(table, fold="part")
    open_run(config, samples, Recorder(said))
    folds = read_folds(Run(config.run)).set_index("id")["fold"]
    split = int(folds["a/0.png"] != folds["b/x.jpg"]) + int(folds["b/1.png"] != folds["b/y.png"])
    assert split == 1
    assert said[-1] == (
        "warning: 1 set of near copies stands in two or more of your own folds, which makes their scores optimistic"
    )
