"""Weights to start from: a safetensors file, or another run's member, whose fold models the new folds take in turn."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load

from ensemble.errors import Damaged, UserError
from ensemble.files import sealed
from ensemble.files.tensors import Tensor, metadata_of, read_bytes, write_tensors
from ensemble.run import Fold, Member, Run
from ensemble.run.vouched import require_in_fold

_DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.float64: "F64"}
_DTYPES |= {torch.int8: "I8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64"}
_DTYPES |= {torch.uint8: "U8", torch.bool: "BOOL"}


def write_state(path: Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """Write tensors as `ensemble.tensors.write_tensors` does; one at a time is copied to the CPU."""
    return write_tensors(path, {name: _tensor(value) for name, value in state.items()}, metadata)


def _tensor(value: torch.Tensor) -> Tensor:
    def pieces() -> Iterator[memoryview]:
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data

    return Tensor(_DTYPES[value.dtype], tuple(value.shape), pieces())


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A safetensors state dict. Raises UserError that names the file if it is missing or cut short, Damaged if it is
    one of ens and its bytes have changed since, or if it lies in another fold's directory."""
    return read_tensors(path)[0]


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """As `read_state`, and the file's metadata."""
    try:
        data = read_bytes(path)
        state, metadata = dict(sorted(load(data).items())), metadata_of(data)
    except FileNotFoundError:
        raise UserError(f"{path}: no such weights file (without a weights line, timm fetches its own)") from None
    except (SafetensorError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise Damaged(f"{path}: not a whole safetensors file ({reason})") from None
    require_in_fold(path, metadata, sealed.checksum(data, path))
    return state, metadata


def member_weights(path: Path, fold: int, name: str) -> Path:
    """The weights file that fold `fold` of a backbone `name` starts from.

    path: any file, which every fold then starts from; or a member's directory of another run of K folds, such as
        runs/food42/resnet18: then fold `fold` starts from the model of that member's fold `fold` mod K

    Where the K folds of both runs are the same split, no model starts from one that saw its held-out rows
    (`shared_rows`). The number of classes and the image size may differ. Raises UserError if the weights are of another
    architecture, or if not all of the member's folds are finished.
    """
    source = _source(path)
    if source is None:
        return path
    timm_name = source.member.timm_name()
    if timm_name.partition(".")[0] != name.partition(".")[0]:
        raise UserError(
            f"{path}: holds a {timm_name!r}, but the backbone is a {name!r}: the architectures must be the same"
        )
    if source.fold is not None:
        return path
    files = _finished(path, source)
    return files[fold % len(files)]


def source_of(path: Path) -> str | list[str]:
    """What identifies the weights, wherever the files lie: a file's SHA-256, or those of a member's K files in order of
    the folds. Raises UserError like `member_weights`, and if there is no such file."""
    source = _source(path)
    if source is None or source.fold is not None:
        return digest(path)
    return [digest(file) for file in _finished(path, source)]


def digest(path: Path) -> str:
    """SHA-256 of a weights file; for a member's directory, that of the SHA-256s of its files, one per line."""
    if path.is_dir():
        return hashlib.sha256("".join(f"{each}\n" for each in source_of(path)).encode()).hexdigest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"{path}: no such weights file (without a weights line, timm fetches its own)") from None


def shared_rows(path: Path, ids: np.ndarray, folds: np.ndarray | None = None) -> int:
    """How many rows are held out by a model that starts from one that was trained on them: their OOF scores would be
    optimistic. 0 for a file of no run, whose training rows are unknown.

    ids: str (N,)
    folds: int8 (N,), of this run; without them all rows of the other run count, as if no two folds agreed

    Rows are the same if their ids are, so that two data sets whose files are numbered count as one. What the other
    run's weights themselves started from is not considered.
    """
    source = _source(path)
    if source is None:
        return 0
    from ensemble.data.folds import read_folds  # pandas takes the workers of training most of a second

    table = read_folds(source.member.run)
    fold_of = dict(zip(table["id"], table["fold"].tolist(), strict=True))
    k = int(table["fold"].max()) + 1
    if folds is None:
        return sum(name in fold_of for name in ids.tolist())
    if source.fold is not None and source.fold.kind != "fold":  # a soup or a refit has seen the rows of all folds
        return sum(fold >= 0 and name in fold_of for name, fold in zip(ids.tolist(), folds.tolist(), strict=True))
    return sum(
        fold >= 0 and fold_of.get(name, start) != start
        for name, fold in zip(ids.tolist(), folds.tolist(), strict=True)
        for start in [fold % k if source.fold is None else source.fold.number]
    )


@dataclass(frozen=True)
class _Source:
    """Where weights come from in another run.

    member: whose they are
    fold: the one that is meant, or a soup or a refit; None if the member's directory was named, and each fold starts
        from its own
    """

    member: Member
    fold: Fold | None = None


def _source(path: Path) -> _Source | None:
    """The run's member that `path` is, or whose weights file it is; None for any other file. Raises UserError for a
    directory that is no member."""
    real = path.resolve()  # a link's parent is not the run
    if not real.is_dir():
        fold = _fold_at(real.parent)
        known = fold is not None and real == fold.model_file and fold.member.settings_json.is_file()
        return _Source(fold.member, fold) if fold is not None and known else None
    member = Run(real.parent).member(real.name)
    if member.settings_json.is_file():
        return _Source(member)
    run = Run(real)
    if run.folds_csv.is_file():
        names = ", ".join(run.member_names()) or "it has none yet"
        raise UserError(f"{path}: is a run; name one of its members, as {path}/NAME ({names})")
    if Run(real.parent.parent).member(real.parent.name).settings_json.is_file():
        raise UserError(f"{path}: is one fold; name its file {path / 'model.safetensors'}, or its member {path.parent}")
    raise UserError(
        f"{path}: is no member of a run (it has no settings.json); want a safetensors file, or a directory such as "
        "runs/art/convnext"
    )


def _fold_at(directory: Path) -> Fold | None:
    """The fold, the soup or the refit whose directory this is by its name; None for other names."""
    member, number = Run(directory.parent.parent).member(directory.parent.name), directory.name.removeprefix("fold")
    if number.isdecimal():
        return member.fold(int(number))
    return next((each for each in (member.soup(), *member.refits()) if each.path == directory), None)


def _finished(path: Path, source: _Source) -> list[Path]:
    """The weights files of all the source's folds, in order. Raises UserError that names the folds that lack one."""
    from ensemble.data.folds import fold_count  # pandas, see above

    folds = [source.member.fold(number) for number in range(fold_count(source.member.run))]
    unfinished = [fold for fold in folds if not fold.is_done()]
    if unfinished:
        states = [f"{fold.path.name} is {'unfinished' if fold.path.is_dir() else 'missing'}" for fold in unfinished]
        command = f"ens train-folds {source.member.run.config_toml}"
        raise UserError(f"{path}: {', '.join(states)}; train it to its end first: {command}")
    return [fold.model_file for fold in folds]
