"""The answer to some images, asked for blend by blend: those that a cascade's early stages settle are not asked about
again. Of a plain blend there is one stage, and no image is settled before it. Never imports torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.blend import Blend
from ensemble.tta.apply import blend_chunk

MemberAndView = tuple[str, str]


@dataclass(frozen=True)
class Question:
    """What a stage asks.

    blend: of all members and views that were asked so far.
    added: the members that ens trained under those views that no earlier stage has asked for.
    threshold: an image whose largest probability is at least this is settled.
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


def questions(blend: Blend) -> tuple[Question, ...]:
    """What is asked, in order."""
    found: list[Question] = []
    before: set[MemberAndView] = set()
    for stage, threshold in blend.asked:
        pairs = [(member, view) for member, views in stage.trained.items() for view in views]
        found.append(Question(stage, tuple(pair for pair in pairs if pair not in before), threshold))
        before.update(pairs)
    return tuple(found)


def settle(
    asked: tuple[Question, ...],
    count: int,
    logits: Mapping[MemberAndView, np.ndarray],
    unreadable: Mapping[int, str],
    compute: Callable[[Question, np.ndarray], None],
    external: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities float32 (n, C) of n = `count` images, NaN in the rows that could not be read; and how many rows
    each stage was the last for, int64 (S,). A row's answer does not depend on the rows beside it, but for its last bits
    where a method's sums do.

    logits: of each member and view float32 (K, n, C)
    unreadable: rows of these n, and why
    compute: called with a stage and the rows int64 (m,) that are not settled before it; fills `logits` there, and adds
        to `unreadable`
    external: float32 (1, n, C) of each external member, which the last stage blends
    """
    probabilities = np.full((count, len(asked[0].blend.classes)), np.nan, dtype=np.float32)
    rows = np.arange(count)
    settled = np.zeros(len(asked), dtype=np.int64)
    for number, question in enumerate(asked):
        compute(question, rows)
        blend = question.blend
        of_members = [
            np.stack([logits[member, view][:, rows] for view in views], axis=1)
            for member, views in blend.trained.items()
        ]
        given = [values[:, rows] for values in external] if question is asked[-1] else []
        bad = np.flatnonzero(np.isin(rows, list(unreadable)))
        probabilities[rows] = blend_chunk(blend, of_members, bad.tolist(), given, len(rows))
        # The averages of all networks decide. Rows that could not be read are NaN, which is below nothing.
        is_open = probabilities[rows].max(axis=1) < question.threshold
        settled[number] = (~is_open).sum()
        rows = rows[is_open]
        if not len(rows):
            break
    return probabilities, settled


def put(
    logits: dict[MemberAndView, np.ndarray],
    question: Question,
    values: Sequence[np.ndarray],
    rows: np.ndarray,
    count: int,
) -> None:
    """Put what a stage has answered for some rows int64 (m,) of n = `count` images into `logits`, float32 (K, n, C) of
    each member and view, NaN in the other rows. values: of each member of `question.views` float32 (K, V, m, C)."""
    for (member, views), of_member in zip(question.views.items(), values, strict=True):
        for view, of_view in zip(views, of_member.swapaxes(0, 1), strict=True):
            every = np.full((len(of_view), count, of_view.shape[-1]), np.nan, dtype=np.float32)
            every[:, rows] = of_view
            logits[member, view] = every
