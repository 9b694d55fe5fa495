"""Whether the probabilities can be believed class by class, and group by group."""

import csv
from typing import Any

import numpy as np

from ensemble.blend.oof import Rows
from ensemble.report.run import RunResults
from ensemble.run import Run
from ensemble.scoring.miscalibration import DOUBTED, by_class, by_group

MOST = 30  # classes, and groups, that are shown
FEW = 25  # rows of a class: of fewer, little can be said of it


def section(results: RunResults) -> dict[str, Any] | None:
    """Errors of the probabilities by class, beside chance; groups, by how far they are from their confidence."""
    if results.oof is None:
        return None
    rows, probs = results.oof.rows, results.probabilities
    found = by_class(rows.labels, probs, rows.clusters)
    classes = sorted(zip(rows.classes, found.classes, strict=True), key=lambda pair: pair[1].p)
    groups = _groups(results.run, rows, probs) if rows.grouped else []
    return {
        "found": found,
        "classes": classes[:MOST],
        "cut_classes": len(classes) - MOST,
        "doubted_classes": sum(each.p < DOUBTED for each in found.classes),
        "few": FEW,
        "groups": groups[:MOST],
        "cut_groups": len(groups) - MOST,
        "doubted_groups": sum(each.p < DOUBTED for _, each in groups),
        "grouped": rows.grouped,
    }


def _groups(run: Run, rows: Rows, probs: np.ndarray) -> list[tuple[str, Any]]:
    """Name and calibration of each group, the most doubtful first."""
    with run.folds_csv.open(encoding="utf-8", newline="") as file:
        names = {row["id"]: row["group"] for row in csv.DictReader(file)}
    first = dict(zip(rows.clusters.tolist()[::-1], rows.ids.tolist()[::-1], strict=True))
    found = by_group(probs.argmax(axis=1) == rows.labels, probs.max(axis=1), rows.clusters)
    named = [(names[first[number]], each) for number, each in found.items()]
    return sorted(named, key=lambda pair: (pair[1].p, -pair[1].rows, pair[0]))
