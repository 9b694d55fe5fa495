"""In which order a cascade asks for a blend's members and views, and what each stage costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.blend.oof import Oof

MemberAndView = tuple[str, str]


@dataclass(frozen=True)
class Costs:
    """Milliseconds per image on this machine.

    passes: of each member under each view, all its networks together.
    decoding: of reading an image, which each stage does anew for the images that reach it.
    """

    passes: Mapping[MemberAndView, float]
    decoding: float


def in_order(oof: Oof, costs: Costs) -> list[tuple[MemberAndView, ...]]:
    """What each of S stages adds: one member under its first view, the cheapest first; when all members have been
    asked, one further view of all members."""
    firsts = [(member, views[0]) for member, views in zip(oof.members, oof.views, strict=True)]
    cheapest_first = sorted(firsts, key=lambda pair: costs.passes[pair])
    stages: list[tuple[MemberAndView, ...]] = [(pair,) for pair in cheapest_first]
    for number in range(1, max(map(len, oof.views))):
        stages.append(
            tuple(
                (member, views[number])
                for member, views in zip(oof.members, oof.views, strict=True)
                if len(views) > number
            )
        )
    return stages


def stage_ms(stages: Sequence[Sequence[MemberAndView]], costs: Costs) -> np.ndarray:
    """Milliseconds per image of what each stage adds, without decoding, float64 (S,)."""
    return np.array([sum(costs.passes[pair] for pair in added) for added in stages])


def asked_so_far(oof: Oof, stages: Sequence[Sequence[MemberAndView]]) -> list[Oof]:
    """For each stage the members and views that it and those before it ask for, in the order of `oof`."""
    return [
        restricted(oof, {pair for added in stages[: number + 1] for pair in added}) for number in range(len(stages))
    ]


def restricted(oof: Oof, pairs: set[MemberAndView]) -> Oof:
    """The same rows with these members and views alone."""
    members, every_views, values = [], [], []
    for member, views, logits in zip(oof.members, oof.views, oof.values, strict=True):
        kept = [number for number, view in enumerate(views) if (member, view) in pairs]
        if kept:
            members.append(member)
            every_views.append(tuple(views[number] for number in kept))
            values.append(logits if len(kept) == len(views) else logits[kept])
    return replace(oof, members=tuple(members), views=tuple(every_views), values=tuple(values))
