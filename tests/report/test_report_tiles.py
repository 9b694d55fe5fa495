"""The verdict's sentence and numbers, where members are better, worse or alike; names that wrap; axes of strips."""

import numpy as np
import pytest
from report_runs import write_run

from ensemble.blend import BlendOptions, blend_run
from ensemble.events import SILENT
from ensemble.report import read_run
from ensemble.report.page import breakable
from ensemble.report.strips import axis, strip
from ensemble.report.tiles import accuracy_ends, change, headline, tiles
from ensemble.report.verdict import section
from ensemble.run import Run
from ensemble.scoring.bootstrap import Gain, Score


def predicted(classes, strength=2.0):
    return np.where(np.arange(2) == np.asarray(classes)[:, None], strength, 0.0)


def run_of(path, *wrong, rows=200):
    """A run of two classes whose members are wrong on the given rows, blended by the mean."""
    labels = np.arange(rows) % 2
    members = {
        name: predicted(np.where(np.isin(np.arange(rows), rows_wrong), 1 - labels, labels), strength)
        for name, (rows_wrong, strength) in zip(("one", "two", "three"), wrong, strict=False)
    }
    run = Run(write_run(path, ("a", "b"), labels, np.arange(rows) // 2 % 4, members))
    if len(members) > 1:
        blend_run(run, BlendOptions("mean"), events=SILENT)
    return read_run(run, SILENT)


def shown(results):
    return headline(results, results.best), {tile.title: tile for tile in tiles(results, results.best)}


def test_a_gain_that_can_be_told_is_a_number(tmp_path):
    """Three members with 20 mistakes each, none in common: the mean has none, 10 points more."""
    line, numbers = shown(run_of(tmp_path / "run", *((range(20 * k, 20 * k + 20), 2) for k in range(3))))
    assert line == (
        "The best blend, mean, classifies 100.00 % of 200 images correctly, 10.00 points more than the best single "
        "member."
    )
    assert numbers["Accuracy"].value == "100.00" and "200 of 200 images" in numbers["Accuracy"].lines
    assert numbers["Accuracy"].lines[0] == "95 % interval 98.09 to 100.00"  # that of the table, and of `ens blend`
    gained = numbers["Gain over the best single member"]
    assert (gained.value, gained.unit, gained.tone) == ("10.00", "points", "better")
    assert numbers["Log loss"].lines[-1] == "lower is better; guessing has 0.6931"


def test_without_a_mistake_the_verdict_has_the_interval_of_the_table():
    """Of 10 groups it is wide; only where an older ens saved none is it made here."""
    assert accuracy_ends(Score(1.0, 0.66, 1.0, (1.0,)), 10) == (0.66, 1.0)
    assert accuracy_ends(Score(1.0, 1.0, 1.0, (1.0,)), 10) == pytest.approx((10 / (10 + 1.96**2), 1.0), abs=1e-4)


def test_a_loss_is_called_one(tmp_path):
    """The second member is wrong on 40 rows and twice as sure: the mean follows it."""
    results = run_of(tmp_path / "run", ((), 1), (range(40), 2))
    line, numbers = shown(results)
    assert line.endswith(", 20.00 points fewer than the best single member.")
    gained = numbers["Gain over the best single member"]
    assert (gained.value, gained.unit, gained.tone) == ("20.00", "points lost", "worse")
    text = " ".join(section(results)["sentences"])
    assert "Compared with the best single member, one, it loses 20.00 [" in text and "gains -" not in text


def test_where_the_interval_holds_0_no_gain_can_be_told(tmp_path):
    """The mean is right where one of the two is right and surer: 1 of 200 rows more than the better member."""
    results = run_of(tmp_path / "run", (range(10), 1), (range(10, 20), 1.5))
    line, numbers = shown(results)
    assert line.endswith("correctly; no gain over the best single member can be told.")
    gained = numbers["Gain over the best single member"]
    assert (gained.value, gained.tone) == ("No gain can be told", "words")


def test_of_one_member_there_is_no_gain(tmp_path):
    line, numbers = shown(run_of(tmp_path / "run", (range(20), 2)))
    assert line == "one classifies 90.00 % of 200 images correctly."
    assert numbers["Gain over the best single member"].value == "Only one member"


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [
        ("accuracy", 0.0106, "1.06 points more"),
        ("accuracy", -0.0035, "0.35 points fewer"),
        ("log_loss", 0.0366, "0.0366 lower"),
        ("log_loss", -0.01, "0.0100 higher"),
    ],
)
def test_changes_in_words(metric, value, words):
    assert change(Gain("x", metric, value, value, value, 1.0)) == words


def test_names_wrap_at_their_separators_and_numbers_do_not():
    assert breakable("tf_lite.in1k/0.5-b") == "tf_<wbr>lite.<wbr>in1k/<wbr>0.5-<wbr>b"
    assert breakable("<b>_1 -0.35") == "&lt;b&gt;_<wbr>1 -0.35"


def test_strips_and_their_axis_share_a_scale():
    ticks = axis(0.0, 0.2, "{:g}".format)
    assert [tick["text"] for tick in ticks] == ["0", "0.1", "0.2"]
    assert [tick["at"] for tick in ticks] == pytest.approx([6, 50, 94])
    assert strip(0.0, 0.1, 0.2, 0.0, 0.2) == pytest.approx({"left": 6, "width": 88, "at": 50})
    assert axis(1.0, 1.0, str) == []
