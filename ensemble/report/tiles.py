"""The verdict in one sentence and three numbers: accuracy, log loss, and what the blend gains."""

from dataclasses import dataclass

import numpy as np

from ensemble.blend import BlendResult
from ensemble.blend.comparison import tells
from ensemble.plural import pluralize
from ensemble.report.blends import Scores
from ensemble.report.run import RunResults
from ensemble.scoring.bootstrap import Gain, Score
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.wilson import wilson


@dataclass(frozen=True)
class Tile:
    """One number of the verdict.

    title: what it is of
    value, unit: the number, or a few words where there is none
    lines: its interval and what it is compared with
    tone: "better" or "worse", "words" for a value in words, else ""
    """

    title: str
    value: str
    unit: str
    lines: tuple[str, ...]
    tone: str = ""


def headline(results: RunResults, best: BlendResult) -> str:
    """How much is right and, of several members, what the blend gains."""
    subject, scores = scored(results, best)
    share = METRICS["accuracy"].number(scores["accuracy"].value)
    line = f"{subject} classifies {share} % of {pluralize(best.rows, 'image')} correctly"
    gained = best.gain_over("single", "accuracy") if len(best.members) > 1 else None
    if gained is None:
        return f"{line}."
    if not tells(gained):
        return f"{line}; no gain over the best single member can be told."
    return f"{line}, {change(gained)} than the best single member."


def tiles(results: RunResults, best: BlendResult) -> list[Tile]:
    """Accuracy, log loss and gain."""
    scores = scored(results, best)[1]
    accuracy, loss = scores["accuracy"], scores["log_loss"]
    right = round(accuracy.value * best.rows)
    low, high = accuracy_ends(accuracy, independent(results, best))
    return [
        Tile(
            "Accuracy",
            METRICS["accuracy"].number(accuracy.value),
            "%",
            (
                f"95 % interval {100 * low:.2f} to {100 * high:.2f}",
                *_spread("accuracy", accuracy),
                f"{right:,} of {pluralize(best.rows, 'image')}",
            ),
        ),
        Tile(
            "Log loss",
            METRICS["log_loss"].number(loss.value),
            "nats",
            (
                f"95 % interval {loss.low:.4f} to {loss.high:.4f}",
                *_spread("log_loss", loss),
                f"lower is better; guessing has {np.log(len(results.classes)):.4f}",
            ),
        ),
        _gain(results, best),
    ]


def scored(results: RunResults, best: BlendResult) -> tuple[str, Scores]:
    """What the verdict is about, as the beginning of a sentence, and its scores: the best blend, the plain mean, or a
    single member, where that is better than the blend of it alone."""
    single = best.best["log_loss"]
    alone = best.members[single]
    if len(best.members) > 1:
        named = f"The best blend, {best.name}," if results.saved else f"The plain mean of {len(best.members)} members"
        return named, best.blend
    if results.saved and best.blend["log_loss"].value <= alone["log_loss"].value and best.blend != alone:
        return f"Blend {best.name}, of {single} alone,", best.blend
    return single, alone


def change(gained: Gain) -> str:
    """A gain that can be told, in words: "1.06 points more", "0.35 points fewer"; of a loss, "0.0366 lower"."""
    metric = METRICS[gained.metric]
    size = metric.number(abs(gained.value))
    up = (gained.value >= 0) == metric.greater_is_better
    return (
        f"{size} points {'more' if up else 'fewer'}"
        if metric.factor == 100
        else f"{size} {'higher' if up else 'lower'}"
    )


def independent(results: RunResults, best: BlendResult) -> int:
    """The number of rows, or of groups where the run has them."""
    assert results.oof is not None
    rows = results.oof.rows
    return len(np.unique(rows.clusters)) if rows.grouped else best.rows


def accuracy_ends(score: Score, clusters: int) -> tuple[float, float]:
    """The interval. Where all answers are alike, older versions of ens saved one without a width: then Wilson's for as
    many answers as there are clusters."""
    if score.low < score.high:
        return score.low, score.high
    low, high = wilson(np.array([score.value * clusters]), np.array([clusters]))[:, 0].tolist()
    return low, high


def _spread(metric: str, score: Score) -> tuple[str, ...]:
    folds = len(score.folds)
    return (f"±{METRICS[metric].number(score.std)} over {folds} folds",) if folds > 1 else ()


def _gain(results: RunResults, best: BlendResult) -> Tile:
    title = "Gain over the best single member"
    if len(best.members) == 1:
        return Tile(title, "Only one member", "", ("a second backbone usually helps most",), "words")
    gained = best.gain_over("single", "accuracy")
    if gained is None:
        return Tile(title, "Not known", "", (), "words")
    low, high = (METRICS["accuracy"].number(end, "+") for end in (gained.low, gained.high))
    lines = [f"95 % interval {low} to {high} points of accuracy", f"over {gained.against}"]
    tempered = results.tempered.get("single")
    if tempered is not None:
        lines.append(
            f"log loss {change(tempered)}, at one temperature each"
            if tells(tempered)
            else "in log loss, no gain can be told"
        )
    sign = tells(gained)
    if not sign:
        return Tile(title, "No gain can be told", "", tuple(lines), "words")
    value = METRICS["accuracy"].number(abs(gained.value))
    return Tile(title, value, "points" if sign > 0 else "points lost", tuple(lines), "better" if sign > 0 else "worse")
