"""Views x models over decoded squares. Out-of-fold evaluation and prediction both come through `forward_views`."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ensemble.data.pixels.decode import Source
from ensemble.data.pixels.preprocess import Decoding, Preprocess
from ensemble.device import free_cached_memory, is_out_of_memory, side_by_side, streams
from ensemble.errors import RunFailure
from ensemble.inference.choose_format import margins
from ensemble.inference.decode import ahead, decoded_squares
from ensemble.inference.decodings import decodings
from ensemble.inference.eval_model import EvalModel, exact_logits_of, logits_of
from ensemble.inference.member import LoadedMember
from ensemble.inference.network_input import Squares, view_of
from ensemble.plural import pluralize

Output = Callable[[EvalModel, Tensor], Tensor]  # of normalised images (B, 3, S, S): (K, B, ...)

CPU_BATCH = 16  # images: resnet18 at 224 px is slower by 7 % with 32 and by 8 % with 64
# Fewer images are predicted one at a time where no bits are promised: in bfloat16 that takes up to 2.6 times as long
# for an image as a full batch does (mobilenets at 192 px; in float32 1.0 to 1.3 times).
FEW = 8
SHARES = 4  # pieces of work for each stream, at least, so that none waits long for the last


@dataclass(frozen=True)
class Group:
    """Networks that are given the same views of the same pixels, which are made once for all of them.

    preprocess: how images are decoded and normalised
    views: V names of single views
    eval_models: the networks, which give the logits of K folds in all
    """

    preprocess: Preprocess
    views: tuple[str, ...]
    eval_models: tuple[EvalModel, ...]


@dataclass(frozen=True)
class Chunk:
    """The logits of a chunk of n images.

    values: for each member float32 (K, V, n, C), NaN in rows that could not be read
    unreadable: for each such row the reason
    """

    values: list[np.ndarray]
    unreadable: dict[int, str]


def batch_rows(batch_size: int, device: torch.device) -> int:
    """Images per forward pass. Every batch is filled up to this number: kernels may sum in another order for another
    batch size, and the same image has to give the same logits whichever batch it comes in. With fewer than 16 rows the
    product with a 2-class head differs in its last bit by the place of the row (MKL, seen with 7, 8 and 12 rows)."""
    return CPU_BATCH if device.type == "cpu" else max(batch_size, 16)


def forward_views(
    group: Group,
    squares: Squares,
    batch: int,
    device: torch.device,
    output: Output = logits_of,
    advance: Callable[[float], None] = lambda images: None,
) -> list[np.ndarray]:
    """For each network of the group the logits of each square under each view, float32 (K, V, N, C), or what `output`
    makes of a batch instead. See `forward_groups`."""
    return forward_groups([group], squares, batch, device, output, advance)[0]


def forward_groups(
    groups: Sequence[Group],
    squares: Squares,
    batch: int,
    device: torch.device,
    output: Output = logits_of,
    advance: Callable[[float], None] = lambda images: None,
) -> list[list[np.ndarray]]:
    """For each group and each of its networks the logits of each square under each view, float32 (K, V, N, C), or what
    `output` makes of a batch instead. On a CPU the networks of all groups share its threads.

    squares: all decodings that the views need, of the same N >= 1 rows
    batch: images per forward pass, see `batch_rows`. With 1, threads that would have no network to compute help with
        another's, which may change the last bits
    advance: called with the number of images that were done since it was last called, from several threads

    Raises torch.OutOfMemoryError.
    """
    count = len(next(iter(squares.values())))
    groups = [_placed(group, device) for group in groups]
    passes = sum(len(group.views) * len(group.eval_models) for group in groups)
    starts = range(0, count, batch)
    items = [
        (group, share, start) for group in groups for share in _shares(group, len(starts), device) for start in starts
    ]

    @torch.inference_mode()
    def work(item: tuple[Group, tuple[EvalModel, ...], int]) -> list[np.ndarray]:
        group, eval_models, start = item
        rows = slice(start, min(start + batch, count))
        parts: list[list[Tensor]] = [[] for _ in eval_models]
        for view in group.views:
            images = view_of(squares, group.preprocess, view, rows, batch)
            in_dtype = {dtype: images.to(dtype) for dtype in {each.inference.input_dtype for each in eval_models}}
            for eval_model, part in zip(eval_models, parts, strict=True):
                part.append(output(eval_model, in_dtype[eval_model.inference.input_dtype])[:, : rows.stop - start])
        stacked = [torch.stack(part, dim=1).cpu().numpy() for part in parts]
        advance((rows.stop - start) * len(group.views) * len(eval_models) / passes)
        return stacked

    done = iter(side_by_side(work, items, device, share_threads=batch == 1))
    values = []
    for group in groups:
        of_shares = [[next(done) for _ in starts] for _ in _shares(group, len(starts), device)]
        values.append([np.concatenate(parts, axis=2) for batches in of_shares for parts in zip(*batches, strict=True)])
    if output is logits_of:
        _recompute_near_ties(groups, values, squares, batch, device)
    return values


def _placed(group: Group, device: torch.device) -> Group:
    """The group with copies on the device of those networks that lie elsewhere, which are freed with it."""
    placed = (
        eval_model if _device_of(eval_model).type == device.type else _copied_to(eval_model, device)
        for eval_model in group.eval_models
    )
    return replace(group, eval_models=tuple(placed))


def _shares(group: Group, batches: int, device: torch.device) -> list[tuple[EvalModel, ...]]:
    """The group's networks, divided where there are few batches: most streams would have nothing to do else."""
    count = len(group.eval_models)
    splits = min(count, -(-SHARES * streams(device) // batches)) if device.type == "cpu" else 1
    size = -(-count // splits)
    return [group.eval_models[first : first + size] for first in range(0, count, size)]


def _recompute_near_ties(
    groups: Sequence[Group],
    values: Sequence[Sequence[np.ndarray]],
    squares: Squares,
    batch: int,
    device: torch.device,
) -> None:
    """Compute those rows again in float32 in which a faster format cannot tell which class has the largest logit."""
    items: list[tuple[Preprocess, EvalModel, str, np.ndarray, np.ndarray]] = []
    for group, of_group in zip(groups, values, strict=True):
        for eval_model, of_views in zip(group.eval_models, of_group, strict=True):
            for view, logits in zip(group.views, of_views[0], strict=True) if eval_model.fast is not None else ():
                # Logits out of the format's range count too: their margin is NaN.
                is_near = ~(margins(logits) >= eval_model.inference.settle) | ~np.isfinite(logits).all(axis=-1)
                rows = np.flatnonzero(is_near)
                parts = [rows[at : at + batch] for at in range(0, len(rows), batch)]
                items += [(group.preprocess, eval_model, view, logits, part) for part in parts]

    @torch.inference_mode()
    def work(item: tuple[Preprocess, EvalModel, str, np.ndarray, np.ndarray]) -> None:
        preprocess, eval_model, view, logits, rows = item
        images = view_of(squares, preprocess, view, torch.from_numpy(rows).to(device), batch)
        logits[rows] = exact_logits_of(eval_model, images)[0, : len(rows)].cpu().numpy()

    side_by_side(work, items, device, share_threads=batch == 1)


def predict_stream(
    members: Sequence[LoadedMember],
    chunks: Iterable[Sequence[Source]],
    views: Sequence[Sequence[str]],
    batch_size: int,
    device: torch.device,
    on_bad: str = "error",
    advance: Callable[[float], None] = lambda images: None,
    one_by_one: bool = False,
) -> Iterator[Chunk]:
    """Logits of chunks of images, each member under its views, one chunk at a time and in order.

    Each image is decoded once for all members, and copied to the device once for all members that share a decoding; all
    views are made there. On a GPU the next chunk is decoded meanwhile. Memory holds the models and one chunk (two on a
    GPU), however many images there are. Where a batch does not fit into a GPU's memory, it is halved from then on.

    views: those of each member
    batch_size: images per forward pass, as far as `batch_rows` takes it
    on_bad: "error" raises UserError that names an unreadable image; "skip" goes on without it
    advance: called with the number of images' worth of work done since it was last called, from several threads
    one_by_one: on a CPU, no batch is filled up, and each image is a batch of its own: the answer comes sooner for fewer
        than `FEW` images, and may differ in its last bits

    Raises RunFailure if not even 16 images fit into the memory.
    """
    groups = [
        Group(member.preprocess, tuple(member_views), member.eval_models)
        for member, member_views in zip(members, views, strict=True)
    ]
    needed = list(dict.fromkeys(each for group in groups for each in decodings(group.preprocess, group.views)))
    batch = 1 if one_by_one and device.type == "cpu" else batch_rows(batch_size, device)

    def decode(chunk: Sequence[Source]) -> tuple[dict[Decoding, Tensor], dict[int, str]]:
        return decoded_squares(chunk, needed, device, on_bad)

    for squares, unreadable in ahead(decode, chunks, device):
        count = len(next(iter(squares.values()))) if squares else 0
        while True:
            try:
                placed = {decoding: pixels.to(device, non_blocking=True) for decoding, pixels in squares.items()}
                values = _chunk_logits(groups, placed, batch, device, advance) if count else []
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            free_cached_memory(device)
            if batch <= 16:
                raise RunFailure(
                    f"out of memory with {pluralize(batch, 'image')} at a time; predict on a device with more memory"
                )
            batch = max(16, batch // 2)
        for member in values:
            member[:, :, list(unreadable)] = np.nan
        yield Chunk(values, unreadable)


def _chunk_logits(
    groups: Sequence[Group], squares: Squares, batch: int, device: torch.device, advance: Callable[[float], None]
) -> list[np.ndarray]:
    """Each group's logits of a chunk, float32 (K, V, n, C). Views are made once for all groups that need the same ones;
    networks that had to stay on the host are run one after the other."""

    def advance_by(share: float) -> Callable[[float], None]:
        return lambda images: advance(images * share)

    of_views: dict[tuple[Preprocess, tuple[str, ...]], list[EvalModel]] = {}
    for group in groups:
        of_views.setdefault((group.preprocess, group.views), []).extend(group.eval_models)
    together, alone = [], []
    for (preprocess, views), eval_models in of_views.items():
        on_device = tuple(eval_model for eval_model in eval_models if _device_of(eval_model).type == device.type)
        if on_device:
            together.append(Group(preprocess, views, on_device))
        alone += [Group(preprocess, views, (each,)) for each in eval_models if each not in on_device]

    passes = sum(len(group.views) * len(group.eval_models) for group in groups)
    logits: dict[int, np.ndarray] = {}
    for part in [together, *([group] for group in alone)]:
        share = sum(len(group.views) * len(group.eval_models) for group in part) / passes
        for group, values in zip(
            part, forward_groups(part, squares, batch, device, advance=advance_by(share)), strict=True
        ):
            logits |= {id(eval_model): array for eval_model, array in zip(group.eval_models, values, strict=True)}
    return [np.concatenate([logits[id(eval_model)] for eval_model in group.eval_models]) for group in groups]


def _device_of(eval_model: EvalModel) -> torch.device:
    return next(eval_model.exact.parameters()).device


def _copied_to(eval_model: EvalModel, device: torch.device) -> EvalModel:
    """A copy on the device, which is freed when the chunk is done."""
    exact = copy.deepcopy(eval_model.exact).to(device)
    fast = copy.deepcopy(eval_model.fast).to(device) if isinstance(eval_model.fast, torch.nn.Module) else None
    heads = None if eval_model.heads is None else tuple(copy.deepcopy(head).to(device) for head in eval_model.heads)
    return EvalModel(eval_model.inference, exact, fast, heads)
