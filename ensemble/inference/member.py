"""A member of a run, ready to predict: its networks read from disk and brought to the device."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ensemble import rundir
from ensemble.backbones import timm_model
from ensemble.data.pixels.decode import Preprocess, load_preprocess
from ensemble.errors import UserError
from ensemble.files.damage import damaged
from ensemble.inference.eval_model import Forward, load_inference, prepared

LEAST_FREE = 0.4  # share of a GPU's memory that models leave free for what is computed


@dataclass(frozen=True)
class Member:
    """One backbone of a run, ready to predict. Its networks give the logits of K folds in all, in order."""

    name: str
    preprocess: Preprocess
    forwards: tuple[Forward, ...]


def load_member(run: Path, name: str, classes: int, folds: int, device: torch.device) -> Member:
    """All fold models of a finished member. Raises UserError that names the fold that is missing or not whole.

    The folds of a linear probe share their network: it is loaded once, with all their classifiers. Networks that would
    leave too little of a GPU's memory free stay on the host, and are brought over for each chunk of images.
    """
    preprocess = load_preprocess(rundir.preprocess_json(run, name))
    settings = rundir.read_settings(run, name)
    _require_settings_of(run, name, preprocess)
    directories = [rundir.fold_dir(run, name, fold) for fold in range(folds)]
    for directory in directories:
        if not rundir.is_done(directory):
            raise UserError(f"{directory}: is not finished, or its files are cut short; run ens train-folds again")
    probes = settings.get("strategy") == "probe"
    forwards: list[Forward] = []
    for directory in directories[:1] if probes else directories:
        model = timm_model.create(rundir.timm_of(run, name), classes, preprocess.image_size)
        timm_model.fill(model, rundir.model_file(directory))
        place = device if _has_room(device) else torch.device("cpu")
        how = load_inference(rundir.inference_json(directory), device)
        forwards.append(prepared(model, how, preprocess.image_size, place))
    if probes:
        forwards = [with_heads(forwards[0], [rundir.model_file(directory) for directory in directories])]
    return Member(name, preprocess, tuple(forwards))


def _require_settings_of(run: Path, name: str, preprocess: Preprocess) -> None:
    """Raise Damaged if settings.json or preprocess.json are not those that the member was trained with."""
    path = rundir.settings_json(run, name)
    held, fold = dict(rundir.read_settings(run, name)), rundir.fold_of_other_settings(run, name)
    if fold is not None:
        raise damaged(path, f"not the settings that fold {fold} was trained with")
    own = json.loads(json.dumps(asdict(preprocess)))
    if any(held.get(key, value) != value for key, value in own.items()):
        raise damaged(rundir.preprocess_json(run, name), "not the preprocessing that settings.json names")


def with_heads(forward: Forward, files: Sequence[Path]) -> Forward:
    """The network with the classifiers of these weights files, for the folds of a linear probe."""
    layer = timm_model.classifier(forward.exact)
    name = next(name for name, module in forward.exact.named_modules() if module is layer)
    states = [timm_model.read_state(file) for file in files]
    weights, biases = (torch.stack([state[f"{name}.{kind}"] for state in states]) for kind in ("weight", "bias"))
    return Forward(forward.how, forward.exact, None, (weights.to(layer.weight.device), biases.to(layer.weight.device)))


def _has_room(device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, total = torch.cuda.mem_get_info(device)
    return free > LEAST_FREE * total


def fold_forwards(member: Member) -> list[Forward]:
    """One network for each fold; a probe's, which all folds share, with the fold's own classifier."""
    one = member.forwards[0]
    if one.heads is None:
        return list(member.forwards)
    weights, biases = one.heads
    return [
        Forward(one.how, one.exact, None, (weights[fold : fold + 1], biases[fold : fold + 1]))
        for fold in range(len(weights))
    ]
