"""What an unfinished fold needs to go on: model, averages, optimizer and log, in one file."""

import json
from pathlib import Path
from typing import Any

import torch

from ensemble.backbones.weights import read_tensors, write_state
from ensemble.errors import Damaged, UserError
from ensemble.files.damage import damaged
from ensemble.files.reading import parse_json
from ensemble.run.shapes import Epoch
from ensemble.run.vouched import fold_metadata

Log = list[dict[str, Any]]  # a line for each epoch


def save_state(
    path: Path,
    model: torch.nn.Module,
    average: Any,
    optimizer: torch.optim.Optimizer,
    best: dict[str, torch.Tensor],
    log: Log,
) -> None:
    """Write it all atomically, with a checksum. average: a ModelEmaV3 or None. best: the best epoch's weights."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    write_state(path, tensors, {**fold_metadata(path), "log": json.dumps(log)})


def load_state(
    path: Path, model: torch.nn.Module, average: Any, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, torch.Tensor], Log]:
    """Fill model, average and optimizer from `path`; returns the best epoch's weights, if they are kept, and the log so
    far, both empty where there is no file. Raises Damaged, before anything is filled, if it is not what was written."""
    if not path.is_file():
        return {}, []
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    try:
        tensors, metadata = read_tensors(path)
        log: Log = [dict(line) for line in parse_json(metadata["log"], list[Epoch], "log")]
        if not all({"epoch", "seconds", "micro_batch"} <= line.keys() for line in log):
            raise ValueError("a line of its log lacks the epoch, the seconds or the micro_batch")
        _check(tensors, model, average is not None, parameters)
    except Damaged:
        raise
    except (KeyError, ValueError, UserError) as error:
        raise damaged(path, f"not a whole training state ({error})") from None

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    model.load_state_dict(part("model."))
    if average is not None:
        average.module.load_state_dict(part("average."))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in part("optimizer.").items():
        index, key = name.split(".", 1)
        if value.ndim:  # in the parameter's own memory format, so that going on takes the very same kernels
            value = torch.empty_like(parameters[int(index)]).copy_(value)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return part("best."), log


def _check(
    tensors: dict[str, torch.Tensor], model: torch.nn.Module, averaged: bool, parameters: list[torch.nn.Parameter]
) -> None:
    """Raise ValueError, before anything is filled, if the tensors are not those of such a model and its optimizer."""
    own = {name: value.shape for name, value in model.state_dict().items()}
    kept = any(name.startswith("best.") for name in tensors)
    parts = ["model.", *["average."] * averaged, *["best."] * kept]
    want = {prefix + name: shape for prefix in parts for name, shape in own.items()}
    found = {name: value.shape for name, value in tensors.items() if not name.startswith("optimizer.")}
    for name in sorted(want.keys() ^ found.keys()):
        raise ValueError(f"{name} is {'missing' if name in want else 'none of its tensors'}")
    for name, shape in want.items():
        if found[name] != shape:
            raise ValueError(f"{name} is {tuple(found[name])}, want {tuple(shape)}")
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            index, _, key = name.removeprefix("optimizer.").partition(".")
            if not (index.isdecimal() and int(index) < len(parameters) and key):
                raise ValueError(f"{name} is of no parameter")
            if value.ndim and value.shape != parameters[int(index)].shape:
                raise ValueError(f"{name} is {tuple(value.shape)}, want {tuple(parameters[int(index)].shape)}")
