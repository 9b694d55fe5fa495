"""`ens scout --budget`: how long fine-tuning takes on this machine, and what of it fits.

The time is forecast from timed steps of training and of evaluation at a backbone's own image size; at another size it
goes with the number of pixels.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ensemble.config import Backbone
from ensemble.errors import UserError
from ensemble.progress import duration

# The image size and the epochs, as multiples of the experiment's, from the longest to the shortest. Images shrink last,
# when members have been left out already: smaller ones cost most (tf_mobilenetv3_small_100 on 1,698 paintings, the last
# 4 stages: 86.28 % at 160 px, below its probe at 224 px with 87.10; 91.40 at 224 px).
SCHEDULES = ((4 / 3, 2.0), (1.0, 2.0), (4 / 3, 1.0), (1.0, 1.0), (1.0, 0.5))
SMALL_SCHEDULES = ((0.75, 1.0), (0.75, 0.5))
FEWEST_EPOCHS = 2  # the first is spent on warming up
# Augmenting, averaging and saving beside the timed steps took 2 % of mobilenet_edgetpu_100's epochs on the paintings;
# the rest is for decoding, starting processes and machines that are not idle.
OVERHEAD = 1.15

Seconds = Callable[[Backbone, int, int], float]  # of a backbone at an image size for so many epochs, all folds


@dataclass(frozen=True)
class Planned:
    """A backbone's part of a plan.

    name: of the member.
    image_size: side of its input, px.
    epochs: of training.
    seconds: forecast, of all its folds.
    """

    name: str
    image_size: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Usual:
    """What the experiment says of a backbone.

    backbone: it.
    image_size: side of its input, px.
    epochs: of training.
    """

    backbone: Backbone
    image_size: int
    epochs: int


@dataclass(frozen=True)
class Plan:
    """What fits a budget.

    budget: seconds.
    members: what is trained, and how.
    left_out: lines on what is not, or is trained less than the experiment would.
    """

    budget: float
    members: tuple[Planned, ...]
    left_out: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return sum(member.seconds for member in self.members)


def parse_budget(text: str) -> float:
    """Seconds of 90m, 2h, 1h30m or 45s. Raises UserError."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip().lower())
    parts = [float(part or 0) for part in found.groups()] if found else []
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not seconds:
        raise UserError(f"--budget {text}: must be a time, as 90m, 2h or 1h30m")
    return seconds


def make_plan(
    blends: Sequence[Sequence[Usual]], budget: float, seconds: Seconds, works_at: Callable[[str, int], bool]
) -> Plan:
    """The first of the blends with the longest schedule that fits; where none fits, with smaller images.

    blends: of backbones, the chosen one first, then those that are cheaper, from the best on. budget: seconds.
    works_at: whether a timm model takes an image size. Raises UserError that names the least budget that would do.
    """
    least: list[Planned] = []
    for blend, schedule in _choices(blends):
        members = [_planned(usual, schedule, seconds, works_at) for usual in blend]
        total = sum(member.seconds for member in members)
        if total <= budget:
            return Plan(budget, tuple(members), tuple(_left_out(blends[0], members, budget, seconds)))
        if not least or total < sum(member.seconds for member in least):
            least = members
    what = ", ".join(f"{member.name} at {member.image_size} px for {member.epochs} epochs" for member in least)
    minutes = math.ceil(sum(member.seconds for member in least) / 60)
    raise UserError(f"--budget: {duration(budget)} is too little for anything; the least is {minutes}m, for {what}")


def _choices(blends: Sequence[Sequence[Usual]]) -> Iterator[tuple[Sequence[Usual], tuple[float, float]]]:
    for schedules in (SCHEDULES, SMALL_SCHEDULES):
        for blend in blends:
            for schedule in schedules:
                yield blend, schedule


def _planned(
    usual: Usual, schedule: tuple[float, float], seconds: Seconds, works_at: Callable[[str, int], bool]
) -> Planned:
    of_size, of_epochs = schedule
    size = usual.image_size
    if of_size != 1:  # in steps of what most networks' strides and patches take
        scaled = max(32, 32 * int(size * of_size / 32 + 0.5))
        size = scaled if works_at(usual.backbone.timm, scaled) else size
    epochs = max(min(FEWEST_EPOCHS, usual.epochs), round(usual.epochs * of_epochs))
    return Planned(usual.backbone.name, size, epochs, seconds(usual.backbone, size, epochs))


def _left_out(chosen: Sequence[Usual], members: Sequence[Planned], budget: float, seconds: Seconds) -> Iterator[str]:
    planned = {member.name: member for member in members}
    names = [usual.backbone.name for usual in chosen]
    for usual in chosen:
        full = seconds(usual.backbone, usual.image_size, usual.epochs)
        schedule = f"{duration(full)} at {usual.image_size} px for {usual.epochs} epochs"
        member = planned.get(usual.backbone.name)
        if member is None:
            yield f"left out: {usual.backbone.name} (takes {schedule})"
        elif (member.image_size, member.epochs) < (usual.image_size, usual.epochs) or member.epochs < usual.epochs:
            yield f"{member.name}: less than the usual {schedule}"
    if others := [name for name in planned if name not in names]:
        yield f"in their place: {', '.join(others)}"
