"""The verdict: what the run is worth, whether that is luck, and what looks wrong."""

import shlex
from collections.abc import Callable
from typing import Any

import numpy as np

from ensemble.blend import BlendResult
from ensemble.report import checks
from ensemble.report.audited import not_checked
from ensemble.report.blends import Scores
from ensemble.report.classes import wilson
from ensemble.report.provenance import train_again
from ensemble.report.run import RunFacts
from ensemble.scoring.bootstrap import Gain, Score
from ensemble.tables.layout import gain_cell


def section(facts: RunFacts) -> dict[str, Any] | None:
    """Sentences, then what to check."""
    if facts.best is None:
        again = f"To go on: {train_again(facts)}"
        return {"missing": f"No member has finished a fold yet, so there are no scores. {again}"}
    issues = checks.check(facts)
    return {
        "sentences": sentences(facts, facts.best),
        "warnings": [issue for issue in issues if issue.level == "warning"],
        "notes": [issue for issue in issues if issue.level == "note"],
        "checked": checks.CHECKED,
        "not_checked": not_checked(facts),
        "problems": facts.problems,
    }


def sentences(facts: RunFacts, best: BlendResult) -> list[str]:
    """The score and what it beats."""
    assert facts.oof is not None
    rows, single = facts.oof.rows, best.best["log_loss"]
    groups = len(np.unique(rows.clusters))
    units = f"{best.rows:,} images" + (f" in {groups:,} groups" if rows.grouped else "")

    def score(own: Scores) -> str:
        right = _percent(own["accuracy"], groups if rows.grouped else best.rows)
        return f"{right} of {units} right, log loss {_nats(own['log_loss'])}"

    if len(best.members) == 1:
        lines = _one_member(facts, best, single, score)
    elif facts.saved:
        lines = [f"The best blend, {best.name}, gets {score(best.blend)}, on rows that it was not fitted on."]
    else:
        lines = [f"The plain mean of {len(best.members)} members gets {score(best.blend)}, out of fold."]
    if len(best.members) > 1:
        lines.append(_beats(facts, best, "single", "the best single member"))
        if facts.saved:
            lines.append(_beats(facts, best, "mean", "the plain mean of the members"))
    tried = len(facts.comparable)
    if facts.saved and tried > 1:
        lines.append(
            f"Its log loss is the least of {tried} blends that were tried on the same images: being chosen flatters it "
            "a little."
        )
    if not facts.saved and len(best.members) > 1:
        lines.append(f"No blend is saved yet; one may do better: ens blend {shlex.quote(str(facts.run))}")
    if facts.optimistic:
        kept = "kept the epoch that was best on these very images"
        lines.append(f"All of this is optimistic: {', '.join(facts.optimistic)} {kept}.")
    return lines


def _one_member(facts: RunFacts, best: BlendResult, single: str, score: Callable[[Scores], str]) -> list[str]:
    """The member, and the blend of it alone, which may be worse than it."""
    alone = best.members[single]
    lines = [f"{single} gets {score(alone)}, out of fold."]
    if facts.saved and best.blend != alone:
        lines = [f"Blend {best.name}, of {single} alone, gets {score(best.blend)}, cross-fitted."]
        if alone["log_loss"].value < best.blend["log_loss"].value:
            lines = [f"{single} alone is better than the blend of it: it gets {score(alone)}, out of fold.", *lines]
        lines.append(_beats(facts, best, "single", "the member by itself"))
    return [*lines, "With a single member there is nothing to combine: a second backbone is what usually helps most."]


def _beats(facts: RunFacts, best: BlendResult, against: str, what: str) -> str:
    """In accuracy; in log loss with the rival at its one best temperature; then as `ens blend` prints it."""
    loss, share = best.gain_over(against, "log_loss"), best.gain_over(against, "accuracy")
    if loss is None or share is None:
        return f"How it stands against {what} is not known."

    def named(gain: Gain) -> str:
        return f"{what}, {gain.against}," if against == "single" else f"{what},"

    points = (
        "there is no difference in accuracy"
        if _none(share)
        else f"it gains {gain_cell(share)} points of accuracy, {_luck(share)}"
    )
    line = f"Over {named(share)} {points}. "
    tempered = facts.tempered.get(against)
    raw = f"{gain_cell(loss)} over {loss.against if against == 'single' else 'it'} as it is"
    if tempered is None:
        return line + f"In log loss it gains {raw}, {_luck(loss)}; part of that may be what one temperature gives."
    gains = "there is no difference" if _none(tempered) else f"it gains {gain_cell(tempered)}, {_luck(tempered)}"
    other = "it" if tempered.against == share.against else f"{tempered.against}, the best by that,"
    return line + f"In log loss {gains}, over {other} at one temperature, fitted on the other folds ({raw})."


def _none(gain: Gain) -> bool:
    """Nothing that the printed digits show."""
    return not any(digit in gain_cell(gain) for digit in "123456789")


def _luck(gain: Gain) -> str:
    if gain.low > 0:
        return "hardly by luck"
    if gain.high < 0:
        return "so it is worse, hardly by luck"
    return "which may as well be luck"


def _percent(score: Score, units: int) -> str:
    """A bootstrap of answers that are all alike has no width: then Wilson's interval, of as many answers as units."""
    low, high = score.low, score.high
    if score.value in (0, 1):
        low, high = wilson(np.array([score.value * units]), np.array([units]))[:, 0].tolist()
    return f"{100 * score.value:.2f} % [{100 * low:.2f}, {100 * high:.2f}]"


def _nats(score: Score) -> str:
    return f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]"
