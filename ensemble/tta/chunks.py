"""How many images a run's networks predict at a time. Never imports torch."""

from collections.abc import Sequence

from ensemble.data.pixels.preprocess import Preprocess
from ensemble.inference.decodings import decodings

CHUNK_BYTES = 256 * 2**20  # of decoded squares
CHUNK_PASSES = 8192  # of an image through a network, under all its views


def chunk_rows(
    preprocesses: Sequence[Preprocess],
    networks: int,
    batch_size: int,
    device: str,
    views: Sequence[Sequence[str]] = (),
) -> int:
    """How many images to decode, compute and save at a time: so many that their squares fill CHUNK_BYTES, and at most
    1,024. A member's images are decoded at up to two sizes, and at more for those of its views that name a size. On a
    CPU many networks take fewer images, so that a kill costs a minute or two (35 networks and two views: 192 images,
    about 90 s)."""
    needed = {each for preprocess in preprocesses for each in (preprocess.decoding, preprocess.cropping)}
    for preprocess, member_views in zip(preprocesses, views, strict=False):
        needed.update(decodings(preprocess, member_views))
    rows = CHUNK_BYTES // sum(3 * (each.size or 0) ** 2 for each in needed) if needed else 1024
    if device == "cpu":
        rows = min(rows, CHUNK_PASSES // max(networks, 1))
    least = max(batch_size, 64)
    return int(min(max(rows // least, 1) * least, 1024))
