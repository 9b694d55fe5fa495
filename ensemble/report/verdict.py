"""The verdict: what the run is worth, whether that is luck, and what looks wrong."""

from typing import Any

from ensemble.blend.score import Gain, Score
from ensemble.report import suspicions
from ensemble.report.blends import Standing, comparable
from ensemble.report.run import RunFacts
from ensemble.tables.layout import gain_cell


def section(facts: RunFacts) -> dict[str, Any] | None:
    """Sentences, then the list of what is suspicious."""
    if facts.best is None:
        again = f"Train on with: ens train-folds {facts.run / 'config.toml'}"
        return {"missing": f"No member has finished a fold yet, so there is nothing to judge. {again}"}
    found = suspicions.look(facts)
    return {
        "sentences": sentences(facts, facts.best),
        "suspicious": [own for own in found if own.level == "suspicious"],
        "hints": [own for own in found if own.level == "hint"],
        "looked_at": suspicions.LOOKED_AT,
        "not_looked_at": suspicions.not_looked_at(facts),
        "problems": facts.problems,
    }


def sentences(facts: RunFacts, best: Standing) -> list[str]:
    """The score and what it beats."""
    assert facts.oof is not None
    single = best.best["log_loss"]
    units = f"{best.rows:,} images"
    if facts.rows.grouped:
        units += f" in {len(set(facts.oof.rows.units.tolist())):,} groups"
    score = f"{_percent(best.blend['accuracy'])} of {units} right, log loss {_nats(best.blend['log_loss'])}"
    if len(best.members) == 1:
        own = f"{single} gets {score}, out of fold."
        if facts.saved and best.blend != best.members[single]:
            own = f"Blend {best.name}, of {single} alone, gets {score}, cross-fitted."
        return [own, "With a single member there is nothing to combine: a second backbone is what usually helps most."]
    if facts.saved:
        lines = [f"The best blend, {best.name}, gets {score}, on rows that it was not fitted on."]
    else:
        lines = [f"The plain mean of {len(best.members)} members gets {score}, out of fold."]
    lines.append(_beats(best, "single", f"the best single member, {single}"))
    if facts.saved:
        lines.append(_beats(best, "mean", "the plain mean of the members"))
        tried = len(comparable(facts.blends))
        if tried > 1:
            lines.append(
                f"Its log loss is the least of {tried} blends that were tried on the same images: being chosen "
                "flatters it a little."
            )
    else:
        lines.append(f"No blend is saved yet; one may do better: ens blend {facts.run}")
    if facts.optimistic:
        kept = "kept the epoch that was best on these very images"
        lines.append(f"All of this is optimistic: {', '.join(facts.optimistic)} {kept}.")
    return lines


def _beats(best: Standing, against: str, name: str) -> str:
    """In log loss, which decides, then in accuracy, with gains as `ens blend` prints them."""
    loss, share = best.gain_over(against, "log_loss"), best.gain_over(against, "accuracy")
    if loss is None or share is None:
        return f"How it stands against {name} is not known."
    also = "" if share.against == loss.against else f" (over {share.against}, the best by that)"
    points = f"{gain_cell(share)} points of accuracy{also}, {_luck(share)}"
    return f"Over {name}, it gains {gain_cell(loss)} of log loss, {_luck(loss)}, and {points}."


def _luck(gain: Gain) -> str:
    if gain.low > 0:
        return "hardly by luck"
    if gain.high < 0:
        return "so it is worse, hardly by luck"
    return "which may as well be luck"


def _percent(score: Score) -> str:
    return f"{100 * score.value:.2f} % [{100 * score.low:.2f}, {100 * score.high:.2f}]"


def _nats(score: Score) -> str:
    return f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}]"
