"""The frozen network of a run, which has learned nothing from the run's images, and its features of images."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ensemble.backbones import timm_model
from ensemble.backbones.weights import write_state
from ensemble.data.pixels.decode import Files, Pixels
from ensemble.data.pixels.preprocess import Decoding, Preprocess
from ensemble.errors import UserError
from ensemble.files.damage import damaged
from ensemble.files.reading import parse_json
from ensemble.inference.eval_model import EvalModel, prepared
from ensemble.inference.formats import Inference
from ensemble.inference.member import LoadedMember
from ensemble.inference.predict import Group, batch_rows, forward_views
from ensemble.run import Run
from ensemble.run.networks import FROZEN, FROZEN_VIEWS

BATCHES = 32  # whose pixels are in memory at once


def save_frozen(run: Run, timm_name: str, model: torch.nn.Module, preprocess: Preprocess) -> None:
    """Write a network, which is on the CPU, into the run."""
    outputs = len(next(timm_model.classifiers(model)[0].parameters()))
    metadata = {"timm": timm_name, "outputs": str(outputs), "preprocess": json.dumps(asdict(preprocess))}
    run.frozen_model_file.parent.mkdir(parents=True, exist_ok=True)
    write_state(run.frozen_model_file, model.state_dict(), metadata)


def load_frozen(run: Run, device: torch.device) -> LoadedMember:
    """The network on the device, as a member whose "logits" are its features, float32 (1, V, N, D). Raises UserError if
    the run has none, Damaged if its file is not whole."""
    path = run.frozen_model_file
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        preprocess = parse_json(metadata["preprocess"], Preprocess, "preprocess")
        name, outputs = metadata["timm"], int(metadata["outputs"])
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it again with: ens unknown {run}") from None
    except (KeyError, ValueError, SafetensorError, UserError) as error:
        raise damaged(path, f"holds no frozen network ({error})") from None
    model = timm_model.create(name, outputs, preprocess.image_size)
    timm_model.fill(model, path)
    network = prepared(model, Inference(device.type), preprocess.image_size, device)
    features = EvalModel(network.inference, network.exact, None, (torch.nn.Identity(),))
    return LoadedMember(FROZEN, preprocess, (features,))


def frozen_features(
    frozen: LoadedMember,
    pixels: Mapping[Decoding, Pixels | Files],
    rows: np.ndarray,
    batch_size: int,
    device: torch.device,
) -> Iterator[np.ndarray]:
    """What the network makes of these rows of `pixels`, float32 (n, D) of some at a time. pixels: by the decodings of
    FROZEN_VIEWS."""
    group = Group(frozen.preprocess, FROZEN_VIEWS, frozen.eval_models)
    batch = batch_rows(batch_size, device)
    for start in range(0, len(rows), BATCHES * batch):
        part = rows[start : start + BATCHES * batch]
        squares = {each: torch.from_numpy(found.squares(part)).to(device) for each, found in pixels.items()}
        yield forward_views(group, squares, batch, device)[0][0][0]
