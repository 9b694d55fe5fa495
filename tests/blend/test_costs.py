"""What mistakes cost, and blends for metrics that are not computed always."""

import re
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from report_runs import noisy_logits, write_run
from test_blend_run import make_run

from ensemble.blend import BlendOptions, blend_run, list_blends, load_blend
from ensemble.blend.costs import read_costs
from ensemble.blend.described import read_described
from ensemble.blend.oof import read_member, read_rows
from ensemble.blend.probabilities import geometric_mean, softmax
from ensemble.blend.refitted import cross_fitted
from ensemble.blend.result import read_result
from ensemble.cli import ens
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.report import read_run
from ensemble.report.classes import section
from ensemble.run import Run
from ensemble.scoring.calibration import ece
from ensemble.scoring.counts import class_counts, macro_f1

CLASSES = ("cat", "dog", "NA")


def write(path, text):
    (path / "costs.csv").write_text(text, encoding="utf-8")
    return path / "costs.csv"


def test_rows_are_true_classes_and_columns_predicted_ones_in_any_order(tmp_path):
    path = write(tmp_path, "true,NA,cat,dog\ndog,5,1,0\nNA,0,10,20\ncat,3,0,2.5\n")
    assert read_costs(path, CLASSES).tolist() == [[0, 2.5, 3], [1, 0, 5], [10, 20, 0]]


