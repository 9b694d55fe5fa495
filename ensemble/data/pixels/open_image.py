"""Opening an image file with the decoders that ens uses, under ens's own limit of pixels instead of Pillow's.

Pillow's limit, the global `Image.MAX_IMAGE_PIXELS`, names no file when it warns and refuses at twice its value what
ENS_MAX_PIXELS may allow. It is lifted only while ens has an image open, since a program that imports ens may rely on
it.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from ensemble.data.pixels.formats import decoders


@dataclass
class _Lifted:
    """users: how many threads are within `without_pillow_limit`. limit: what the first of them found, pixels."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    limit: int | None = None


_lifted = _Lifted()


@contextmanager
def without_pillow_limit() -> Iterator[None]:
    """Lift Pillow's limit of pixels: for all threads, until the last one that is in such a block leaves it."""
    with _lifted.lock:
        if _lifted.users == 0:
            _lifted.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _lifted.users += 1
    try:
        yield
    finally:
        with _lifted.lock:
            _lifted.users -= 1
            if _lifted.users == 0 and Image.MAX_IMAGE_PIXELS is None:  # else the program has set another one meanwhile
                Image.MAX_IMAGE_PIXELS = _lifted.limit


@contextmanager
def open_image(source: Path | BinaryIO, formats: Sequence[str] = ()) -> Iterator[Image.Image]:
    """The image in a file, its header read, for what is done with it in the block. formats: Pillow's names of those to
    try; none: all that ens decodes. Whoever loads the pixels asks `files.limits.too_many_pixels` first. Raises whatever
    Pillow's plugins raise for a broken file."""
    with without_pillow_limit(), Image.open(source, formats=tuple(formats) or decoders()) as image:
        yield image
