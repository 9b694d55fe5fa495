"""Which classes are confused, scores by class, and calibration."""

from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context

from ensemble.report.charts import LINE, MUTED, SERIES, SETTINGS, new_chart, svg
from ensemble.report.run import RunResults
from ensemble.report.strips import axis, strip
from ensemble.scoring.bootstrap import MOST_CLUSTERS, RESAMPLES
from ensemble.scoring.calibration import ece, reliability
from ensemble.scoring.counts import class_counts
from ensemble.scoring.wilson import wilson

MOST_MATRIX = 50  # classes: of more, only the most confused pairs are shown
MOST_TABLE = 300  # classes: of more, those of the lowest F1
PAIRS = 12
OWN_TEMPERATURE = "the blend's own temperature"  # how the blend's note on it begins


def section(results: RunResults) -> dict[str, Any] | None:
    """Confusion, scores by class, reliability."""
    if results.oof is None:
        return {"missing": "No member has finished a fold yet."}
    rows, predicted = results.oof.rows, results.predicted
    matrix = confusion(rows.labels, predicted, len(rows.classes))
    right = predicted == rows.labels
    # Calibration is of the most probable class, also where costs decide for another one.
    most_probable_right = results.probabilities.argmax(axis=1) == rows.labels
    confidence = results.probabilities.max(axis=1)
    table = by_class(rows.labels, predicted, rows.clusters, rows.grouped, rows.classes)
    least = np.floor(10 * min((row["recall_ends"][0] for row in table if row["rows"]), default=0.0)) / 10
    least = min(float(least), 0.9)  # a strip from 100 to 100 would have no width
    for row in table:
        row["strip"] = strip(row["recall_ends"][0], row["recall"], row["recall_ends"][1], least, 1.0)
    shown = sorted(table, key=lambda row: (row["f1"], row["name"]))[:MOST_TABLE] if len(table) > MOST_TABLE else table
    return {
        "classes": rows.classes,
        "matrix": _matrix(matrix, rows.classes) if len(rows.classes) <= MOST_MATRIX else None,
        "pairs": confused_pairs(matrix, rows.classes),
        "table": shown,
        "least": least,
        "recall_axis": axis(least, 1.0, lambda tick: f"{100 * tick:g}"),
        "cut": len(table) - len(shown),
        "wrong": int((~right).sum()),
        "rows": len(right),
        "accuracy": float(right.mean()),
        "is_by_cost": results.costs is not None,
        "grouped": rows.grouped,
        "ece": ece(most_probable_right, confidence),
        "most_probable_accuracy": float(most_probable_right.mean()),
        "mean_confidence": float(confidence.mean()),
        "bins": reliability(most_probable_right, confidence),
        "reliability": _reliability(most_probable_right, confidence),
        "temperature": [
            note
            for note in (results.best.notes if results.best and results.saved else ())
            if note.startswith(OWN_TEMPERATURE)
        ],
    }


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How many rows of each true class (first axis) are predicted as each class, int64 (C, C)."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return np.asarray(counts.reshape(classes, classes))


def confused_pairs(matrix: np.ndarray, classes: tuple[str, ...], most: int = PAIRS) -> list[dict[str, Any]]:
    """The pairs of classes that are confused the most often, first: how often, and which way."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    both = np.triu(wrong + wrong.T)
    out = []
    for a, b in zip(*np.unravel_index(np.argsort(-both, axis=None, kind="stable")[:most], both.shape), strict=True):
        if not both[a, b]:  # the mirrored cell of a pair, or of none
            break
        ways = [
            {"true": classes[i], "predicted": classes[j], "count": int(wrong[i, j]), "rows": int(matrix[i].sum())}
            for i, j in sorted(((a, b), (b, a)), key=lambda way: -wrong[way])
            if wrong[i, j]
        ]
        out.append({"names": (ways[0]["true"], ways[0]["predicted"]), "count": int(both[a, b]), "ways": ways})
    return out


def by_class(
    labels: np.ndarray, predicted: np.ndarray, clusters: np.ndarray, grouped: bool, classes: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class with 95% intervals, in the order of the classes.

    Precision and recall of independent rows have Wilson's interval, which is sound for few rows and at 0 and 1 (Wilson,
    JASA 1927; Brown, Cai and DasGupta, Statistical Science 2001). F1, and all three where rows come in groups, have the
    percentiles of a bootstrap over the clusters. At 0 and 1 a bootstrap has no width: precision and recall of grouped
    rows then have Wilson's interval for as many answers as there are groups, and F1 has none (NaN). NaN too where there
    is nothing to divide by.

    labels, predicted: int64 (N,). clusters: of each row, (N,).
    """
    counts = class_counts(labels, predicted, len(classes))
    right, predictions, true = counts.right, counts.predicted, counts.true
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {"precision": right / predictions, "recall": right / true, "f1": 2 * right / (predictions + true)}
    ends = {
        name: _percentiles(values) for name, values in _resampled(labels, predicted, clusters, len(classes)).items()
    }
    if not grouped:
        ends["precision"], ends["recall"] = wilson(right, predictions), wilson(right, true)
    else:
        for name, of in (("precision", predicted), ("recall", labels)):
            groups = np.bincount(np.unique(np.stack([of, clusters]), axis=1)[0], minlength=len(classes))
            flat = np.isin(values[name], (0, 1))
            ends[name][:, flat] = wilson(values[name] * groups, groups)[:, flat]
    ends["f1"][:, np.isin(values["f1"], (0, 1))] = np.nan
    return [
        {"name": name, "rows": int(true[c]), "predictions": int(predictions[c])}
        | {key: float(score[c]) for key, score in values.items()}
        | {f"{key}_ends": tuple(map(float, ends[key][:, c])) for key in values}
        for c, name in enumerate(classes)
    ]


