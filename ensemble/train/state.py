"""What an unfinished fold needs to go on: model, averages, optimizer and log, in one file."""

import json
from pathlib import Path
from typing import Any

import torch

from ensemble import rundir
from ensemble.damage import damaged
from ensemble.weights import read_tensors, write_state

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
    write_state(path, tensors, {**rundir.of_fold(path), "log": json.dumps(log)})


def load_state(
    path: Path, model: torch.nn.Module, average: Any, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, torch.Tensor], Log]:
    """Fill model, average and optimizer from `path`; returns the best epoch's weights, if they are kept, and the log so
    far, both empty where there is no file. Raises Damaged, before anything is filled, if it is not what was written."""
    if not path.is_file():
        return {}, []
    try:
        tensors, metadata = read_tensors(path)
        log: Log = json.loads(metadata["log"])
    except (KeyError, ValueError) as error:
        raise damaged(path, f"not a whole training state ({error})") from None

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    model.load_state_dict(part("model."))
    if average is not None:
        average.module.load_state_dict(part("average."))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in part("optimizer.").items():
        index, key = name.split(".", 1)
        if value.ndim:  # in the parameter's own memory format, so that going on takes the very same kernels
            value = torch.empty_like(parameters[int(index)]).copy_(value)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return part("best."), log
