"""Early exit: the stages of a cascade predict one after the other, and an image leaves at the first stage that is
confident enough, so that later networks never see it. A plain blend is one stage. Never imports torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.blend import Blend
from ensemble.predictions.early_exit import run_stages
from ensemble.tta.apply import blend_chunk

MemberAndView = tuple[str, str]


@dataclass(frozen=True)
class ExitStage:
    """A stage of a cascade.

    blend: of all members and views of the stages so far.
    added: the members that ens trained under those views that no earlier stage has run.
    threshold: an image whose largest probability is at least this exits here.
    """

    blend: Blend
    added: tuple[MemberAndView, ...]
    threshold: float

    @property
    def views(self) -> dict[str, tuple[str, ...]]:
        """The members of `added`, each with its views."""
        found: dict[str, tuple[str, ...]] = {}
        for member, view in self.added:
            found[member] = (*found.get(member, ()), view)
        return found


def exit_stages(blend: Blend) -> tuple[ExitStage, ...]:
    """The stages of a blend, in order."""
    found: list[ExitStage] = []
    before: set[MemberAndView] = set()
    for stage, threshold in blend.stage_blends:
        pairs = [(member, view) for member, views in stage.trained.items() for view in views]
        found.append(ExitStage(stage, tuple(pair for pair in pairs if pair not in before), threshold))
        before.update(pairs)
    return tuple(found)


def predict_with_exits(
    stages: tuple[ExitStage, ...],
    count: int,
    logits: Mapping[MemberAndView, np.ndarray],
    unreadable: Mapping[int, str],
    compute: Callable[[ExitStage, np.ndarray], None],
    external: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities float32 (n, C) of n = `count` images, NaN in the rows that could not be read; and how many rows
    exited at each stage, int64 (S,). A row's answer does not depend on the rows beside it, but for its last bits
    where a method's sums do.

    logits: of each member and view float32 (K, n, C)
    unreadable: rows of these n, and why
    compute: called with a stage and the rows int64 (m,) that did not exit before it; fills `logits` there, and adds
        to `unreadable`
    external: float32 (1, n, C) of each external member, which the last stage blends
    """
    probabilities = np.full((count, len(stages[0].blend.classes)), np.nan, dtype=np.float32)

    def answer(number: int, rows: np.ndarray) -> np.ndarray:
        stage = stages[number]
        compute(stage, rows)
        blend = stage.blend
        of_members = [
            np.stack([logits[member, view][:, rows] for view in views], axis=1)
            for member, views in blend.trained.items()
        ]
        given = [values[:, rows] for values in external] if stage is stages[-1] else []
        bad = np.flatnonzero(np.isin(rows, list(unreadable)))
        probabilities[rows] = blend_chunk(blend, of_members, bad.tolist(), given, len(rows))
        return np.asarray(probabilities[rows])  # the averages of all networks decide

    exits = run_stages([stage.threshold for stage in stages], count, answer)
    return probabilities, np.bincount(exits, minlength=len(stages))


def members_of(blend: Blend, logits: Mapping[MemberAndView, np.ndarray]) -> list[np.ndarray]:
    """Of each member that ens trained float32 (K, V, n, C). logits: of each member and view float32 (K, n, C)."""
    return [np.stack([logits[member, view] for view in views], axis=1) for member, views in blend.trained.items()]


def scatter_logits(
    logits: dict[MemberAndView, np.ndarray],
    stage: ExitStage,
    values: Sequence[np.ndarray],
    rows: np.ndarray,
    count: int,
) -> None:
    """Write a stage's logits of some rows int64 (m,) of n = `count` images into `logits`, float32 (K, n, C) of
    each member and view, NaN in the other rows. values: of each member of `stage.views` float32 (K, V, m, C)."""
    for (member, views), of_member in zip(stage.views.items(), values, strict=True):
        for view, of_view in zip(views, of_member.swapaxes(0, 1), strict=True):
            every = np.full((len(of_view), count, of_view.shape[-1]), np.nan, dtype=np.float32)
            every[:, rows] = of_view
            logits[member, view] = every
