"""Files and images in memory to the squares that views are cut from, on a GPU while it computes the last ones."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from ensemble.data.pixels.decode import Decoding, decode_each, decode_image, middle_square, read
from ensemble.device import one_thread_each, side_by_side
from ensemble.errors import UserError
from ensemble.machine import cores

In = TypeVar("In")
Out = TypeVar("Out")
Source = Path | Image.Image


def decoded_squares(
    sources: Sequence[Source], hows: Sequence[Decoding], device: torch.device, on_bad: str = "error"
) -> tuple[dict[Decoding, Tensor], dict[int, str]]:
    """The middle squares of images, uint8 (n, side, side, 3) on the host, for each way of decoding; and why a row could
    not be read, which is black then. Every image is decoded once for all ways."""
    pin = device.type == "cuda"
    out = {
        how: torch.zeros(len(sources), how.size or 0, how.size or 0, 3, dtype=torch.uint8, pin_memory=pin)
        for how in hows
    }
    arrays = {how: own.numpy() for how, own in out.items()}
    unreadable: dict[int, str] = {}

    def work(row: int) -> None:
        source = sources[row]
        try:
            if isinstance(source, Path):
                images = decode_each(source, read(source), hows)
            else:
                images = [decode_image(source, how) for how in hows]
        except UserError as error:
            if on_bad == "error":
                raise
            unreadable[row] = str(error)
            return
        for how, image in zip(hows, images, strict=True):
            arrays[how][row] = middle_square(image)

    if device.type == "cpu":
        side_by_side(work, range(len(sources)), device)
    else:
        with one_thread_each(cores()) as pool:
            list(pool.map(work, range(len(sources))))
    return out, dict(sorted(unreadable.items()))


def ahead(work: Callable[[In], Out], items: Iterable[In], device: torch.device) -> Iterator[Out]:
    """`work` of each item, on a GPU one item ahead of the reader. On a CPU it would take the cores that compute."""
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
