"""The stages of a cascade: blends of a blend's first members and views, each with the confidence at which no further
one is asked. Never imports torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from ensemble.blend import methods
from ensemble.files.reading import Finite


@dataclass(frozen=True)
class Stage:
    """A blend of the members and views that were asked so far, of the method that the whole blend has.

    threshold: an image whose largest probability is at least this exits here: no later stage is asked.
    members, views, view_weights, chain: as those of a `Blend`.
    """

    threshold: float
    members: tuple[str, ...]
    views: tuple[tuple[str, ...], ...]
    view_weights: tuple[tuple[float, ...], ...]
    chain: methods.Chain


class SavedStage(TypedDict):
    """`Stage` as JSON. params: what `Chain.params` holds beside arrays, which are saved with the blend's."""

    threshold: Finite
    method: str
    members: list[str]
    views: list[list[str]]
    view_weights: list[list[Finite]]
    params: dict[str, Any]


def stage_arrays(stages: Sequence[Stage]) -> dict[str, np.ndarray]:
    """The arrays of all stages, by their keys on disk."""
    return {
        f"stage{number}.{key}": value
        for number, stage in enumerate(stages)
        for key, value in stage.chain.params().items()
        if isinstance(value, np.ndarray)
    }


def describe_stages(stages: Sequence[Stage]) -> list[SavedStage]:
    """All else of the stages."""
    return [
        {
            "threshold": stage.threshold,
            "method": stage.chain.method,
            "members": list(stage.members),
            "views": [list(names) for names in stage.views],
            "view_weights": [list(weights) for weights in stage.view_weights],
            "params": {k: v for k, v in stage.chain.params().items() if not isinstance(v, np.ndarray)},
        }
        for stage in stages
    ]


def load_stages(saved: Sequence[SavedStage], arrays: Mapping[str, np.ndarray], classes: int) -> tuple[Stage, ...]:
    """What `describe_stages` and `stage_arrays` gave. Raises ValueError that names what is not as they make it."""
    found = []
    for number, stage in enumerate(saved):
        members, views, weights = stage["members"], stage["views"], stage["view_weights"]
        if [len(of_member) for of_member in views] != [len(of_member) for of_member in weights]:
            raise ValueError(f"the views and view weights of stage {number} don't go together")
        if not members or len(views) != len(set(members)) or not 0 < stage["threshold"] <= 1:
            raise ValueError(f"stage {number} has other views than members, or a threshold outside of 0 to 1")
        prefix = f"stage{number}."
        of_stage = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
        found.append(
            Stage(
                threshold=stage["threshold"],
                members=tuple(members),
                views=tuple(tuple(names) for names in views),
                view_weights=tuple(tuple(of_member) for of_member in weights),
                chain=methods.load(stage["method"], stage["params"] | of_stage, len(members), classes),
            )
        )
    return tuple(found)


def require_stages(stages: Sequence[Stage], views: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError unless each stage adds members or views to those before it, and the whole blend, of `views` by
    member, has them all."""
    asked: set[tuple[str, str]] = set()
    whole = {(member, view) for member, names in views.items() for view in names}
    for number, stage in enumerate(stages):
        so_far = {(member, view) for member, names in zip(stage.members, stage.views, strict=True) for view in names}
        if not asked < so_far <= whole:
            raise ValueError(f"stage {number} does not add to the stage before it what the whole blend has")
        asked = so_far
