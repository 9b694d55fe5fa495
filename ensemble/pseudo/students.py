"""The students of a round: members like those that they come after, and what they are trained on."""

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble.config import Config, check_backbones, parse_change, train_settings
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.run import Run
from ensemble.train.members import check_backbone, open_member
from ensemble.train.mend import reopen_damaged
from ensemble.train.prepare import unfinished
from ensemble.train.rows import Rows

UNDECIDED = "its round of self-training is not finished; go on with the same ens pseudo"


def student_name(member: str, number: int) -> str:
    """Of the student of a round, from 1; member: the one that it is like, which is no student."""
    return f"{member}-pseudo{number}"


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Keys of [train] and their values, of texts such as "train.epochs=6". Raises UserError for any other key."""
    parsed = {}
    for change in changes:
        key, value = parse_change(change)
        if not key.startswith("train."):
            raise UserError(f"--set {change}: students differ from their members in [train] only: --set train.{change}")
        parsed[key.removeprefix("train.")] = value
    return parsed


def round_config(config: Config, members: Sequence[str], number: int, changes: Mapping[str, Any]) -> Config:
    """The run's experiment with the students of these members as its backbones. changes: keys of [train] and their
    values. Raises UserError for one that is unknown or wrong."""
    backbones = []
    for backbone in config.backbone:
        if backbone.name in members:
            train = {**backbone.train, **changes}
            name = student_name(backbone.name, number)
            backbones.append(backbone.model_copy(update={"name": name, "train": train}))
    students = config.model_copy(update={"backbone": tuple(backbones)})
    check_backbones(students)
    for backbone in students.backbone:
        settings = train_settings(students, backbone)
        if settings.keep == "best":
            raise UserError(
                f"{backbone.name}: its epochs would be chosen on the rows that score it; use --set train.keep=last"
            )
        if settings.strategy == "probe":
            raise UserError(f"{backbone.name}: a linear probe learns from labels only; use another strategy")
    return students


def open_students(students: Config, rows: Rows, learned_from: Mapping[str, Any], events: Events) -> None:
    """Make the students' directories. A student that is not finished is set aside: what its round is worth is not known
    yet. Raises UserError if the run holds one that learned from something else, or a backbone that does not work."""
    members = [Run(students.run).member(backbone.name) for backbone in students.backbone]
    reopen_damaged(members, events)
    for backbone, member in zip(students.backbone, members, strict=True):
        is_lacking = bool(unfinished(member, rows.fold_count))
        if is_lacking:
            check_backbone(students, backbone, len(rows.classes), events)
        open_member(students, backbone, rows.ids, rows.folds, events, learned_from)
        if is_lacking:
            member.set_aside(UNDECIDED)
