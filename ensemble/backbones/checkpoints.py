"""Weights from other programs for a network to start from: PyTorch's pickles, weights in containers and behind
prefixes, and weights of another image size."""

import argparse
import math
import pickle
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate

from ensemble.backbones.weights import read_state
from ensemble.errors import UserError

# Where training scripts put the state dict, the moving average of the weights first, as timm takes it.
CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")
# What wrappers put before each name: several GPUs, torch.compile, Lightning, a moving average, a network around it.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")


@dataclass(frozen=True)
class Checkpoint:
    """Weights as they were found in a file.

    state: by the network's names
    container: the keys that led to them, "" for none
    prefix: what stood before each name, "" for nothing
    outside: names of the tensors without that prefix
    """

    state: dict[str, torch.Tensor]
    container: str = ""
    prefix: str = ""
    outside: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [self.container and f"its {self.container}", self.prefix and f"without the prefix {self.prefix!r}"]
        return ", ".join(part for part in parts if part)


def load_checkpoint(model: torch.nn.Module, path: Path, name: str, classifiers: Sequence[str]) -> str:
    """Load a file into a network of timm's architecture `name`, except for the modules named as its classifiers.
    Returns what was loaded and what was not, in one line.

    Raises UserError as `read_checkpoint` does, and unless the file holds all the rest in the network's shapes, in
    finite numbers, and nothing that the network lacks.
    """
    initial = model.state_dict()
    checkpoint = read_checkpoint(path, initial)
    state = _converted(checkpoint.state, model, path, name)
    heads = tuple(f"{head}." for head in classifiers)
    body = {key: value for key, value in initial.items() if not key.startswith(heads)}
    missing = [key for key in body if key not in state and not key.endswith("num_batches_tracked")]  # which counts only
    unknown = [key for key in state if not key.startswith(heads) and key not in initial]
    kinds = (("lacks", missing), ("has an unknown", unknown))
    if problems := [f"{what} {keys[0]!r} ({len(keys)} such)" for what, keys in kinds if keys]:
        raise UserError(f"{path}: does not fit {name!r}: it {' and '.join(problems)}")
    loaded = {key: value for key, value in state.items() if key in body}
    for key, value in loaded.items():
        if value.shape != body[key].shape:
            shapes = f"{tuple(value.shape)}, the model wants {tuple(body[key].shape)}"
            raise UserError(f"{path}: does not fit {name!r}: {key!r} is {shapes}")
        if not torch.isfinite(value).all():
            raise UserError(
                f"{path}: {key!r} holds NaN or infinite numbers, as after a training that failed: take an earlier "
                "checkpoint"
            )
    model.load_state_dict(loaded, strict=False)
    left = [key for key in (*state, *checkpoint.outside) if key not in loaded]
    resized = sum(key in loaded and loaded[key].shape != value.shape for key, value in checkpoint.state.items())
    parts = [f"{len(loaded)} tensors loaded" + (f" ({checkpoint})" if str(checkpoint) else "")]
    if resized:
        parts.append(f"{resized} resized to the image size")
    more = f" and {len(left) - 2} more" if len(left) > 2 else ""
    parts.append(f"left aside: {', '.join(left[:2])}{more}" if left else "no classifier in it")
    return f"{path}: {', '.join(parts)}, none missing"


