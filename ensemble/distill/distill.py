"""Train a student in all folds, and say what it reaches at which cost, beside its teachers."""

from dataclasses import dataclass

import numpy as np

from ensemble.blend.compare import compare_with_mean
from ensemble.blend.comparison import Comparison
from ensemble.config import Backbone, Config, train_settings
from ensemble.data.contents import with_digests
from ensemble.data.pixels.preprocess import load_preprocess
from ensemble.device import choose_device
from ensemble.distill.student import DistillOptions, learned_from, require_one_prior, student_experiment, teachers_of
from ensemble.errors import RunFailure
from ensemble.events import Events
from ensemble.files.sealed import write_json
from ensemble.inference.choose_format import Speeds
from ensemble.inference.formats import formats, load_inference
from ensemble.plural import pluralize
from ensemble.run import Member, Run
from ensemble.train.jobs import train_members
from ensemble.train.members import check_backbone, open_member
from ensemble.train.mend import is_readable, reopen_damaged
from ensemble.train.prepare import allowed_formats, forward_speeds, read_speeds, unfinished
from ensemble.train.rows import Rows, SoftTargets
from ensemble.train.setup import held_rows
from ensemble.train.teacher import read_teacher_speeds
from ensemble.train.unlabelled import Unlabelled, read_unlabelled, with_unlabelled
from ensemble.tta.oof import run_samples


@dataclass(frozen=True)
class Distilled:
    """A student and its teachers.

    student: its name.
    teachers: their names.
    views: V, how many views of an image each network is given.
    comparison: of the student with the plain mean of its teachers, which comes first.
    teachers_ms: what the networks of one fold take for an image, milliseconds of one thread (or of a GPU).
    student_ms: the same of the student.
    """

    student: str
    teachers: tuple[str, ...]
    views: int
    comparison: Comparison
    teachers_ms: float
    student_ms: float


def distill(run: Run, options: DistillOptions, events: Events) -> Distilled:
    """Train a new member of the run on the labels and on what the run's members answer, each fold from the networks of
    that fold. Goes on where it was stopped.

    Raises UserError before anything is trained, as `student_experiment`, `teachers_of` and `open_member` do, and
    RunFailure if a fold failed; the others are kept.
    """
    run.require()
    config = student_experiment(run, options)
    teachers = teachers_of(run, options, events)
    (student,) = config.backbone
    if options.teacher_weight:
        require_one_prior(run, teachers, train_settings(config, student).loss)
    member = run.member(student.name)
    samples = run_samples(config, run)
    if config.data.cache != "off" or options.unlabelled is not None:
        samples = with_digests(samples, config.data.cache, events)
    rows, unlabelled = held_rows(run, samples), None
    if options.unlabelled is not None:
        unlabelled = read_unlabelled(options.unlabelled, samples, rows.folds, config.data.cache, events)
    reopen_damaged([member], events)
    if unfinished(member, rows.fold_count):
        check_backbone(config, student, len(rows.classes), events)
    open_member(config, student, rows.ids, rows.folds, events, learned_from(run, options, teachers, unlabelled))
    if unlabelled is not None:
        rows = with_unlabelled(rows, unlabelled, only_the_teacher_tells(unlabelled, len(rows.classes)))
    is_known = is_readable(member.teachers_json, read_teacher_speeds, events)
    # Others may have been named before it was stopped, if that was before its first fold began.
    if not is_known or set(read_teacher_speeds(member.teachers_json)) != set(teachers):
        write_json(member.teachers_json, {name: _speeds(config, run.member(name), rows, events) for name in teachers})
        # now: the machine may be busier after training
        write_json(member.speeds_json, _speeds(config, member, rows, events))
    failures = train_members(config, rows, events)
    if failures:
        raise RunFailure(f"{pluralize(len(failures), 'job')} failed: " + "; ".join(failures))
    speeds = read_teacher_speeds(member.teachers_json)
    is_timed = member.speeds_json.is_file()
    student_speeds = read_speeds(member.speeds_json) if is_timed else _speeds(config, member, rows, events)
    views = len(config.tta.views)
    return Distilled(
        member.name,
        tuple(teachers),
        views,
        compare_with_mean(run, member.name, teachers),
        views * sum(_milliseconds(run.member(name), speeds[name]) for name in teachers),
        views * _milliseconds(member, student_speeds),
    )


def only_the_teacher_tells(unlabelled: Unlabelled, classes: int) -> SoftTargets:
    """No target of their own for images without a label: a loss of 0, whatever the network answers. They weigh as much
    as a labelled row, which is what their teachers' answers then weigh."""
    return SoftTargets(
        np.zeros((*unlabelled.allowed.shape, classes), dtype=np.float32), unlabelled.allowed.astype(np.float32)
    )


def _speeds(config: Config, member: Member, rows: Rows, events: Events) -> dict[str, float]:
    """Images per second of a forward pass of a member's network in each number format."""
    device = choose_device()
    names = dict.fromkeys([*formats(device), *allowed_formats(config, rows, device)])
    size = load_preprocess(member.preprocess_json).image_size
    backbone = Backbone(name=member.name, timm=member.timm_name(), image_size=size)
    return forward_speeds(config, backbone, device, events, list(names))


def _milliseconds(member: Member, speeds: Speeds) -> float:
    """Of a forward pass of one image in the number format that evaluation uses: the mean over the folds' networks."""
    device = choose_device()
    names = [load_inference(fold.inference_json, device).format for fold in member.folds()]
    return float(np.mean([1000 / speeds.get(name, speeds["float32"]) for name in names]))
