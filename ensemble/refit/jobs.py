"""`ens refit`: the recipe of a member, trained anew on all rows, with one seed or several."""

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ensemble.config import Backbone, Config, load_run_config, train_settings
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files.mirror import folder_of
from ensemble.refit.probe import probe_on_all_rows
from ensemble.run import Fold, Run
from ensemble.train.jobs import open_rows, train_jobs
from ensemble.train.members import probes


def refit(run: Run, members: Sequence[str] | None, seeds: int, events: Events) -> tuple[list[Fold], list[str]]:
    """Train members (None: all of the experiment) on all rows of the run, `seeds` networks each, and write them beside
    their folds. What is finished is left as it is, and what was stopped goes on from its last epoch.

    A refit is a fold with no held-out rows: nothing is scored, nothing chooses its number format (it is float32), and
    its own accuracy is unknown. That of the recipe is its folds', whose networks saw (K - 1) / K of the rows.

    Returns the refits, and one line for each that failed. Raises UserError for a member that is unknown, not finished,
    or whose held-out rows chose its epochs.
    """
    run.require()
    config = load_run_config(run.config_toml)
    if folder_of(config.run).resolve() != run.path.resolve():  # it was moved
        config = config.model_copy(update={"run": Path(str(run))})
    backbones = [_backbone(run, config, name) for name in members or [each.name for each in config.backbone]]
    rows = open_rows(config, events)
    for backbone in backbones:
        _require_refittable(run, config, backbone, rows.fold_count)
    all_rows = replace(rows, folds=np.full_like(rows.folds, -1))  # in no fold, so that each is trained on
    refits = [run.member(backbone.name).refit(seed) for backbone in backbones for seed in range(seeds)]
    for backbone in backbones:
        if probes(train_settings(config, backbone)):
            lacking = [each for each in refits if each.member.name == backbone.name and not each.is_done()]
            probe_on_all_rows(config, backbone, all_rows, lacking, events)
    return refits, train_jobs(config, all_rows, refits, events)


def _backbone(run: Run, config: Config, name: str) -> Backbone:
    names = [backbone.name for backbone in config.backbone]
    if name in names:
        return config.backbone[names.index(name)]
    if name in run.member_names():
        raise UserError(
            f"{name}: {run.config_toml} has no backbone of this name, so its recipe is not known; train it there first "
            "(ens train-folds)"
        )
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
    raise UserError(f"{run}: no member {name!r}; nearest: {', '.join(near)}")


def _require_refittable(run: Run, config: Config, backbone: Backbone, folds: int) -> None:
    member = run.member(backbone.name)
    unfinished = [str(number) for number in range(folds) if not member.fold(number).is_done()]
    if unfinished:
        raise UserError(
            f"{member.path}: fold {', '.join(unfinished)} is not finished, and only the folds say what the recipe is "
            f"worth; first: ens train-folds {run.config_toml}"
        )
    if dict(member.read_settings()).get("learned_from") is not None:
        raise UserError(f"{backbone.name}: learned from other members' folds, and no member's folds have seen all rows")
    head = train_settings(config, backbone).head
    if head != "linear":
        raise UserError(f"{backbone.name}: head = {head!r} can't be refitted, of probes only linear ones")
    if train_settings(config, backbone).keep == "best":
        raise UserError(
            f'{backbone.name}: keep = "best" lets held-out rows choose the epoch, and a refit holds none out; train it '
            'under another name with keep = "last" and the epochs that were enough, and refit that'
        )
