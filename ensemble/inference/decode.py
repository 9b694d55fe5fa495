"""From files and images in memory to the squares that views are cut from. A GPU meanwhile computes the last chunk."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from ensemble.data.pixels.decode import Source, middle_squares
from ensemble.data.pixels.preprocess import Decoding
from ensemble.device import one_thread_each, side_by_side
from ensemble.errors import UserError
from ensemble.machine import cores

In = TypeVar("In")
Out = TypeVar("Out")


def decoded_squares(
    sources: Sequence[Source], decodings: Sequence[Decoding], device: torch.device, on_bad: str = "error"
) -> tuple[dict[Decoding, Tensor], dict[int, str]]:
    """The middle squares of n images, each file read once for all decodings.

    Returns for each decoding uint8 (n, side, side, 3) on the host, and for each row that could not be read the reason;
    such a row is black. on_bad: "error" raises UserError that names the image instead.
    """
    pin = device.type == "cuda"
    out = {
        each: torch.zeros(len(sources), each.size or 0, each.size or 0, 3, dtype=torch.uint8, pin_memory=pin)
        for each in decodings
    }
    arrays = {decoding: squares.numpy() for decoding, squares in out.items()}
    unreadable: dict[int, str] = {}

    def work(row: int) -> None:
        source = sources[row]
        try:
            squares = middle_squares(source, decodings)
        except UserError as error:
            if on_bad == "error":
                raise
            unreadable[row] = str(error)
            return
        for decoding, square in zip(decodings, squares, strict=True):
            arrays[decoding][row] = square

    if device.type == "cpu":
        side_by_side(work, range(len(sources)), device)
    else:
        with one_thread_each(cores()) as pool:
            list(pool.map(work, range(len(sources))))
    return out, dict(sorted(unreadable.items()))


def ahead(work: Callable[[In], Out], items: Iterable[In], device: torch.device) -> Iterator[Out]:
    """`work` of each item in order. For a GPU it is done one item ahead of the reader; on a CPU it would take cores
    away from the computing."""
    if device.type == "cpu":
        yield from map(work, items)
        return
    with ThreadPoolExecutor(1) as thread:
        waiting = None
        for item in items:
            following = thread.submit(work, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