def test_a_spreadsheet_may_leave_the_corner_empty_and_write_decimal_commas(tmp_path):
    path = write(tmp_path, ";cat;dog\ncat;0;1,5\ndog;2;0\n")
    assert read_costs(path, ("cat", "dog")).tolist() == [[0, 1.5], [2, 0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("true,cat,dog\ncat,0,1\ndog,1,0\n", "no row 'NA'; a file of costs has every class as a row, the true one"),
        ("true,cat,dog\ncat,0,1\ndog,1,0\nNA,1,1\n", "no column 'NA'; a file of costs has"),
        ("true,cat,dog,NA\ncat,0,1,1\ncow,1,0,1\n", "the row 'cow' is not a class; the classes are: cat, dog, NA"),
        ("true,cat,dog,cow\n" + "cat,0,1,1\ndog,1,0,1\nNA,1,1,0\n", "the column 'cow' is not a class"),
        ("true,cat,dog,NA\ncat,0,1,1\ncat,1,0,1\n", "the row 'cat' is there twice"),
        ("true,cat,dog,NA\ncat,0,1,1\ndog,much,0,1\nNA,1,1,0\n", "row 'dog', column 'cat' is 'much'; want a number"),
        ("true,cat,dog,NA\ncat,0,1,\ndog,1,0,1\nNA,1,1,0\n", "row 'cat', column 'NA' is ''; want a number"),
        ("true,cat,dog,NA\ncat,0,1,inf\ndog,1,0,1\nNA,1,1,0\n", "row 'cat', column 'NA' is 'inf'; want a number"),
        (
            "true,cat,dog,NA\ncat,1,0,0\ndog,0,1,0\nNA,0,0,1\n",
            "to predict 'dog' for 'cat' costs 0, less than to be right (1); write what mistakes cost",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_costs(path, CLASSES)
    assert str(caught.value).startswith(f"{path}: ") and said in str(caught.value)


# ---- a blend that knows what mistakes cost --------------------------------------------------------------------------

COSTS = "true,cat,dog,NA\ncat,0,1,1\ndog,1,0,1\nNA,9,9,0\n"  # to miss an NA is dear


@pytest.fixture
def run(tmp_path):
    make_run(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("method", ["stack", "greedy", "auto"])
def test_a_blend_is_scored_by_its_decisions_and_keeps_the_costs(run, tmp_path, method):
    options = BlendOptions(method, "expected_cost", costs=write(tmp_path, COSTS))
    result = blend_run(Run(run), options)
    assert result.name == f"{method}-expected_cost"
    costs = np.array([[0.0, 1, 1], [1, 0, 1], [9, 9, 0]])
    loaded = load_blend(Run(run), result.name)
    assert np.array_equal(loaded.costs, costs) and np.array_equal(result.fitted.costs, costs)
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.96, 0.02, 0.02]])
    assert loaded.decide(probabilities).tolist() == [2, 2, 0]  # 0.1 x 9 > 0.8 + 0.1; 0.02 x 9 < 0.98
    z = np.stack([read_member(Run(run), name, read_rows(Run(run)))[0].mean(axis=0) for name in "ab"])
    labels, mean = read_rows(Run(run)).labels, geometric_mean(z)
    decided = (mean @ costs).argmin(axis=1)
    assert result.mean["expected_cost"].value == pytest.approx(costs[labels, decided].mean())
    assert result.mean["accuracy"].value == (decided == labels).mean() != (mean.argmax(axis=1) == labels).mean()
    confidence = mean.max(axis=1).mean()  # calibration is of the most probable classes all the same
    bins = result.reliability["plain mean"]
    assert sum(part.rows * part.accuracy for part in bins) == pytest.approx((mean.argmax(axis=1) == labels).sum())
    assert sum(part.rows * part.confidence for part in bins) / len(labels) == pytest.approx(confidence)
    assert result.calibration["plain mean"].ece == ece(mean.argmax(axis=1) == labels, mean.max(axis=1))
    assert {own.metric for own in result.diversity.costs.values()} == {"expected_cost"}
    decisions = (
        "is fitted by log loss; images are decided for the class of the least expected cost, in the rows of the "
        "members and of the mean too"
    )
    assert any(decisions in note for note in result.notes)
    assert read_result(Run(run), result.name).blend["expected_cost"] == result.blend["expected_cost"]


def test_what_deciding_by_cost_saves_is_said(run, tmp_path):
    path = write(tmp_path, COSTS)
    options = ["blend", str(run), "--method", "mean", "--metric", "expected_cost", "--costs", str(path)]
    done = CliRunner().invoke(ens, options)
    assert done.exit_code == 0, done.output + str(done.exception)
    result = read_result(Run(run), "mean-expected_cost")
    labels, probs = read_rows(Run(run)).labels, cross_fitted(Run(run), result)
    by_cost, most = result.fitted.decide(probs), probs.argmax(axis=1)
    costs = result.fitted.costs
    saved = costs[labels, most].mean() - costs[labels, by_cost].mean()
    assert result.decision.saved.value == pytest.approx(saved) and saved != 0
    assert result.decision.changed == (by_cost != most).mean() > 0
    said = " ".join(done.output.split())
    assert f"expected cost saved by deciding by cost, not for the most probable class: {saved:+.4f} [" in said
    assert f"{100 * result.decision.changed:.2f} % of the images get another class" in said
    page = section(read_run(Run(run), SILENT))
    assert page["is_by_cost"]
    assert blend_run(Run(run), BlendOptions("mean")).decision is None


def test_the_scores_are_of_the_classes_that_the_blend_decides_for(run, tmp_path):
    """So are those of its members and of the plain mean: gains compare like with like."""
    name = blend_run(Run(run), BlendOptions("stack", "expected_cost", costs=write(tmp_path, COSTS))).name
    result = read_result(Run(run), name)
    rows = read_rows(Run(run))
    z = np.stack([read_member(Run(run), name, rows)[0].mean(axis=0) for name in "ab"])
    systems = [(result.blend, cross_fitted(Run(run), result)), (result.mean, geometric_mean(z))]
    for scores, probs in [*systems, *((result.members[member], softmax(z["ab".index(member)])) for member in "ab")]:
        decided = result.fitted.decide(probs)
        counts = class_counts(rows.labels, decided, len(CLASSES))
        assert scores["accuracy"].value == pytest.approx((decided == rows.labels).mean())
        assert scores["macro_f1"].value == pytest.approx(macro_f1(counts))
        assert (decided != probs.argmax(axis=1)).any()
    results = read_run(Run(run), SILENT)
    assert results.predicted.tolist() == result.fitted.decide(results.probabilities).tolist()
    page = section(results)
    assert page["accuracy"] == pytest.approx(result.blend["accuracy"].value)
    assert page["ece"] == pytest.approx(result.calibration["blend"].ece)


def test_from_python_a_run_takes_the_file_too(run, tmp_path):
    blend = Run(run).blend("mean", "expected_cost", costs=str(write(tmp_path, COSTS)), events=SILENT)
    assert blend.result.fitted.costs.tolist() == [[0, 1, 1], [1, 0, 1], [9, 9, 0]]
    assert "expected_cost" in blend.scores.columns


def test_a_blend_without_costs_decides_for_the_most_probable_class(run):
    blend_run(Run(run), BlendOptions("mean"))
    loaded = load_blend(Run(run), "mean")
    assert loaded.costs is None and loaded.decide(np.array([[0.2, 0.8, 0.0]])).tolist() == [1]
    assert "costs" not in read_described(Run(run), "mean")


def test_costs_and_their_metric_go_together(run, tmp_path):
    path = write(tmp_path, COSTS)
    with pytest.raises(UserError, match="metric 'expected_cost' needs to know what mistakes cost: --costs FILE"):
        blend_run(Run(run), BlendOptions(metric="expected_cost"))
    with pytest.raises(UserError, match=f"--costs {path} goes with --metric expected_cost, not macro_f1"):
        blend_run(Run(run), BlendOptions(metric="macro_f1", costs=path))
    assert list_blends(Run(run)) == []


def test_saved_costs_of_another_shape_are_refused(run, tmp_path):
    blend_run(Run(run), BlendOptions("mean", "expected_cost", costs=write(tmp_path, COSTS)))
    path = Run(run).blend_json("mean-expected_cost")
    held = read_json(path, dict[str, Any])
    write_json(path, held | {"costs": [[0.0, 1.0], [1.0, 0.0]]})
    with pytest.raises(UserError, match="costs are \\(2, 2\\), want a row and a column for each class"):
        load_blend(Run(run), "mean-expected_cost")


# ---- other metrics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "quadratic_kappa", "matthews"])
@pytest.mark.parametrize("method", ["vote", "greedy", "auto"])
def test_a_blend_for_each_metric(run, method, metric):
    result = blend_run(Run(run), BlendOptions(method, metric, prune=True))
    for table in (result.blend, result.mean, *result.members.values()):
        assert table[metric].low <= table[metric].value <= table[metric].high
    assert (result.fitted.chain.metric_bias is not None) == (metric in ("quadratic_kappa", "matthews"))
    if method == "greedy":
        by = "log_loss" if metric in ("roc_auc", "average_precision") else metric
        assert any(note.startswith(f"members selected by {by}, ") for note in result.notes)
    assert read_result(Run(run), result.name).blend[metric] == result.blend[metric]


def test_a_metric_that_needs_more_classes_is_refused(run):
    with pytest.raises(UserError, match="'top5_accuracy' needs at least 6 classes, and there are 3"):
        blend_run(Run(run), BlendOptions(metric="top5_accuracy"))


def test_folds_and_resamples_without_a_value_are_said(tmp_path):
    """Class 1 has three rows, all in fold 0: fold 1 has no ROC AUC, nor has a resample without them."""
    labels = np.zeros(40, dtype=int)
    labels[[0, 2, 4]] = 1
    members = {name: noisy_logits(labels, 2, 1.0, seed) for seed, name in enumerate("ab")}
    path = write_run(tmp_path / "run", ("no", "yes"), labels, np.arange(40) % 2, members)
    result = blend_run(Run(path), BlendOptions("mean", "roc_auc"))
    assert np.isfinite(result.blend["roc_auc"].value) and np.isnan(result.blend["roc_auc"].folds[1])
    said = "\n".join(result.notes)
    lacking = int(re.search(r"ROC AUC has no value in (\d+) of 1000 resamples; intervals are of the others", said)[1])
    assert 20 < lacking < 80  # (1 - 3 / 40) ** 40 is 4.4%
    assert "ROC AUC has no value on fold 1 alone, so there is no deviation over folds" in said
    assert np.isnan(read_result(Run(path), "mean-roc_auc").blend["roc_auc"].folds[1])


def test_rows_of_one_class_have_no_roc_auc(tmp_path):
    labels = np.zeros(20, dtype=int)
    members = {name: noisy_logits(labels, 2, 1.0, seed) for seed, name in enumerate("ab")}
    path = write_run(tmp_path / "run", ("no", "yes"), labels, np.arange(20) % 2, members)
    with pytest.raises(UserError, match="metric 'roc_auc' has no value here: all rows that count are of one class"):
        blend_run(Run(path), BlendOptions("mean", "roc_auc"))
