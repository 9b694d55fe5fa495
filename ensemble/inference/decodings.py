"""Which squares a member's views are cut from, and how images are decoded to them. Never imports torch."""

from collections.abc import Sequence
from dataclasses import replace

from ensemble.data.pixels.preprocess import Decoding, Preprocess
from ensemble.inference.geometry import Geometry
from ensemble.inference.view_names import is_wide, sides_of


def geometry(preprocess: Preprocess) -> Geometry:
    """The sides of the squares that the views of this member are cut from."""
    wide_size = preprocess.cropping.size
    assert wide_size is not None
    return Geometry(preprocess.image_size, preprocess.decode_size, wide_size)


def decodings(preprocess: Preprocess, views: Sequence[str]) -> list[Decoding]:
    """How the images have to be decoded for these views."""
    return list(dict.fromkeys(decoding_of(preprocess, view) for view in views))


def decoding_of(preprocess: Preprocess, view: str) -> Decoding:
    """How an image has to be decoded for a view: larger for a view of a larger size."""
    sides = sides_of(view, geometry(preprocess))
    return replace(preprocess.decoding, size=sides.wide_size if is_wide(view) else sides.decode_size)
