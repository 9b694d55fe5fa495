"""How much is gained by answering only confident images, or with a set of classes in place of one."""

from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context

from ensemble.conformal.choose import choose
from ensemble.conformal.rows import HeldOut
from ensemble.conformal.selective import RiskCoverage, risk_coverage
from ensemble.report.charts import MUTED, SERIES, SETTINGS, new_chart, svg
from ensemble.report.run import RunResults

LEVELS = (0.9, 0.95, 0.99)
LEAST = 50  # rows, or groups: sets of fewer say nothing
POINTS = 500  # of the curve that is drawn


def section(results: RunResults) -> dict[str, Any] | None:
    """The risk-coverage curve, and the sizes of prediction sets; None where no fold is done."""
    if results.oof is None:
        return None
    rows, predicted = results.oof.rows, results.predicted
    confidence = results.probabilities[np.arange(len(predicted)), predicted]
    wrong = predicted != rows.labels
    found = risk_coverage(confidence, wrong, rows.clusters)
    held_out = HeldOut(results.probabilities.astype(np.float32), rows.labels, rows.folds, rows.clusters)
    is_enough = len(np.unique(rows.clusters)) >= LEAST
    by = "group" if held_out.grouped else None
    return {
        "basis": results.basis,
        "curve": found,
        "chart": _chart(found, confidence, wrong),
        "sets": [{"level": level, "found": choose(held_out, level, by)} for level in LEVELS if is_enough],
        "grouped": held_out.grouped,
        "optimistic": [member.name for member in results.members if member.optimistic],
    }


def _chart(found: RiskCoverage, confidence: np.ndarray, wrong: np.ndarray) -> Markup:
    falling = wrong[np.argsort(-confidence, kind="stable")]
    counts = np.unique(np.linspace(1, len(falling), min(POINTS, len(falling))).round().astype(np.int64))
    risks = falling.cumsum()[counts - 1] / counts
    figure, (axes,) = new_chart(4.4, 2.6)
    with rc_context(SETTINGS):
        axes.axhline(100 * wrong.mean(), color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.plot(100 * counts / len(falling), 100 * risks, color=SERIES[0])
        axes.set_title("wrong among the answered, %")
        axes.set_xlabel("answered, the most confident first, % of the images")
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
    return svg(figure, "risk-coverage", "Error rate of the most confident images, by how many of them are answered")
