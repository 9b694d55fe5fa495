"""What a cascade is worth, and what it costs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.blend.described import read_described
from ensemble.files.reading import parse_json
from ensemble.run import Run
from ensemble.scoring.bootstrap import Gain, Score


@dataclass(frozen=True)
class Worth:
    """One way to answer, on rows that had no part in choosing or fitting it.

    ms, p50_ms, p99_ms: milliseconds per image: the mean, the median, and what 99 of 100 images do not exceed.
    scores: metric -> Score.
    gains: metric -> what it gains over the whole blend, paired; positive is better.
    changed: the share of the rows for which another class is predicted than by the whole blend.
    """

    ms: float
    p50_ms: float
    p99_ms: float
    scores: dict[str, Score]
    gains: dict[str, Gain]
    changed: float


@dataclass(frozen=True)
class FrontPoint:
    """The cheapest cascade that was to lose no more than `max_loss` nats, chosen on the other folds."""

    max_loss: float
    worth: Worth


@dataclass(frozen=True)
class FixedSet:
    """Some of the members, asked for all images: the best of that many, chosen on the other folds.

    members, views: those that are the best on all rows.
    worth: of the choices without the rows that are scored.
    by_fold: on how many folds these same members were chosen.
    """

    members: tuple[str, ...]
    views: int
    worth: Worth
    by_fold: int


@dataclass(frozen=True)
class CascadeStage:
    """What a stage adds.

    added: member -> the views that are asked for.
    ms: milliseconds per image that reaches it, with decoding.
    exits: the share of all rows that exit at it, out of fold.
    """

    added: dict[str, tuple[str, ...]]
    ms: float
    exits: float


@dataclass(frozen=True)
class Cascade:
    """What `ens cascade` answers.

    blend: the name of the whole one.
    name, path: as the cascade is saved; None where nothing is cheaper within the limit.
    max_loss, max_ms: the limit; one is None.
    threshold: the confidence at which an image exits.
    by_fold: the thresholds chosen without each fold; 1 where the whole blend was asked at once.
    stages: in order, the whole blend's last.
    whole: the worth of the blend itself, cross-fitted.
    worth: that of the cascade, each fold by a threshold that was chosen without it.
    front: for several limits, the cheapest first.
    fixed: the best sets of members that no cheaper one beats, the cheapest first.
    folds: K, over which all was cross-fitted. networks: of a member, which are averaged at prediction.
    rows: N. groups: of the rows, None where there are none.
    optimistic: members whose epoch was chosen on these rows.
    """

    blend: str
    name: str
    path: Path | None
    max_loss: float | None
    max_ms: float | None
    threshold: float
    by_fold: tuple[float, ...]
    stages: tuple[CascadeStage, ...]
    whole: Worth
    worth: Worth
    front: tuple[FrontPoint, ...]
    fixed: tuple[FixedSet, ...]
    rows: int
    groups: int | None
    folds: int
    networks: int
    optimistic: tuple[str, ...] = ()

    @property
    def limit(self) -> str:
        """The option that says it, with its value."""
        return f"--max-loss {self.max_loss:g}" if self.max_ms is None else f"--max-ms {self.max_ms:g}"


def read_cascade(run: Run, name: str) -> Cascade | None:
    """What was saved beside a cascade; None for another blend. Raises UserError that names the file and the key."""
    described = read_described(run, name)
    if "stages" not in described:
        return None
    text = json.dumps(_with_exits(described.get("scores")))
    return parse_json(text, Cascade, str(run.blend_json(name)), f"make it again with: ens cascade {run}")


def _with_exits(scores: Any) -> Any:
    """The scores of a cascade, whose stages had "settled" in place of "exits" in an older ens."""
    stages = scores.get("stages") if isinstance(scores, dict) else None
    for stage in stages if isinstance(stages, list) else []:
        if isinstance(stage, dict) and "settled" in stage:
            stage["exits"] = stage.pop("settled")
    return scores
