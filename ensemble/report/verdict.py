"""The verdict: how good the run is, what that is compared with others, and what looks wrong."""

import shlex
from collections.abc import Callable
from typing import Any

from ensemble.blend import BlendResult
from ensemble.blend.comparison import tells
from ensemble.plural import pluralize
from ensemble.report import checks
from ensemble.report.audited import not_checked
from ensemble.report.blends import Scores
from ensemble.report.provenance import train_again
from ensemble.report.run import RunResults
from ensemble.report.tiles import accuracy_ends, headline, independent, tiles
from ensemble.scoring.bootstrap import Gain, Score
from ensemble.scoring.metrics import METRICS
from ensemble.tables.layout import gain_cell


def section(results: RunResults) -> dict[str, Any] | None:
    """The headline and its numbers, what to check, and the comparisons in sentences."""
    if results.best is None:
        again = f"To go on: {train_again(results)}"
        return {"missing": f"No member has finished a fold yet, so there are no scores. {again}"}
    issues = checks.check(results)
    return {
        "headline": headline(results, results.best),
        "tiles": tiles(results, results.best),
        "sentences": sentences(results, results.best),
        "optimistic": optimistic(results),
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
    clusters = independent(results, best)
    images = pluralize(best.rows, "image") + (f" in {pluralize(clusters, 'group')}" if rows.grouped else "")

    def score(scores: Scores) -> str:
        right = _percent(scores["accuracy"], clusters)
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
    return lines


def optimistic(results: RunResults) -> str:
    """Why all scores are optimistic; "" where they are not."""
    if not results.optimistic:
        return ""
    kept = "kept the epoch that was best on these very images"
    return f"All these scores are optimistic: {', '.join(results.optimistic)} {kept}."


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

    line = f"Compared with {rival}{f', {accuracy.against}' if against == 'single' else ''}, {_gained(accuracy)}. "
    tempered = results.tempered.get(against)
    if tempered is None:
        return line + f"In log loss, {_gained(loss, name(loss))}; part of that may be calibration alone."
    best_of_all = "" if tempered.against == accuracy.against else ", the best by that measure,"
    at_temperature = f"{name(tempered)}{best_of_all} at a temperature fitted on the other folds"
    return (
        line
        + f"In log loss, {_gained(tempered, at_temperature)}, and {_gained(loss, name(loss))} without a temperature."
    )


def _gained(gain: Gain, rival: str = "") -> str:
    """A gain in words, with its interval: a loss is called one, and where the interval holds 0, none can be told."""
    points = METRICS[gain.metric].factor == 100
    what = " points of accuracy" if points else ""
    if gain.value == 0 or not any(digit in gain_cell(gain) for digit in "123456789"):
        return "there is no difference in accuracy" if points else f"there is no difference from {rival}"
    if not tells(gain):
        return f"no difference {'in accuracy' if points else f'from {rival}'} can be told ({gain_cell(gain)})"
    over = f" over {rival}" if rival else ""
    if gain.value > 0:
        return f"it gains {gain_cell(gain)}{what}{over}"
    value, low, high = (METRICS[gain.metric].number(-end) for end in (gain.value, gain.high, gain.low))
    return f"it loses {value} [{low}, {high}]{what}{f' to {rival}' if rival else ''}"


def _percent(score: Score, clusters: int) -> str:
    low, high = accuracy_ends(score, clusters)
    return f"{100 * score.value:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"


def _nats(score: Score) -> str:
    return f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]"
