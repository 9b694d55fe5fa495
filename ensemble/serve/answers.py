"""What is answered, as JSON: the models document it, in `/openapi.json`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class Predicted(BaseModel):
    """An image that was predicted."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="the file's name, or the image's number in the request")
    label: str = Field(alias="class", description="the predicted class")
    probabilities: dict[str, float] = Field(description="of each class; they sum to 1")
    members: dict[str, dict[str, float]] | None = Field(
        None, description="with ?members=true: the probabilities of each member that was asked, by itself"
    )
    classes: list[str] | None = Field(
        None, alias="set", description="where the server was started with --sets: the classes of its prediction set"
    )
    abstain: bool | None = Field(
        None, description="where the server was started with --abstain: whether it is better left unanswered"
    )
    unknown_score: float | None = Field(
        None, description="where the server was started with --unknown: how unlike the training images it is"
    )
    unknown: bool | None = Field(
        None, description="where the server was started with --unknown: whether it may be none of the classes"
    )
    expected_cost: float | None = Field(
        None, description="with any of these, of a blend with costs: what the class costs on average"
    )


class Unreadable(BaseModel):
    """An image that can't be read. The others of the request are predicted."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="the file's name, or the image's number in the request")
    error: str = Field(description="what is wrong with it, one line")


class Answer(BaseModel):
    """The images of a request, in its order."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="the name of the file or run that predicted")
    images: list[Predicted | Unreadable]


class Failure(BaseModel):
    """A request that was not answered."""

    model_config = ConfigDict(extra="forbid")

    error: str = Field(description="what is wrong, one line")


class Ready(BaseModel):
    """The server predicts."""

    model_config = ConfigDict(extra="forbid")

    status: str = Field(description='"ready"')
    model: str = Field(description="the name of the file or run that predicts")


def predicted(
    name: str,
    label: str,
    probabilities: np.ndarray,
    members: dict[str, np.ndarray] | None,
    classes: Sequence[str],
    columns: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """A `Predicted` as JSON has it.

    name: of the image.
    label: the name of the predicted class.
    probabilities: float (C,).
    members: member -> its probabilities (C,); None if they were not asked for.
    classes: the C names.
    columns: what was asked for beside the class, by name: a number, or for a set bool (C,).
    """

    def by_class(values: np.ndarray) -> dict[str, float]:
        return dict(zip(classes, values.tolist(), strict=True))

    found = {"name": name, "class": label, "probabilities": by_class(probabilities)}
    if members is not None:
        found["members"] = {member: by_class(values) for member, values in members.items()}
    for column, value in columns.items():
        is_set = np.ndim(value) == 1
        found[column] = [classes[number] for number in np.flatnonzero(value).tolist()] if is_set else value.item()
    return found