def _resampled(labels: np.ndarray, predicted: np.ndarray, clusters: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class in each resample of the clusters, (B, C), as `bootstrap` draws them."""
    from scipy.sparse import csr_array

    names, where = np.unique(clusters, return_inverse=True)
    draw = np.random.default_rng(0)
    size = min(len(names), MOST_CLUSTERS)
    if size < len(names):
        where = (draw.permutation(len(names)) % size)[where]

    def per_class(kept: np.ndarray, of: np.ndarray) -> "csr_array":
        return csr_array((np.ones(len(kept)), (of[kept], where[kept])), shape=(classes, size))

    every, hit = np.arange(len(labels)), np.flatnonzero(labels == predicted)
    counts = per_class(hit, labels), per_class(every, predicted), per_class(every, labels)
    out = {name: np.empty((RESAMPLES, classes)) for name in ("precision", "recall", "f1")}
    for b in range(RESAMPLES):
        times = np.bincount(draw.integers(size, size=size), minlength=size).astype(np.float64)
        right, predictions, true = (count @ times for count in counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            out["precision"][b], out["recall"][b] = right / predictions, right / true
            out["f1"][b] = 2 * right / (predictions + true)
    return out


def _percentiles(values: np.ndarray) -> np.ndarray:
    """95% interval (2, C) of resampled values (B, C), of those resamples that have one; NaN where none has."""
    out = np.full((2, values.shape[1]), np.nan)
    some = np.isfinite(values).any(axis=0)
    out[:, some] = np.nanquantile(values[:, some], [0.025, 0.975], axis=0)
    return out


def _matrix(matrix: np.ndarray, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows of cells: counts, and rates of the true class's rows."""
    out = []
    for a, name in enumerate(classes):
        rows = int(matrix[a].sum())
        cells = [
            {"count": int(count), "rate": float(count / rows) if rows else 0.0, "off": a != b,
             # a square root makes rare errors visible
             "share": float(np.sqrt(count / rows)) if rows else 0.0}
            for b, count in enumerate(matrix[a])
        ]  # fmt: skip
        out.append({"name": name, "rows": rows, "cells": cells})
    return out


def _reliability(right: np.ndarray, confidence: np.ndarray) -> Markup:
    """Accuracy by confidence with Wilson's intervals, and below it the number of rows."""
    bins = reliability(right, confidence)
    sure, hits = np.array([bin.confidence for bin in bins]), np.array([bin.accuracy for bin in bins])
    rows = np.array([bin.rows for bin in bins])
    low, high = wilson(hits * rows, rows)
    figure, axes = new_chart(4.4, 4.6, 2)
    grid = axes[0].get_subplotspec()
    assert grid is not None
    grid.get_gridspec().set_height_ratios([3, 1])
    with rc_context(SETTINGS):
        axes[0].plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        spread = 100 * np.stack([np.maximum(hits - low, 0), np.maximum(high - hits, 0)])
        axes[0].errorbar(
            100 * sure,
            100 * hits,
            yerr=spread,
            color=SERIES[0],
            marker="o",
            markersize=5,
            linestyle="none",
            elinewidth=1.2,
        )
        axes[0].set_title("accuracy, %")
        axes[0].set_ylim(0, 102)
        axes[1].bar(
            [50 * (bin.low + bin.high) for bin in bins], rows, width=[98 * (bin.high - bin.low) for bin in bins],
            color=SERIES[0],
        )  # fmt: skip
        axes[1].set_title("images")
        axes[1].set_xlim(0, 102)
        axes[1].set_xlabel("confidence (largest probability), %")
        axes[1].tick_params(axis="x", color=LINE)
    return svg(figure, "reliability", "Accuracy and number of images by the confidence of the prediction")
