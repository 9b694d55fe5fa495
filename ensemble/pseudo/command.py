"""`ens pseudo`: rounds of self-training, as long as they gain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.backbones import weights
from ensemble.blend.oof import finished, read_oof, read_rows
from ensemble.config import Config, load_run_config, train_settings
from ensemble.data.contents import with_digests
from ensemble.errors import RunFailure, UserError
from ensemble.events import Events
from ensemble.plural import pluralize
from ensemble.pseudo.gain import gains
from ensemble.pseudo.students import (
    open_students,
    round_config,
    student_name,
)
from ensemble.pseudo.targets import log_priors, soft_targets
from ensemble.run import Run
from ensemble.scoring.bootstrap import Gain
from ensemble.scoring.metrics import METRICS, require_metric
from ensemble.train.jobs import train_members
from ensemble.train.rows import Rows
from ensemble.train.setup import held_rows
from ensemble.train.unlabelled import Unlabelled, read_unlabelled, with_unlabelled
from ensemble.tta.member_logits import member_logits
from ensemble.tta.oof import run_samples

MOST_ROUNDS = 3


@dataclass(frozen=True)
class PseudoOptions:
    """What `ens pseudo` is told.

    students: the members that get a student each; None for all that are fine-tuned.
    rounds: at most.
    metric: which a round has to gain in.
    power, weight: as in `soft_targets`.
    changes: keys of [train] that students have otherwise than the members that they come after, and their values.
    """

    students: Sequence[str] | None = None
    rounds: int = MOST_ROUNDS
    metric: str = "log_loss"
    power: float = 2.0
    weight: float = 1.0
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """A round of self-training.

    number: from 1.
    teachers: the members whose plain mean was learned from.
    students: the members that learned.
    team: the teachers with the students in the place of those that they come after.
    gains: by metric, what the plain mean of the team gains over that of the teachers.
    kept: whether the interval of the gain lies above 0.
    """

    number: int
    teachers: tuple[str, ...]
    students: tuple[str, ...]
    team: tuple[str, ...]
    gains: dict[str, Gain]
    kept: bool


def self_train(run: Run, images: Path, options: PseudoOptions, events: Events) -> list[Round]:
    """Train students on a run's labelled rows and on images without a label, round by round, until one gains nothing.

    The teachers of the first round are all members of the run that are no students and not set aside; of the next one,
    the team of the round before. Students are members of the same run; those of a round that gains nothing are set
    aside. The same call goes on after a stop, and with a further round where fewer were asked for.

    Which rounds are kept is decided on the rows that the gains are of: three choices at most, each where the 95%
    interval is above 0. Raises UserError for members that are not finished, images that can't be read or are none, and
    a student that has learned from something else; RunFailure where a job failed.
    """
    run.require()
    require_metric(options.metric)
    config = load_run_config(run.config_toml).model_copy(update={"run": run.path})
    team = _teachers(run, events)
    members = _with_students(config, team, options, events)
    round_config(config, members, 1, options.changes)  # a wrong key is reported first
    samples = with_digests(run_samples(config, run), config.data.cache, events)
    rows = held_rows(run, samples)
    unlabelled = read_unlabelled(images, samples, rows.folds, config.data.cache, events)
    images_name = images.stem if images.is_file() else images.resolve().name
    rounds: list[Round] = []
    for number in range(1, options.rounds + 1):
        students = [student_name(member, number) for member in members]
        replaced = {_in_round(member, number - 1): student for member, student in zip(members, students, strict=True)}
        logits = _mean_logits(run, team, rows, unlabelled, images_name, events)
        soft = soft_targets(logits, unlabelled.allowed, options.power, options.weight)
        learned_from = {
            "round": number,
            "teachers": list(team),
            "teachers' networks": [weights.digest(run.member(name).path) for name in team],
            "unlabelled images": unlabelled.fingerprint(),
            "power": options.power,
            "weight": options.weight,
        }
        experiment = round_config(config, members, number, options.changes)
        events.message(
            f"round {number}: {', '.join(students)} learn from {len(rows.ids)} labelled and "
            f"{len(unlabelled.ids)} unlabelled images, and from {', '.join(team)}"
        )
        open_students(experiment, rows, learned_from, events)
        failures = train_members(experiment, with_unlabelled(rows, unlabelled, soft), events)
        if failures:
            raise RunFailure(f"{pluralize(len(failures), 'job')} failed: " + "; ".join(failures))
        next_team = tuple(replaced.get(name, name) for name in team)
        rounds.append(_decided(run, number, team, students, next_team, options.metric))
        events.message(_verdict(rounds[-1]))
        if not rounds[-1].kept:
            break
        team = next_team
    return rounds


def _in_round(member: str, number: int) -> str:
    """The name of a member in the team that a round has left: 0 is before the first one."""
    return student_name(member, number) if number else member


def _begun_with(run: Run) -> list[str] | None:
    """The teachers of the first round, where a student of it has begun."""
    for member in map(run.member, run.member_names()):
        learned_from = member.read_settings().get("learned_from", {})
        if learned_from.get("round") == 1 and "soup" not in member.read_settings() and member.is_begun():
            return list(learned_from["teachers"])
    return None


def _teachers(run: Run, events: Events) -> tuple[str, ...]:
    """The members that learned from labels alone: those that the first round began with, else all. Raises UserError if
    one is not finished."""
    rows, begun_with = read_rows(run), _begun_with(run)
    numbers = np.unique(rows.folds).tolist()
    names, later = [], []
    for name in run.member_names():
        member = run.member(name)
        if "learned_from" in member.read_settings() or member.why_aside() is not None:
            continue
        if begun_with is not None and name not in begun_with:
            later.append(name)
            continue
        lacking = sorted(set(numbers) - set(finished(run, name, rows)))
        if lacking:
            raise UserError(
                f"{run}: member {name!r} is not finished: fold {', '.join(map(str, lacking))}; train on with: "
                f"ens train-folds {run.config_toml}"
            )
        if member.is_optimistic():
            raise UserError(
                f'{run}: {name} kept the epochs that are best on its held-out rows (keep = "best"), so that its '
                'students\' scores would be too good; train it anew with keep = "last"'
            )
        names.append(name)
    if later:
        events.message(
            f"no teachers, since the first round began without them: {', '.join(later)}; to begin anew with them, "
            "delete the students"
        )
    if not names:
        raise UserError(f"{run}: no member has learned from labels; train one with: ens train-folds {run.config_toml}")
    return tuple(names)


def _with_students(config: Config, team: Sequence[str], options: PseudoOptions, events: Events) -> list[str]:
    """The members that get students. Raises UserError for one that can't have any."""
    run = Run(config.run)
    probes = [backbone.name for backbone in config.backbone if train_settings(config, backbone).strategy == "probe"]
    if options.students is None:
        found = [backbone.name for backbone in config.backbone if backbone.name in team and backbone.name not in probes]
        without = [name for name in team if name not in found]
        if without and found:
            events.message(
                f"no students of {', '.join(without)}: only what config.toml fine-tunes can learn from images"
            )
        if found:
            return found
        raise UserError(f"{run}: no member is fine-tuned, and a linear probe learns from labels only")
    for name in options.students:
        if name not in team:
            raise UserError(f"{run}: no member {name!r} to have a student; there are: {', '.join(team)}")
        if all(backbone.name != name for backbone in config.backbone):
            raise UserError(f"{run.config_toml}: has no backbone {name!r}, so nothing says how to train its student")
        if name in probes:
            raise UserError(f"member {name!r} is a linear probe, which learns from labels only; name others")
    return list(dict.fromkeys(options.students))


