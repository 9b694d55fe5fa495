"""Augmented batches on the device, the next ones made while the last one is trained on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from ensemble.config import Train
from ensemble.data.pixels.decode import Files, Pixels
from ensemble.device import array_on, free_memory, is_out_of_memory
from ensemble.machine import cores
from ensemble.train.augment.crops import crops, gather
from ensemble.train.augment.policy import Augmentation, Draws, draw

SHARE = 0.5  # of a GPU's free memory that the decoded pixels may take: the rest is the network's
AHEAD = 2  # batches, where a GPU or the reading of files has to be waited for

Item = TypeVar("Item")
Result = TypeVar("Result")
Batch = tuple[torch.Tensor, Draws, np.ndarray]  # uint8 (B, 3, S, S) on the device, its draws, its rows
Cut = Callable[[np.ndarray, Draws, int], torch.Tensor]  # rows, draws, size -> uint8 (B, 3, S, S) on the device


def batches(
    rng: np.random.Generator,
    pixels: Pixels | Files,
    cut: Cut,
    order: np.ndarray,
    size: int,
    settings: Train,
    ahead: int = AHEAD,
    rare: np.ndarray | None = None,
) -> Iterator[Batch]:
    """The batches of rows in `order`, int64 (steps, B), augmented as `settings` say, in one order of chances.

    ahead: how many are made in another thread before they are asked for; 0 makes each when it is. rare: float (N,), of
    all rows of `pixels`, the chance of TrivialAugment (`rare_shares`); None where classes are treated alike.
    """
    drawn = drawer(rng, pixels, size, settings, rare)

    def make(rows: np.ndarray) -> Batch:
        draws = drawn(rows)
        return cut(rows, draws, size), draws, rows

    return made_ahead(make, order, ahead)


def drawer(
    rng: np.random.Generator, pixels: Pixels | Files, size: int, settings: Train, rare: np.ndarray | None = None
) -> Callable[[np.ndarray], Draws]:
    """Draws the chances of the next batch, given its rows. The arguments are those of `batches`."""
    augmentation = Augmentation(
        settings.crop_area, settings.hflip, settings.vflip, settings.rotate, settings.color_jitter,
        settings.trivial_augment, settings.erase,
    )  # fmt: skip
    return lambda rows: draw(rng, pixels.shapes[rows], size, augmentation, None if rare is None else rare[rows])


def made_ahead(make: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """`make` of each item, in their order; so many of them made in another thread before they are asked for."""
    if ahead == 0:
        yield from map(make, items)
        return
    with ThreadPoolExecutor(1, initializer=_alone) as thread:  # only one: the chances have one order
        coming: deque[Future[Result]] = deque()
        try:
            for item in items:
                coming.append(thread.submit(make, item))
                if len(coming) > ahead:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()


def _alone() -> None:
    """Keep torch's operations in this thread to this thread: two teams of threads on the same cores spin while they
    wait for each other."""
    torch.set_num_threads(1)


def far_ahead(pixels: Pixels | Files, device: torch.device) -> int:
    """How many batches to make ahead. None where a CPU cuts them out of cached pixels: the network leaves no core idle,
    and a thread beside it costs more than it hides (resnet18 on 2 cores: now and then a third of the speed)."""
    return 0 if device.type == "cpu" and isinstance(pixels, Pixels) else AHEAD


def cutter(pixels: Pixels | Files, device: torch.device, threads: int) -> Cut:
    """How crops are made: on a GPU out of a copy of all pixels there, if half of its free memory holds them; else on
    the CPU by `threads` threads, and copied out of pinned memory."""
    from_host = _on_cpu(pixels, device, threads)
    if device.type != "cuda" or isinstance(pixels, Files):
        return from_host
    needed = 3 * int(pixels.shapes.prod(axis=1).sum())
    if needed >= SHARE * free_memory(device):  # known before they are copied: they may fill the host too
        return from_host
    flat, starts = pixels.flat()
    everything = torch.from_numpy(flat).to(device)
    begins, shapes = (torch.from_numpy(array).to(device) for array in (starts, pixels.shapes))

    def gathered(rows: np.ndarray, draws: Draws, size: int) -> torch.Tensor:
        try:
            chosen = array_on(rows, device)
            return gather(everything, begins[chosen], shapes[chosen], draws, size)
        except RuntimeError as error:  # the network's step has taken all memory meanwhile, and frees it when it is over
            if not is_out_of_memory(error):
                raise
        return from_host(rows, draws, size)

    return gathered


def _on_cpu(pixels: Pixels | Files, device: torch.device, threads: int) -> Cut:
    # Cached pixels on a CPU take 2 % of the network's time; decoding files, or feeding a GPU, takes all threads.
    several = isinstance(pixels, Files) or device.type == "cuda"
    count = max(threads, cores()) if device.type == "cuda" else threads
    pool = ThreadPoolExecutor(count, initializer=_alone) if several else None

    def from_host(rows: np.ndarray, draws: Draws, size: int) -> torch.Tensor:
        if pool is None:
            return crops(pixels, rows, draws, size).to(device)
        parts = np.array_split(np.arange(len(rows)), min(len(rows), 4 * count))
        done = pool.map(
            lambda part: crops(pixels, rows[part], replace(draws, matrices=draws.matrices[part]), size), parts
        )
        batch = torch.cat(list(done)).contiguous(memory_format=torch.channels_last)
        return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch.to(device)

    return from_host
