"""Precision against recall and ROC of each class against all others, with average precision and area under the ROC."""

from typing import Any

import numpy as np
from markupsafe import Markup

from ensemble.report.charts import csv_uri
from ensemble.report.run import RunResults

MOST = 30  # classes: of more, those of the lowest average precision
POINTS = 80  # of a drawn curve
SIDE, LEFT, BOTTOM, TOP = 300, 34, 34, 8  # of a chart, in units of its viewBox


def section(results: RunResults) -> dict[str, Any] | None:
    """Two charts of all classes, a table of them, and the curves as CSV."""
    if results.oof is None:
        return {"missing": "No member has finished a fold yet."}
    labels = results.oof.rows.labels
    counts = np.bincount(labels, minlength=len(results.classes))
    there = np.flatnonzero((counts > 0) & (counts < len(labels)))
    if not len(there):
        return {"missing": "All images have one class, so there is nothing to tell apart."}
    found: list[dict[str, Any]] = []
    for c in there.tolist():
        curve = ranked(results.probabilities[:, c], labels == c)
        ap, auc = average_precision(curve), area_under_roc(curve)
        found.append({"number": c, "name": results.classes[c], "rows": int(counts[c]), "ap": ap, "auc": auc,
                      "curve": curve[:, drawn(curve)]})  # fmt: skip
    worst = sorted(found, key=lambda one: (one["ap"], one["name"]))
    shown = worst[:MOST] if len(found) > MOST else found
    return {
        "classes": shown,
        "left": len(found) - len(shown),
        "worst": worst[0]["number"],
        "mean_ap": float(np.mean([one["ap"] for one in found])),
        "mean_auc": float(np.mean([one["auc"] for one in found])),
        "precision_recall": _chart([(one["number"], one["curve"][2], one["curve"][1]) for one in shown], "recall, %",
                                   "precision, %", "Precision against recall of each class"),
        "roc": _chart([(one["number"], one["curve"][3], one["curve"][2]) for one in shown], "false positive rate, %",
                      "true positive rate, %", "True positive rate against false positive rate of each class"),
        "csv": _csv(shown),
    }  # fmt: skip


def ranked(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Threshold, precision, recall and false positive rate, float64 (4, T), at each distinct score, the highest first.

    scores: float (N,). positive: bool (N,), of which some are True and some are not.
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order]
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1)  # of each run of equal scores
    right = np.cumsum(positive[order])[last]
    named = last + 1
    return np.stack([
        sorted_scores[last], right / named, right / positive.sum(), (named - right) / (len(positive) - positive.sum())
    ])  # fmt: skip


def average_precision(curve: np.ndarray) -> float:
    """The mean of the precision over the steps of the recall, without interpolation, as scikit-learn computes it."""
    return float((np.diff(curve[2], prepend=0) * curve[1]).sum())


def area_under_roc(curve: np.ndarray) -> float:
    """The chance that a positive has a higher score than a negative; ties count half."""
    found, false = np.append(0, curve[2]), np.append(0, curve[3])
    return float((np.diff(false) * (found[1:] + found[:-1]) / 2).sum())


def drawn(curve: np.ndarray) -> np.ndarray:
    """Indices of at most POINTS of a curve's T points, evenly along the way that it takes; the first and the last."""
    along = np.abs(np.diff(curve[1:], axis=1)).sum(axis=0).cumsum()
    if len(along) < POINTS:
        return np.arange(len(along) + 1)
    found = np.searchsorted(along, np.linspace(0, along[-1], POINTS - 1))
    return np.unique(np.concatenate([[0], found + 1]).clip(0, len(along)))


def _chart(curves: list[tuple[int, np.ndarray, np.ndarray]], xlabel: str, ylabel: str, label: str) -> Markup:
    """Lines of shares against shares. They are many and light, and the page's script marks them: no matplotlib."""
    width, height = SIDE + LEFT + 14, SIDE + BOTTOM + TOP + 14
    marks = Markup("")
    for percent in (0, 25, 50, 75, 100):
        x, y = LEFT + SIDE * percent / 100, 14 + TOP + SIDE * (1 - percent / 100)
        marks += Markup('<path class="rule" d="M{} {:g}h{}"/>').format(LEFT, y, SIDE)
        marks += Markup('<text x="{}" y="{:g}" text-anchor="end">{}</text>').format(LEFT - 6, y + 4, percent)
        marks += Markup('<text x="{:g}" y="{}" text-anchor="middle">{}</text>').format(x, SIDE + TOP + 30, percent)
    marks += Markup('<text x="{}" y="10">{}</text>').format(LEFT, ylabel)
    marks += Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(LEFT + SIDE, height - 1, xlabel)
    for number, across, up in curves:
        points = " ".join(
            f"{LEFT + SIDE * a:.1f} {14 + TOP + SIDE * (1 - b):.1f}"
            for a, b in zip(across.tolist(), up.tolist(), strict=True)
        )
        marks += Markup('<path class="curve" data-class="{}" d="M{}"/>').format(number, points)
    head = Markup('<svg class="chart classes" role="img" aria-label="{}" viewBox="0 0 {} {}">')
    return head.format(label, width, height) + marks + Markup("</svg>")


def _csv(shown: list[dict[str, Any]]) -> str:
    """The drawn points."""
    rows = [[one["name"], *(f"{value:.6g}" for value in point)] for one in shown for point in one["curve"].T]
    return csv_uri([["class", "threshold", "precision", "recall", "false_positive_rate"], *rows])
