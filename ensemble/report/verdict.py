"""The verdict: how good the run is, whether that is significant, and what looks wrong."""

import shlex
from collections.abc import Callable
from typing import Any

import numpy as np

from ensemble.blend import BlendResult
from ensemble.plural import pluralize
from ensemble.report import checks
from ensemble.report.audited import not_checked
from ensemble.report.blends import Scores
from ensemble.report.provenance import train_again
from ensemble.report.run import RunResults
from ensemble.scoring.bootstrap import Gain, Score
from ensemble.scoring.wilson import wilson
from ensemble.tables.layout import gain_cell


def section(results: RunResults) -> dict[str, Any] | None:
    """Sentences, then what to check."""
    if results.best is None:
        again = f"To go on: {train_again(results)}"
        return {"missing": f"No member has finished a fold yet, so there are no scores. {again}"}
    issues = checks.check(results)
    return {
        "sentences": sentences(results, results.best),
        "warnings": [issue for issue in issues if issue.level == "warning"],
        "notes": [issue for issue in issues if issue.level == "note"],
        "checked": checks.CHECKED,
        "not_checked": not_checked(results),
        "problems": results.problems,
    }


def sentences(results: RunResults, best: BlendResult) -> list[str]:
    """The score and what it beats."""
    assert results.oof is not None
    rows, single = results.oof.rows, best.best["log_loss"]
    groups = len(np.unique(rows.clusters))
    images = pluralize(best.rows, "image") + (f" in {pluralize(groups, 'group')}" if rows.grouped else "")

    def score(scores: Scores) -> str:
        right = _percent(scores["accuracy"], groups if rows.grouped else best.rows)
        return f"predicts {right} of {images} correctly, with a log loss of {_nats(scores['log_loss'])}"

    if len(best.members) == 1:
        lines = _one_member(results, best, single, score)
    elif results.saved:
        lines = [f"The best blend, {best.name}, {score(best.blend)}, on rows that it was not fitted on."]
    else:
        lines = [f"The plain mean of {len(best.members)} members {score(best.blend)}, out of fold."]
    if len(best.members) > 1:
        lines.append(_beats(results, best, "single", "the best single member"))
        if results.saved:
            lines.append(_beats(results, best, "mean", "the plain mean of the members"))
    tried = len(results.comparable)
    if results.saved and tried > 1:
        lines.append(
            f"Its log loss is the lowest of {tried} blends that were tried on the same images, so it is slightly "
            "optimistic."
        )
    if not results.saved and len(best.members) > 1:
        lines.append(f"No blend is saved yet. A blend may do better: ens blend {shlex.quote(str(results.run))}")
    if results.optimistic:
        kept = "kept the epoch that was best on these very images"
        lines.append(f"All these scores are optimistic: {', '.join(results.optimistic)} {kept}.")
    return lines


def _one_member(results: RunResults, best: BlendResult, single: str, score: Callable[[Scores], str]) -> list[str]:
    """The member, and the blend of it alone, which may be worse than it."""
    alone = best.members[single]
    lines = [f"{single} {score(alone)}, out of fold."]
    if results.saved and best.blend != alone:
        lines = [f"Blend {best.name}, of {single} alone, {score(best.blend)}, cross-fitted."]
        if alone["log_loss"].value < best.blend["log_loss"].value:
            lines = [f"{single} alone is better than the blend of it: {single} {score(alone)}, out of fold.", *lines]
        lines.append(_beats(results, best, "single", "the member by itself"))
    return [*lines, "With a single member there is nothing to combine; a second backbone usually helps most."]


def _beats(results: RunResults, best: BlendResult, against: str, rival: str) -> str:
    """In accuracy; in log loss with the rival at its one best temperature; then as `ens blend` prints it."""
    loss, accuracy = best.gain_over(against, "log_loss"), best.gain_over(against, "accuracy")
    if loss is None or accuracy is None:
        return f"How it compares with {rival} is not known."

    def name(gain: Gain) -> str:
        return gain.against if against == "single" else "the plain mean"

    points = (
        "there is no difference in accuracy"
        if _none(accuracy)
        else f"it gains {gain_cell(accuracy)} points of accuracy ({_significance(accuracy)})"
    )
    line = f"Compared with {rival}{f', {accuracy.against}' if against == 'single' else ''}, {points}. "
    tempered = results.tempered.get(against)
    if tempered is None:
        gains = f"it gains {gain_cell(loss)} ({_significance(loss)}) over {name(loss)}"
        return line + f"In log loss, {gains}; part of that may be calibration alone."
    gains = (
        "there is no difference from"
        if _none(tempered)
        else f"it gains {gain_cell(tempered)} ({_significance(tempered)}) over"
    )
    best_of_all = "" if tempered.against == accuracy.against else ", the best by that measure,"
    return (
        line + f"In log loss, {gains} {name(tempered)}{best_of_all} at a temperature fitted on the other folds, and it "
        f"gains {gain_cell(loss)} over {name(loss)} without a temperature."
    )


def _none(gain: Gain) -> bool:
    """All printed digits are 0."""
    return not any(digit in gain_cell(gain) for digit in "123456789")


def _significance(gain: Gain) -> str:
    if gain.low > 0:
        return "significant"
    return "significantly worse" if gain.high < 0 else "not significant"


def _percent(score: Score, clusters: int) -> str:
    """If all answers are alike, a bootstrap has no width: then Wilson's interval for as many answers as clusters."""
    low, high = score.low, score.high
    if score.value in (0, 1):
        low, high = wilson(np.array([score.value * clusters]), np.array([clusters]))[:, 0].tolist()
    return f"{100 * score.value:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"


def _nats(score: Score) -> str:
    return f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]"