def _converted(
    state: Mapping[str, torch.Tensor], model: torch.nn.Module, path: Path, name: str
) -> dict[str, torch.Tensor]:
    """The weights after timm's conversion of files, where the architecture has one; it resizes most position
    embeddings."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        with warnings.catch_warnings(action="ignore"):  # it warns of what PyTorch could do faster
            converted: dict[str, torch.Tensor] = convert(dict(state), model) if convert else dict(state)
    except Exception as error:  # it takes the names and shapes of its architecture for granted
        raise UserError(f"{path}: does not fit {name!r}: timm can't convert it ({_line(error)})") from None
    for key, value in model.state_dict().items():
        if key.endswith("pos_embed") and key in converted:
            converted[key] = _resampled(converted[key], value)
    return converted


def _resampled(value: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Absolute position embeddings of a square grid, (1, positions, D) or (1, height, width, D), resized to the model's
    as timm does it, for architectures that timm doesn't resize (CaiT, Hiera, VOLO). Others are returned unchanged."""
    if value.shape == wanted.shape or value.ndim not in (3, 4) or value.ndim != wanted.ndim or len(value) != 1:
        return value
    grids = [each.shape[1:3] if each.ndim == 4 else 2 * [math.isqrt(each.shape[1])] for each in (value, wanted)]
    if value.ndim == 3 and any(
        math.prod(grid) != each.shape[1] for grid, each in zip(grids, (value, wanted), strict=True)
    ):
        return value
    image = value.reshape(1, *grids[0], -1).permute(0, 3, 1, 2).float()
    resampled = interpolate(image, size=list(grids[1]), mode="bicubic", antialias=True)
    return resampled.permute(0, 2, 3, 1).reshape(1, *wanted.shape[1:-1], -1).to(value.dtype)


def read_checkpoint(path: Path, names: Iterable[str]) -> Checkpoint:
    """A safetensors file, or what torch.save wrote (.pth, .pt, .bin, .ckpt), told apart by their contents.

    names: of the tensors of the network that the weights are for

    Raises UserError that names the file if it is missing, damaged, or holds Python objects other than tensors and plain
    values. Those are never unpickled, since that could run any code.
    """
    content: Any = _unpickled(path) if _is_pickled(path) else read_state(path)
    container = ""
    while isinstance(content, Mapping) and (
        keys := [key for key in CONTAINERS if isinstance(content.get(key), Mapping)]
    ):
        container, content = f"{container}[{keys[0]}]" if container else keys[0], content[keys[0]]
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state dict; {_SAVE}")
    state = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not state:
        first_keys = ", ".join(repr(str(key)) for key in list(content)[:5]) or "nothing"
        raise UserError(f"{path}: holds no state dict (it holds {first_keys}); {_SAVE}")
    return _without_prefix(state, container, tuple(names))


_SAVE = "save the network's weights alone: torch.save(model.state_dict(), FILE)"


def _without_prefix(state: dict[str, torch.Tensor], container: str, names: tuple[str, ...]) -> Checkpoint:
    """Remove the prefixes that most names have, and none of the network's names."""
    removed = ""
    outside: list[str] = []
    while True:
        counts = {prefix: sum(name.startswith(prefix) for name in state) for prefix in PREFIXES}
        prefix = max(counts, key=lambda each: counts[each])
        if 2 * counts[prefix] <= len(state) or any(name.startswith(prefix) for name in names):
            return Checkpoint(state, container, removed, tuple(outside))
        outside += [removed + name for name in state if not name.startswith(prefix)]
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        removed += prefix


def _is_pickled(path: Path) -> bool:
    """Told by the first bytes: those of a zip or a pickle, not the length and the brace that safetensors begin with."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:
        return False  # read_state says what is wrong
    if path.suffix == ".safetensors" or start[8:] == b"{":
        return False
    return start.startswith((b"PK", b"\x80")) or path.suffix in (".pth", ".pt", ".bin", ".ckpt", ".tar")


def _unpickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm's own checkpoints hold their arguments
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if names := _other_objects(path):
            raise UserError(
                f"{path}: holds Python objects besides tensors ({names}), which ens doesn't load since they may run "
                f"any code; {_SAVE}"
            ) from None
        raise UserError(f"{path}: not a whole PyTorch checkpoint ({_line(error)})") from None
    except Exception as error:  # a damaged zip or pickle leads to any of them
        raise UserError(f"{path}: not a whole PyTorch checkpoint ({_line(error)})") from None


def _other_objects(path: Path) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # of a file that is no zip
        return ""
    return ", ".join(sorted(name for name in names if name != "argparse.Namespace"))


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
