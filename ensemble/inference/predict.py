"""Views x models over decoded squares. Out-of-fold evaluation and prediction both come through `forward_views`."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ensemble.data.pixels.decode import Decoding, Preprocess
from ensemble.device import in_layout, is_out_of_memory, side_by_side, streams
from ensemble.errors import RunFailure
from ensemble.inference.decode import Source, ahead, decoded_squares
from ensemble.inference.eval_model import DTYPES, Forward, logits_of, margins
from ensemble.inference.member import Member
from ensemble.inference.views import Geometry, cut, is_wide

Squares = Mapping[Decoding, Tensor]  # uint8 (N, side, side, 3), on the device that computes
Output = Callable[[Forward, Tensor], Tensor]  # of normalised images (B, 3, S, S): (K, B, ...)

CPU_BATCH = 16  # images: resnet18 at 224 px is slower by 7 % with 32 and by 8 % with 64
SHARES = 4  # pieces of work for each stream, at least, so that none waits long for the last


@dataclass(frozen=True)
class Group:
    """Networks that are given the same views of the same pixels, whose making they share."""

    preprocess: Preprocess
    views: tuple[str, ...]
    forwards: tuple[Forward, ...]


@dataclass(frozen=True)
class Chunk:
    """What a chunk of n images gave. values: for each member float32 (K, V, n, C), NaN in rows that could not be read.
    unreadable: row -> why."""

    values: list[np.ndarray]
    unreadable: dict[int, str]


def geometry(preprocess: Preprocess) -> Geometry:
    """The sides that the views of this member are cut from."""
    wide = preprocess.cropping.size
    assert wide is not None
    return Geometry(preprocess.image_size, preprocess.decode_size, wide)


def decodings(preprocess: Preprocess, views: Sequence[str]) -> list[Decoding]:
    """What has to be decoded for these views."""
    return list(dict.fromkeys(preprocess.cropping if is_wide(view) else preprocess.decoding for view in views))


def batch_rows(batch_size: int, device: torch.device) -> int:
    """Images per forward pass. Every batch is filled up to this number, since kernels may sum in another order for
    another one, and the same image has to give the same logits whichever batch it comes in. A product of fewer than 16
    rows and a 2-class head differs in its last bit by the place of the row (MKL, seen with 7, 8 and 12 rows)."""
    return CPU_BATCH if device.type == "cpu" else max(batch_size, 16)


def normalise(images: Tensor, preprocess: Preprocess) -> Tensor:
    """uint8 or float32 in [0, 255] (B, 3, S, S), channels_last, to float32 with the member's mean and std."""
    scale, shift = _scale_and_shift(preprocess.mean, preprocess.std, images.shape[-1], images.device)
    rows = images.permute(0, 2, 3, 1).reshape(-1, images.shape[-1] * 3)
    values = rows.to(torch.float32, copy=True).mul_(scale).add_(shift)
    return in_layout(values.view(-1, *images.shape[-2:], 3).permute(0, 3, 1, 2))


@lru_cache(maxsize=64)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """float32 (width * 3,) each. A row of pixels at a time: over three channels alone nothing is vectorised (1.0 ms an
    image of 256 px against 0.2)."""
    each = torch.tensor(std, dtype=torch.float64) * 255
    shift = -torch.tensor(mean, dtype=torch.float64) * 255 / each
    return (1 / each).repeat(width).float().to(device), shift.repeat(width).float().to(device)


def view_of(squares: Squares, preprocess: Preprocess, view: str, rows: slice | Tensor, count: int) -> Tensor:
    """A view of these rows, normalised: float32 (count, 3, S, S), filled up with black squares."""
    part = squares[preprocess.cropping if is_wide(view) else preprocess.decoding][rows]
    if len(part) < count:
        part = torch.cat([part, part.new_zeros(count - len(part), *part.shape[1:])])
    return normalise(cut(part.permute(0, 3, 1, 2), view, geometry(preprocess)), preprocess)


