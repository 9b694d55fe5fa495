"""Curves of the report: of training with their values as CSV, and precision, recall and ROC of each class."""

import csv
import io
from urllib.parse import unquote

import numpy as np
import pytest
from report_runs import noisy_logits, write_run
from sklearn.metrics import average_precision_score, roc_auc_score

from ensemble.events import SILENT
from ensemble.report import class_curves, curves, read_run
from ensemble.run import Run


def read_csv(uri):
    kind, _, text = uri.partition(",")
    assert kind == "data:text/csv;charset=utf-8"
    return list(csv.DictReader(io.StringIO(unquote(text))))


def test_learning_curves_as_csv(tmp_path):
    log = [
        {"epoch": 1, "loss": 1.25, "lr": 1e-3, "seconds": 2.0, "images_per_second": 9.0},
        {"epoch": 2, "loss": 0.5, "lr": 5e-4, "seconds": 2.0, "held_out_log_loss": 0.4, "held_out_accuracy": 0.75},
    ]
    labels = np.arange(20) % 2
    values = {name: noisy_logits(labels, 2, 2, 0) for name in ("one", "two")}
    logs = {"one": {0: log, 1: log}}
    run = write_run(tmp_path / "run", ("a", "b"), labels, np.arange(20) // 2 % 2, values, logs=logs)
    content = curves.section(read_run(Run(run), SILENT))
    rows = read_csv(content["csv"])
    assert [(row["member"], row["fold"], row["epoch"]) for row in rows] == [
        ("one", "0", "1"), ("one", "0", "2"), ("one", "1", "1"), ("one", "1", "2"),
    ]  # fmt: skip
    assert rows[0]["loss"] == "1.25" and rows[0]["held_out_log_loss"] == "" and rows[1]["held_out_accuracy"] == "0.75"
    chart = content["charts"][0]
    first, last = (chart["zero"] + epoch * chart["step"] for epoch in (1, 2))
    assert 5 < first < last < 100 and last - first == pytest.approx(chart["step"])


def test_ranked_by_hand():
    """Scores 4 3 3 1 of positives 1 0 1 0: one threshold for both threes."""
    curve = class_curves.ranked(np.array([1, 3, 4, 3]), np.array([False, True, True, False]))
    assert curve.tolist() == [[4, 3, 1], [1, 2 / 3, 1 / 2], [1 / 2, 1, 1], [0, 1 / 2, 1]]
    assert class_curves.average_precision(curve) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert class_curves.area_under_roc(curve) == pytest.approx(7 / 8)  # 1 + 1/2 (tie) of 2, and 2 of 2, of 4 pairs


def test_areas_are_those_of_scikit_learn():
    draw = np.random.default_rng(0)
    scores, positive = draw.integers(0, 40, 300) / 40, draw.random(300) < 0.2
    curve = class_curves.ranked(scores, positive)
    assert class_curves.average_precision(curve) == pytest.approx(average_precision_score(positive, scores))
    assert class_curves.area_under_roc(curve) == pytest.approx(roc_auc_score(positive, scores))


def test_drawn_points_are_few_and_keep_the_ends():
    draw = np.random.default_rng(0)
    curve = class_curves.ranked(draw.random(5000), draw.random(5000) < 0.3)
    kept = class_curves.drawn(curve)
    assert len(kept) <= class_curves.POINTS and kept[0] == 0 and kept[-1] == curve.shape[1] - 1
    short = class_curves.ranked(np.arange(4.0), np.array([True, False, True, False]))
    assert class_curves.drawn(short).tolist() == [0, 1, 2, 3]


def test_the_section_of_class_curves(tmp_path):
    labels = np.arange(60) % 3
    run = write_run(
        tmp_path / "run", ("a, b", "c", "d", "none"), labels, np.arange(60) // 3 % 3,
        {"one": noisy_logits(labels, 4, 2, 0)},
    )  # fmt: skip
    content = class_curves.section(read_run(Run(run), SILENT))
    assert [one["name"] for one in content["classes"]] == ["a, b", "c", "d"]  # a class without images has no curve
    assert content["precision_recall"].count('class="curve"') == content["roc"].count('class="curve"') == 3
    assert {row["class"] for row in read_csv(content["csv"])} == {"a, b", "c", "d"}
