"""A member's network and the settings that its folds are held to. No training here."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ensemble import rundir
from ensemble.backbones import timm_model, weights
from ensemble.config import Backbone, Config, Train, train_settings
from ensemble.data.pixels.preprocess import Preprocess, load_preprocess
from ensemble.errors import UserError
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.train.setup import Say, short, whole


def make_model(config: Config, backbone: Backbone, classes: int, fold: int, say: Say | None = None) -> torch.nn.Module:
    """A fold's network as it starts, its frozen part frozen. say: is told what was loaded of a file. Raises
    UserError."""
    settings = train_settings(config, backbone)
    scratch = settings.strategy == "scratch"
    start = None
    if backbone.weights is not None and not scratch:
        start = weights.member_weights(backbone.weights, fold, backbone.timm)
    model = timm_model.create(
        backbone.timm, classes, image_size(config, backbone), backbone.pretrained and not scratch, start,
        settings.drop_path, say,
    )  # fmt: skip
    timm_model.freeze(model, trainable(settings))
    return model


def image_size(config: Config, backbone: Backbone) -> int:
    return backbone.image_size or config.data.image_size


def crop_size(config: Config, backbone: Backbone) -> int:
    """Side of the training crops. Objects look larger in random crops than in the middle of the whole image, so that
    networks do best when they are evaluated at a larger size than they are trained at (Touvron et al., Fixing the
    train-test resolution discrepancy, 2019)."""
    return train_settings(config, backbone).crop_size or image_size(config, backbone)


def trainable(settings: Train) -> str | int:
    """What `timm_model.freeze` leaves open: "head", "all" or a number of stages."""
    if settings.strategy == "probe":
        return "head"
    return settings.stages if settings.strategy in ("partial", "probe-then-partial") else "all"


def probes(settings: Train) -> bool:
    """True if linear probes come first."""
    return settings.strategy is not None and settings.strategy.startswith("probe")


def check_backbone(config: Config, backbone: Backbone, classes: int, say: Say) -> None:
    """Make the backbone once, try it and drop it, now and not when its turn comes an hour later. say: is told what was
    loaded of a file. Raises UserError."""
    sizes = {"image_size": image_size(config, backbone), "crop_size": crop_size(config, backbone)}
    try:
        model = make_model(config, backbone, classes, 0, lambda line: say(f"{backbone.name}: {line}")).eval()
        for key, side in sizes.items():
            try:
                with torch.inference_mode():
                    model(torch.zeros(1, 3, side, side))
            except (RuntimeError, AssertionError, ValueError) as error:
                raise UserError(f"does not work at {key} = {side}: {str(error).splitlines()[0]}") from None
        if probes(train_settings(config, backbone)):
            timm_model.check_embedding(model, sizes["image_size"])
    except UserError as error:
        raise UserError(f"backbone {backbone.name!r}: {error}") from None


def open_member(config: Config, backbone: Backbone, ids: np.ndarray, folds: np.ndarray, say: Say) -> Preprocess:
    """Make the member's directory. Raises UserError if the run holds the member with other settings: its folds would
    not be of one kind."""
    preprocess = timm_model.preprocess_for(backbone.timm, image_size(config, backbone), config.data.crop)
    start: Any = "hub" if backbone.pretrained else "scratch"
    if backbone.weights:
        start = weights.source_of(backbone.weights)
        seen = weights.shared_rows(backbone.weights, ids, folds)
        if seen:
            say(
                f"warning: {backbone.name} starts from weights that were trained on {seen} of the rows it is scored "
                "on: its out-of-fold score will be too good"
            )
    elif train_settings(config, backbone).strategy == "scratch":
        start = "scratch"
    settings = {
        "timm": backbone.timm,
        "start": start,
        "views": list(config.tta.views),
        **train_settings(config, backbone).model_dump(mode="json"),
        **asdict(preprocess),
    }
    settings = json.loads(json.dumps(settings))
    path = rundir.settings_json(config.run, backbone.name)
    stored = rundir.preprocess_json(config.run, backbone.name)
    if rundir.is_begun(config.run, backbone.name):
        if not whole(path, read_json, say):
            write_json(path, settings)
            _require_trained_so(path)
        if not whole(stored, load_preprocess, say):
            preprocess.save(stored)
        held = dict(rundir.read_settings(config.run, backbone.name))
        for key in settings:
            if held.get(key) != settings[key]:
                raise UserError(
                    f"backbone {backbone.name!r}: {path.parent} holds it with {key} = {short(held.get(key))}, "
                    f"the config says {short(settings[key])}: set it back, give the backbone another name, "
                    f"or delete {path.parent} to train it again"
                )
    else:
        preprocess.save(stored)
        write_json(path, settings)
    return preprocess


def _require_trained_so(settings: Path) -> None:
    """Raise UserError, and take the file away, if settings.json, made anew, is not that of a finished fold."""
    fold = rundir.fold_of_other_settings(settings.parent.parent, settings.parent.name)
    if fold is not None:
        settings.unlink()
        raise UserError(
            f"{settings}: fold {fold} was trained with other settings than the config has now: set them back, or "
            f"delete {settings.parent} to train it again"
        )
