"""A fold in training, and the file that it goes on from when it was stopped."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ensemble.backbones.weights import read_tensors, write_state
from ensemble.errors import Damaged, UserError
from ensemble.files.damage import damaged
from ensemble.files.reading import parse_json
from ensemble.run.shapes import Epoch
from ensemble.run.vouched import fold_metadata


@dataclass
class TrainState:
    """A fold in training.

    model: the network that learns.
    optimizer: of its parameters.
    average: timm's ModelEmaV3, the moving average of its weights, or None.
    best: the weights of the best epoch by name; empty unless they are kept.
    log: a line for each whole epoch.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    average: Any = None
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    log: list[Epoch] = field(default_factory=list)

    @property
    def eval_model(self) -> torch.nn.Module:
        """The network that is scored: the averaged one, where there is one."""
        model: torch.nn.Module = self.model if self.average is None else self.average.module
        return model

    def best_loss(self) -> float:
        """The least held-out log loss of the epochs so far; inf where none was scored."""
        losses = [line["held_out_log_loss"] for line in self.log if "held_out_log_loss" in line]
        return min(losses, default=math.inf)

    def keep_best(self) -> None:
        """Hold the weights as they are now for the best."""
        self.best = {name: value.detach().clone() for name, value in self.eval_model.state_dict().items()}


def save_state(path: Path, state: TrainState) -> None:
    """Write it all atomically, with a checksum."""
    tensors = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    if state.average is not None:
        tensors |= {f"average.{name}": value for name, value in state.average.module.state_dict().items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    write_state(path, tensors, {**fold_metadata(path), "log": json.dumps(state.log)})


def load_state(path: Path, state: TrainState) -> None:
    """Fill `state` from a file; leave it as it is where there is none. Raises Damaged, before anything is filled, if
    the file is not what was written."""
    if not path.is_file():
        return
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    try:
        tensors, metadata = read_tensors(path)
        log = parse_json(metadata["log"], list[Epoch], "log")
        if not all({"epoch", "seconds", "micro_batch"} <= line.keys() for line in log):
            raise ValueError("a line of its log lacks the epoch, the seconds or the micro_batch")
        _check(tensors, state, parameters)
    except Damaged:
        raise
    except (KeyError, ValueError, UserError) as error:
        raise damaged(path, f"not a whole training state ({error})") from None

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    state.model.load_state_dict(part("model."))
    if state.average is not None:
        state.average.module.load_state_dict(part("average."))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in part("optimizer.").items():
        index, key = name.split(".", 1)
        if value.ndim:  # in the parameter's own memory format, so that going on takes the very same kernels
            value = torch.empty_like(parameters[int(index)]).copy_(value)
        moments.setdefault(int(index), {})[key] = value
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    state.best, state.log = part("best."), log


def _check(tensors: dict[str, torch.Tensor], state: TrainState, parameters: list[torch.nn.Parameter]) -> None:
    """Raise ValueError if the tensors are not those of such a model and its optimizer."""
    shapes = {name: value.shape for name, value in state.model.state_dict().items()}
    has_best = any(name.startswith("best.") for name in tensors)
    prefixes = ["model.", *["average."] * (state.average is not None), *["best."] * has_best]
    want = {prefix + name: shape for prefix in prefixes for name, shape in shapes.items()}
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
