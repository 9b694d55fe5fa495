"""Which frozen network's features are used: the smallest of those that the run's members start from."""

from collections.abc import Iterator

import numpy as np

from ensemble.backbones import timm_model, weights
from ensemble.backbones.heads import LINEAR
from ensemble.config import Backbone, Config, load_run_config, train_settings
from ensemble.data.folds import read_folds
from ensemble.data.pixels.preprocess import load_preprocess
from ensemble.errors import Damaged, UserError
from ensemble.events import Events
from ensemble.files import sealed
from ensemble.inference.frozen import save_frozen
from ensemble.run import Member, Run
from ensemble.train.members import make_model


def require_frozen(run: Run, events: Events) -> bool:
    """Whether the run holds a frozen network, which is copied into it where it does not yet. It must never have seen
    any of the run's rows, those that are only trained on included.

    A fine-tuned one won't do: its features of rows that it was trained on lie nearer to each other than those of new
    images.
    """
    if run.frozen_model_file.is_file():
        try:
            sealed.require_sound_file(run.frozen_model_file)
            return True
        except Damaged as error:
            events.message(f"warning: {error}")
    config = load_run_config(run.config_toml)
    classes, ids = len(run.read_classes()), read_folds(run)["id"].to_numpy(dtype=str)
    for backbone in _smallest_first(config, run, ids):
        member = run.member(backbone.name)
        preprocess = load_preprocess(member.preprocess_json)
        try:
            if train_settings(config, backbone).strategy == "probe":  # its folds' files hold the frozen network
                model = timm_model.create(backbone.timm, classes, preprocess.image_size)
                head = member.read_settings().get("head", "linear")
                timm_model.fill(model, member.fold(0).model_file, has_classifier=head in LINEAR)
            else:
                model = make_model(config, backbone, classes, 0)
        except UserError as error:
            events.message(f"{backbone.name}: its frozen network can't be had ({error})")
            continue
        save_frozen(run, backbone.timm, model, preprocess)
        events.message(f"features: by {backbone.timm} as {backbone.name} starts from it, which never saw these images")
        return True
    return False


def _smallest_first(config: Config, run: Run, ids: np.ndarray) -> Iterator[Backbone]:
    """The backbones whose networks start from weights that have not seen the rows."""
    finished = [backbone for backbone in config.backbone if run.member(backbone.name).fold(0).is_done()]
    for backbone in sorted(finished, key=lambda backbone: _size(run.member(backbone.name))):
        strategy = train_settings(config, backbone).strategy
        if strategy == "scratch" or not (backbone.pretrained or backbone.weights):
            continue
        try:
            start = backbone.weights and weights.member_weights(backbone.weights, 0, backbone.timm)
            if start and weights.shared_rows(start, ids):
                continue
        except UserError:  # the file is gone: of a probe the network is in the run
            if strategy != "probe":
                continue
        yield backbone


def _size(member: Member) -> int:
    """Bytes of a network's weights."""
    return member.fold(0).model_file.stat().st_size
