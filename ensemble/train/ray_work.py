"""A worker of a Ray cluster: preparing a member, and running a job, on a machine that trains. It imports no pandas."""

from dataclasses import replace
from functools import partial

import torch

from ensemble.config import Backbone, Config
from ensemble.device import keep_freed_memory
from ensemble.errors import RunFailure
from ensemble.events import Events, MessagesOnly
from ensemble.launch.jobs import Outcome
from ensemble.launch.ray.jobs import Prepared
from ensemble.launch.slots import Slot
from ensemble.run import Fold, Run
from ensemble.train.members import crop_size, make_model
from ensemble.train.numerics import load_numerics, training_step
from ensemble.train.pixels import OpenPixels
from ensemble.train.prepare import backbone_named, cached_pixels, prepare, why_unprepared
from ensemble.train.rows import Rows
from ensemble.train.work import run_job


def prepare_there(config: Config, rows: Rows, opened: OpenPixels, name: str, slot: Slot, events: Events) -> Prepared:
    """On a machine that trains: prepare the member of this name. opened: pixels that this process has open."""
    backbone, device = backbone_named(config, name), torch.device(slot.device)
    keep_freed_memory()
    try:
        _open(config, rows, opened, backbone, events)
        rates = prepare(config, backbone, rows, opened, device, slot.threads_each, events, {})
        if rates and not Run(config.run).member(name).memory_json.is_file():
            _try_steps(config, backbone, len(rows.classes), device)
        return Prepared(rates)
    except (RunFailure, RuntimeError) as error:
        return Prepared({}, f"{name}: {why_unprepared(error)}")


def run_there(config: Config, rows: Rows, opened: OpenPixels, fold: Fold, slot: Slot, events: Events) -> Outcome:
    """On a machine that trains: run a job."""
    _open(config, rows, opened, backbone_named(config, fold.member.name), events)
    return run_job(config, rows, opened, fold, slot, events)


def _open(config: Config, rows: Rows, opened: OpenPixels, backbone: Backbone, events: Events) -> None:
    """Have the backbone's pixels open, each compared with its checksum once in this process; those that this machine's
    cache lacks are decoded."""
    if backbone.name not in _opened_for:
        opened |= cached_pixels(config, rows, [backbone], MessagesOnly(events))
        _opened_for.add(backbone.name)


_opened_for: set[str] = set()  # backbones, in this process


def _try_steps(config: Config, backbone: Backbone, classes: int, device: torch.device) -> None:
    """Two steps of training, for the memory that they take: the settings may have been chosen without, long ago."""
    numerics = replace(load_numerics(Run(config.run).member(backbone.name).numerics_json), compile=False)
    create, size = partial(make_model, config, backbone, classes, 0), crop_size(config, backbone)
    step = training_step(create, size, classes, numerics.micro_batch, numerics, device)
    for _ in range(2):  # the second one has the optimizer's state beside it
        step()
