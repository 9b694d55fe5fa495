"""The student as a backbone: who teaches it, where it starts and how it is trained."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.backbones import weights
from ensemble.blend.oof import finished, read_oof, read_rows
from ensemble.config import Backbone, Config, load_run_config, train_settings
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.run import Member, Run
from ensemble.train.unlabelled import Unlabelled

# A good teacher is patient and consistent (Beyer et al., CVPR 2022): students gain by schedules that are longer than
# those of networks that learn from labels alone.
PATIENCE = 3


@dataclass(frozen=True)
class DistillOptions:
    """What `ens distill` was asked for.

    into: timm architecture of the student.
    name: of the new member; None for the architecture with "-distilled".
    teachers: names of members; None for all that are finished and no students themselves.
    weights: to start from; None for those of the run's member of this architecture, else timm's.
    teacher_weight: of the teachers' answers in the loss, 0 to 1; the labels have the rest.
    temperature: by which logits are divided before they are compared.
    unlabelled: folder or table of images without a label, on which the teachers are heard too; None for none.
    changes: KEY=VALUE of the student's table, such as "train.epochs=30" or "image_size=160".
    """

    into: str
    name: str | None = None
    teachers: Sequence[str] | None = None
    weights: Path | None = None
    teacher_weight: float = 0.9
    temperature: float = 1.0
    unlabelled: Path | None = None
    changes: tuple[str, ...] = ()

    @property
    def member(self) -> str:
        return self.name or re.sub(r"[^A-Za-z0-9_-]", "-", f"{_architecture(self.into)}-distilled")


def student_experiment(run: Run, options: DistillOptions) -> Config:
    """The run's experiment with the student as its only backbone, trained as the run's member of its architecture was
    (else as the experiment says), for more epochs.

    Raises UserError for a name that another member has, and as `load_config` does.
    """
    config, name = load_run_config(run.config_toml), options.member
    member = run.member(name)
    planned = any(backbone.name == name for backbone in config.backbone)
    if planned or (member.is_begun() and "temperature" not in member.read_settings().get("learned_from", {})):
        raise UserError(f"{run}: has a member {name!r} that is no student; give the student another name with --name")
    like = _of_architecture(config, options.into)
    settings = config.train if like is None else train_settings(config, like)
    table: dict[str, Any] = {} if like is None else like.model_dump(mode="json", exclude_none=True)
    train = {**table.get("train", {}), "epochs": PATIENCE * settings.epochs}
    table |= {"name": name, "timm": options.into, "train": train}
    if options.weights is not None:
        table["weights"] = str(options.weights)
    changes = tuple(f"backbone.{name}.{change}" for change in options.changes)
    student = load_run_config(run.config_toml, changes, table).backbone[-1]
    config = config.model_copy(update={"run": run.path, "backbone": (student,)})
    settings = train_settings(config, student)
    if settings.sampler == "balanced" and options.unlabelled is not None:
        raise UserError(
            'sampler = "balanced" shows all classes equally often, which --unlabelled images have none of: '
            "--set train.sampler=shuffle"
        )
    if settings.augment_rare and options.unlabelled is not None:
        raise UserError(
            "augment_rare goes by how rare an image's class is, which --unlabelled images have none of: "
            "--set train.augment_rare=false"
        )
    if settings.strategy == "probe":
        raise UserError(
            "a probe is fitted to the labels at once and learns from no teachers: --set train.strategy=full, or another"
        )
    return config


def teachers_of(run: Run, options: DistillOptions, events: Events) -> list[str]:
    """The names of the members asked for; else of those that the student has begun with; else of all finished members
    that are no students and not set aside. Says which are not finished. Raises UserError for those that are unknown,
    not finished or can't teach."""
    name, rows = options.member, read_rows(run)
    student = run.member(name)
    if options.teachers is not None:
        chosen = list(dict.fromkeys(options.teachers))
    elif student.is_begun():
        chosen = list(student.read_settings().get("learned_from", {}).get("teachers", []))
    else:
        members = [each for each in run.member_names() if _learned_from_labels(run.member(each))]
        count = len(np.unique(rows.folds))
        chosen = [each for each in members if len(finished(run, each, rows)) == count]
        unfinished = [each for each in members if each not in chosen]
        if unfinished:
            events.message(f"no teachers, since they are not finished: {', '.join(unfinished)}")
    if name in chosen:
        raise UserError(f"{name!r} can't be its own teacher; name others with --teachers")
    if not chosen:
        raise UserError(
            f"{run}: no member is finished that could teach; train on with: ens train-folds {run.config_toml}"
        )
    read_oof(run, members=chosen)  # whose errors name a member that is unknown, unfinished or damaged
    for each in chosen:
        if run.member(each).is_optimistic():
            raise UserError(
                f'{run}: {each} kept the epochs that are best on its held-out rows (keep = "best"), so that its '
                "student's score would be too good; leave it out with --teachers"
            )
    return chosen


def require_one_prior(run: Run, teachers: Sequence[str], loss: str) -> None:
    """Raise UserError unless teachers and student, which is trained with `loss`, all leave the classes' shares out of
    their logits or none does: a student would learn two things that contradict each other."""
    for each in teachers:
        of_teacher = run.member(each).read_settings().get("loss", "cross_entropy")
        if (of_teacher == "logit_adjusted") != (loss == "logit_adjusted"):
            raise UserError(
                f"{run}: {each} was trained with loss = {of_teacher!r}, the student would be with {loss!r}: the logits "
                "of logit_adjusted are those of balanced classes, those of other losses are not; leave it out with "
                "--teachers, or --set train.loss for the student"
            )


def _learned_from_labels(member: Member) -> bool:
    return "learned_from" not in member.read_settings() and member.why_aside() is None


def learned_from(
    run: Run, options: DistillOptions, teachers: Sequence[str], unlabelled: Unlabelled | None
) -> dict[str, Any]:
    """What the student is taught by, and how, for its settings.json."""
    return {
        "teachers": list(teachers),
        "teachers' networks": [weights.digest(run.member(name).path) for name in teachers],
        "teacher weight": options.teacher_weight,
        "temperature": options.temperature,
        "unlabelled images": None if unlabelled is None else unlabelled.fingerprint(),
    }


def _of_architecture(config: Config, timm_name: str) -> Backbone | None:
    """The experiment's first backbone of an architecture; None if there is none."""
    wanted = _architecture(timm_name)
    return next((each for each in config.backbone if _architecture(each.timm) == wanted), None)


def _architecture(timm_name: str) -> str:
    """Without the hub's prefix and the tag of the weights."""
    return timm_name.rpartition("/")[2].partition(".")[0]