def _mean_logits(
    run: Run, team: Sequence[str], rows: Rows, unlabelled: Unlabelled, images: str, events: Events
) -> np.ndarray:
    """The plain mean of the team's logits, by each fold's networks: float32 (K, U, C). The logits of logit_adjusted are
    those of balanced classes: with the prior they are what a label says, which its loss takes for a target."""
    oof = read_oof(run, members=team)
    each = [
        member_logits(run, name, views, unlabelled.paths, images, events)
        for name, views in zip(oof.members, oof.views, strict=True)
    ]
    for name, logits in zip(oof.members, each, strict=True):
        if run.member(name).read_settings().get("loss") == "logit_adjusted":
            logits += log_priors(rows)[:, None]
    return np.asarray(np.mean(each, axis=0, dtype=np.float32))


def _decided(
    run: Run, number: int, teachers: tuple[str, ...], students: Sequence[str], team: tuple[str, ...], metric: str
) -> Round:
    """What a round that is trained is worth; its students are set aside where that is nothing."""
    found = gains(run, team, teachers, metric)
    kept = found[metric].low > 0
    made = Round(number, teachers, tuple(students), team, found, kept)
    for name in students:
        run.member(name).set_aside(None if kept else f"round {number} of self-training gained nothing that is sure")
    return made


def _verdict(made: Round) -> str:
    """A round's gains in a line, and what follows from them."""
    words = [
        f"{METRICS[name].title} {METRICS[name].number(gain.value, '+')} "
        f"[{METRICS[name].number(gain.low, '+')}, {METRICS[name].number(gain.high, '+')}]"
        for name, gain in made.gains.items()
    ]
    names = ", ".join(made.students)
    line = f"round {made.number}: the mean of {', '.join(made.team)} gains over its teachers (above 0 is better): "
    line += ", ".join(words)
    metric = METRICS[next(iter(made.gains))].title
    if made.kept:
        return f"{line}; {names}: kept"
    return (
        f"{line}; the interval of the gain in {metric} is not above 0: {names} set aside: used only where they are "
        "named with --members"
    )
