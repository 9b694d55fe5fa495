"""A member's network and the settings that its folds are held to. No training here."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ensemble.backbones import timm_model, weights
from ensemble.backbones.fine_tuning import freeze
from ensemble.config import Backbone, Config, Train, train_settings
from ensemble.data.pixels.preprocess import Preprocess, load_preprocess
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files.atomic import remove
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.run import Member, Run
from ensemble.train.differences import first_difference
from ensemble.train.mend import is_readable


def make_model(
    config: Config, backbone: Backbone, classes: int, fold: int, on_loaded: Callable[[str], None] | None = None
) -> torch.nn.Module:
    """A fold's network as it starts, with what is not trained frozen. on_loaded: is told what was loaded from a file.
    Raises UserError."""
    settings = train_settings(config, backbone)
    scratch = settings.strategy == "scratch"
    start = None
    if backbone.weights is not None and not scratch:
        start = weights.member_weights(backbone.weights, fold, backbone.timm)
    model = timm_model.create(
        backbone.timm, classes, image_size(config, backbone), backbone.pretrained and not scratch, start,
        settings.drop_path, on_loaded,
    )  # fmt: skip
    freeze(model, trainable(settings))
    return model


def image_size(config: Config, backbone: Backbone) -> int:
    return backbone.image_size or config.data.image_size


def crop_size(config: Config, backbone: Backbone) -> int:
    """Side of the training crops. Objects look larger in random crops than in the middle of the whole image, so that
    networks do best when they are evaluated at a larger size than they are trained at (Touvron et al., Fixing the
    train-test resolution discrepancy, 2019)."""
    return train_settings(config, backbone).crop_size or image_size(config, backbone)


def trainable(settings: Train) -> str | int:
    """What `freeze` leaves open: "head", "all" or a number of stages."""
    if settings.strategy == "probe":
        return "head"
    return settings.stages if settings.strategy in ("partial", "probe-then-partial") else "all"


def probes(settings: Train) -> bool:
    """True if linear probes come first."""
    return settings.strategy is not None and settings.strategy.startswith("probe")


def check_backbone(config: Config, backbone: Backbone, classes: int, events: Events) -> None:
    """Make the backbone once, try it and drop it: an error shows now, and not when its turn comes an hour later. Says
    what was loaded from a file. Raises UserError."""
    sizes = {"image_size": image_size(config, backbone), "crop_size": crop_size(config, backbone)}
    try:
        model = make_model(config, backbone, classes, 0, lambda line: events.message(f"{backbone.name}: {line}")).eval()
        for key, side in sizes.items():
            if (problem := timm_model.problem_at(model, side)) is not None:
                raise UserError(f"does not work at {key} = {side}: {problem}")
        if probes(train_settings(config, backbone)):
            timm_model.check_embedding(model, sizes["image_size"])
    except UserError as error:
        raise UserError(f"backbone {backbone.name!r}: {error}") from None


def open_member(
    config: Config,
    backbone: Backbone,
    ids: np.ndarray,
    folds: np.ndarray,
    events: Events,
    learned_from: Mapping[str, Any] | None = None,
) -> Preprocess:
    """Make the member's directory. Raises UserError if the run holds the member with other settings: its folds would
    not be of one kind.

    learned_from: what a student was taught by, and how, for settings.json; None of a member that learns from labels.
    """
    member = Run(config.run).member(backbone.name)
    preprocess = timm_model.preprocess_for(backbone.timm, image_size(config, backbone), config.data.crop)
    settings = {
        "timm": backbone.timm,
        "start": _start(config, backbone, ids, folds, events),
        "views": list(config.tta.views),
        **train_settings(config, backbone).model_dump(mode="json"),
        **asdict(preprocess),
        **({} if learned_from is None else {"learned_from": learned_from}),
    }
    settings = json.loads(json.dumps(settings))
    if not member.is_begun():
        preprocess.save(member.preprocess_json)
        write_json(member.settings_json, settings)
        return preprocess
    if not is_readable(member.settings_json, read_json, events):
        write_json(member.settings_json, settings)
        _require_trained_with_them(member)
    if not is_readable(member.preprocess_json, load_preprocess, events):
        preprocess.save(member.preprocess_json)
    # A key that an older ens did not have was what is now its default.
    recorded_settings: dict[str, Any] = Train().model_dump(mode="json") | dict(member.read_settings())
    taught_by: Any = recorded_settings.get("learned_from")
    if learned_from is not None and (difference := first_difference(taught_by or {}, settings["learned_from"])):
        key, recorded, wanted = difference
        raise UserError(
            f"{member.path}: learned with {key} = {recorded}, and is now asked to with {wanted}: give the images and "
            f"options that it learned with, or delete {member.path} to train it again"
        )
    if difference := first_difference(recorded_settings, {"learned_from": None, "soup": None, **settings}):
        key, recorded, wanted = difference
        raise UserError(
            f"backbone {backbone.name!r}: {member.path} holds it with {key} = {recorded}, the config says {wanted}: "
            f"set it back, give the backbone another name, or delete {member.path} to train it again"
        )
    return preprocess


def _start(config: Config, backbone: Backbone, ids: np.ndarray, folds: np.ndarray, events: Events) -> str | list[str]:
    """What the member's folds start from, for settings.json. Warns of weights that have seen rows that they are scored
    on."""
    if backbone.weights:
        warning = warning_of_seen_rows(config, backbone, ids, folds)
        if warning is not None:
            events.message(warning)
        return weights.source_of(backbone.weights)
    scratch = train_settings(config, backbone).strategy == "scratch"
    return "scratch" if scratch or not backbone.pretrained else "hub"


def warning_of_seen_rows(config: Config, backbone: Backbone, ids: np.ndarray, folds: np.ndarray) -> str | None:
    """A line, where the backbone's weights have seen rows that it is scored on. ids: str (N,). folds: int8 (N,)."""
    assert backbone.weights is not None
    start, is_probed = backbone.weights, probes(train_settings(config, backbone))
    if is_probed:  # all folds share the features of one network
        start = weights.member_weights(start, 0, backbone.timm)
    seen = weights.shared_rows(start, ids, folds)
    if not seen:
        return None
    what = f"is probed on the features of {start}, which was" if is_probed else "starts from weights that were"
    return (
        f"warning: {backbone.name} {what} trained on {seen} of the rows it is scored on: its out-of-fold score will be "
        "too good"
    )


def _require_trained_with_them(member: Member) -> None:
    """Raise UserError, and remove the file, if settings.json, made anew, is not that of a finished fold."""
    fold = member.fold_of_other_settings()
    if fold is not None:
        remove(member.settings_json)
        raise UserError(
            f"{member.settings_json}: fold {fold.number} was trained with other settings than the config has now: set "
            f"them back, or delete {member.path} to train it again"
        )