def forward_views(
    group: Group,
    squares: Squares,
    batch: int,
    device: torch.device,
    output: Output = logits_of,
    show: Callable[[float], None] = lambda images: None,
) -> list[np.ndarray]:
    """For each network of the group: logits of each square under each view, float32 (K, V, N, C), or what else `output`
    makes of a batch.

    squares: all decodings that the views need, of the same N rows, at least one. batch: images per pass (see
    `batch_rows`). show: told of images as they are done. Raises torch.OutOfMemoryError.
    """
    count = len(next(iter(squares.values())))
    on_host = any(_device_of(own).type != device.type for own in group.forwards)
    if on_host:
        here = (own if _device_of(own).type == device.type else _brought(own, device) for own in group.forwards)
        group = replace(group, forwards=tuple(here))

    starts = range(0, count, batch)
    # A few images and many networks: the networks are divided too, or most streams would have nothing to do.
    splits = min(len(group.forwards), -(-SHARES * streams(device) // len(starts))) if device.type == "cpu" else 1
    size = -(-len(group.forwards) // splits)
    shares = [group.forwards[first : first + size] for first in range(0, len(group.forwards), size)]

    @torch.inference_mode()
    def work(item: tuple[tuple[Forward, ...], int]) -> list[np.ndarray]:
        forwards, start = item
        rows = slice(start, min(start + batch, count))
        parts: list[list[Tensor]] = [[] for _ in forwards]
        for view in group.views:
            images = view_of(squares, group.preprocess, view, rows, batch)
            formats = {name: images.to(DTYPES[name]) for name in {own.how.dtype for own in forwards}}
            for own, part in zip(forwards, parts, strict=True):
                part.append(output(own, formats[own.how.dtype])[:, : rows.stop - start])
        found = [torch.stack(part, dim=1).cpu().numpy() for part in parts]
        show((rows.stop - start) * len(forwards) / len(group.forwards))
        return found

    done = side_by_side(work, [(share, start) for share in shares for start in starts], device)
    each = [done[index : index + len(starts)] for index in range(0, len(done), len(starts))]
    values = [np.concatenate(parts, axis=2) for own in each for parts in zip(*own, strict=True)]
    if output is logits_of:
        _settle(group, values, squares, batch, device)
    return values


def _settle(group: Group, values: Sequence[np.ndarray], squares: Squares, batch: int, device: torch.device) -> None:
    """Compute the rows again, exactly, in which a faster format cannot tell which class is the largest."""
    items: list[tuple[Forward, str, np.ndarray, np.ndarray]] = []
    for own, found in zip(group.forwards, values, strict=True):
        for view, logits in zip(group.views, found[0], strict=True) if own.fast is not None else ():
            # and those out of the format's range, whose margin is no number
            rows = np.flatnonzero(~(margins(logits) >= own.how.settle) | ~np.isfinite(logits).all(axis=-1))
            items += [(own, view, logits, rows[at : at + batch]) for at in range(0, len(rows), batch)]

    @torch.inference_mode()
    def work(item: tuple[Forward, str, np.ndarray, np.ndarray]) -> None:
        own, view, logits, rows = item
        images = view_of(squares, group.preprocess, view, torch.from_numpy(rows).to(device), batch)
        logits[rows] = logits_of(own, images)[0, : len(rows)].cpu().numpy()

    side_by_side(work, items, device)


def predict_stream(
    members: Sequence[Member],
    chunks: Iterable[Sequence[Source]],
    views: Sequence[Sequence[str]],
    batch_size: int,
    device: torch.device,
    on_bad: str = "error",
    show: Callable[[float], None] = lambda images: None,
) -> Iterator[Chunk]:
    """Logits of chunks of images under each member's own views, a chunk at a time and in order.

    Each image is decoded once for all members, and copied to the device once for all that agree in their decoding; all
    views are made there. On a GPU the next chunk is decoded meanwhile. Memory holds the models and one chunk (two on a
    GPU), however many images there are. on_bad: "error" raises UserError that names an unreadable image; "skip" goes
    on without it. show: told how many images' worth of work was done since it was last told. Where a batch does not
    fit into a GPU's memory, it is halved from then on; raises RunFailure if not even 16 images fit.
    """
    groups = [Group(member.preprocess, tuple(own), member.forwards) for member, own in zip(members, views, strict=True)]
    hows = list(dict.fromkeys(how for group in groups for how in decodings(group.preprocess, group.views)))
    batch = batch_rows(batch_size, device)

    def decode(chunk: Sequence[Source]) -> tuple[dict[Decoding, Tensor], dict[int, str]]:
        return decoded_squares(chunk, hows, device, on_bad)

    for squares, unreadable in ahead(decode, chunks, device):
        placed = {how: own.to(device, non_blocking=True) for how, own in squares.items()}
        count = len(next(iter(placed.values()))) if placed else 0
        while True:
            try:
                values = _chunk_logits(groups, placed, batch, device, show) if count else []
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            if device.type == "cuda":
                torch.cuda.empty_cache()
            if batch <= 16:
                raise RunFailure(f"out of memory with {batch} images at a time; predict on a device with more memory")
            batch = max(16, batch // 2)
        for member in values:
            member[:, :, list(unreadable)] = np.nan
        yield Chunk(values, unreadable)


def _chunk_logits(
    groups: Sequence[Group], squares: Squares, batch: int, device: torch.device, show: Callable[[float], None]
) -> list[np.ndarray]:
    """Each group's logits of a chunk, float32 (K, V, n, C). Networks of all groups that see the same views share them;
    those that had to stay on the host come one after the other."""
    cost = {id(own): len(group.views) for group in groups for own in group.forwards}
    alike: dict[tuple[Preprocess, tuple[str, ...]], list[Forward]] = {}
    for group in groups:
        alike.setdefault((group.preprocess, group.views), []).extend(group.forwards)
    found: dict[int, np.ndarray] = {}
    for (preprocess, views), forwards in alike.items():
        here = [own for own in forwards if _device_of(own).type == device.type]
        for part in [here, *([own] for own in forwards if own not in here)]:
            if part:
                share = sum(cost[id(own)] for own in part) / sum(cost.values())
                group = Group(preprocess, views, tuple(part))
                values = forward_views(group, squares, batch, device, show=lambda n, share=share: show(n * share))  # type: ignore[misc]
                found |= {id(own): own_values for own, own_values in zip(part, values, strict=True)}
    return [np.concatenate([found[id(own)] for own in group.forwards]) for group in groups]


def _device_of(forward: Forward) -> torch.device:
    return next(forward.exact.parameters()).device


def _brought(forward: Forward, device: torch.device) -> Forward:
    """A copy on the device, gone when the chunk is done."""
    exact = copy.deepcopy(forward.exact).to(device)
    fast = None if forward.fast is None else copy.deepcopy(forward.fast).to(device)
    heads = None if forward.heads is None else (forward.heads[0].to(device), forward.heads[1].to(device))
    return Forward(forward.how, exact, fast, heads)
