"""Sizes and looks of images: tiny, stretched, enlarged for the network, of one colour, blurred."""

import numpy as np

from ensemble.audit.features import upright
from ensemble.audit.files import has_image
from ensemble.audit.findings import Finding, finding, quantiles
from ensemble.audit.rows import Given, Rows
from ensemble.data.pixels.decode import MAX_ASPECT
from ensemble.data.scan import Scan

LEAST = 4  # px: shorter sides below hold no picture
TINY, TINY_SHARE = 32, 0.25  # px of the shorter side, and its share of the median, below which an image is tiny
STRETCHED = 4  # longer side to shorter, from where the square that networks see is less than a quarter
MIXED = 8  # the 99th percentile of the shorter sides to the 1st, from where sizes are mixed
ENLARGED = 0.8  # of the network's input: shorter sides below lose visibly
CONSTANT = 0.004  # standard deviation of every channel: one step of 256
# Of the set's median sharpness. The least sharp painting of 2,048 has 0.23 of it, the least sharp face of 1,376 0.10.
BLURRED = 0.05


def check_sizes(given: Given, rows: Rows, at: np.ndarray, scan: Scan, side: str) -> list[Finding]:
    """at: row of each of `rows` in `scan`, -1 where there is no file."""
    good = np.flatnonzero(has_image(at, scan))
    if not len(good):
        return []
    widths, heights = (sizes[at[good]] for sizes in upright(scan))
    short, long = np.minimum(widths, heights), np.maximum(widths, heights)

    def named(mask: np.ndarray) -> tuple[np.ndarray, list[str]]:
        order = np.flatnonzero(mask)
        return rows.ids[good[order]], [f"{rows.ids[good[row]]} ({widths[row]}x{heights[row]})" for row in order[:3]]

    median = float(np.median(short))
    tiny = (short < LEAST) | ((short < TINY) & (short < TINY_SHARE * median))
    ids, shown = named(tiny)
    found = finding(
        "tiny", "warning", ids, ("tiny image among larger ones", "tiny images among larger ones"),
        "thumbnails or broken downloads? replace or drop them", side, shown,
    )  # fmt: skip
    ids, shown = named((long >= STRETCHED * short) & ~tiny)
    found += finding(
        "stretched", "warning", ids,
        (f"image more than {STRETCHED} times as long as wide", f"images more than {STRETCHED} times as long as wide"),
        f"networks see the middle square, training crops the middle {MAX_ASPECT}:1; cut them if the object is outside",
        side, shown,
    )  # fmt: skip
    if given.crop is not None:
        height, width = given.crop
        ids, shown = named((widths < width) | (heights < height))
        found += finding(
            "smaller-than-crop", "note", ids,
            (f"image smaller than data.crop = [{height}, {width}]",
             f"images smaller than data.crop = [{height}, {width}]"),
            "they are cut less, and so look larger than the others", side, shown,
        )  # fmt: skip
        short = np.minimum(np.minimum(widths, width), np.minimum(heights, height))
    if given.image_size is not None:
        size = given.image_size
        ids, shown = named((short < ENLARGED * size) & ~tiny)
        found += finding(
            "enlarged", "note", ids,
            (f"image enlarged for data.image_size = {size}", f"images enlarged for data.image_size = {size}"),
            f"half of all shorter sides are below {np.median(short):.0f} px: a smaller image_size is faster" if
            np.median(short) < ENLARGED * size else "none needed, they are few; they look softer than the others",
            side, shown,
        )  # fmt: skip
    low, high = np.quantile(short, [0.01, 0.99])
    if high > MIXED * max(low, 1) and not tiny.any():
        text = f"images of very mixed sizes: 1 % have a shorter side below {low:.0f} px, 1 % above {high:.0f} px"
        found += finding(
            "mixed-sizes", "note", rows.ids[good], (text, text),
            "see that size does not go with the class or the source", side,
            named(short == short.min())[1][:1] + named(short == short.max())[1][:1],
        )  # fmt: skip
    return found


def check_appearance(rows: Rows, at: np.ndarray, scan: Scan, side: str) -> list[Finding]:
    """Images of one colour, and those far less sharp than the rest."""
    good = np.flatnonzero(has_image(at, scan))
    if not len(good):
        return []
    sharpness = scan.sharpness[at[good]]
    plain = (scan.stds[at[good]] < CONSTANT).all(axis=1)
    blurred = (sharpness < BLURRED * np.median(sharpness)) & ~plain
    return [
        *finding(
            "one-colour", "warning", rows.ids[good[plain]], ("image of one colour", "images of one colour"),
            "there is nothing to see: drop them", side,
        ),
        *finding(
            "blurred", "note", rows.ids[good[blurred]],
            ("image far less sharp than the others", "images far less sharp than the others"),
            f"below 1/{1 / BLURRED:.0f} of the usual sharpness: look at them", side,
        ),
    ]  # fmt: skip


def size_quantiles(at: np.ndarray, scan: Scan) -> dict[str, list[float]]:
    good = at[has_image(at, scan)]
    widths, heights = upright(scan)
    return {
        "width": quantiles(widths[good]),
        "height": quantiles(heights[good]),
        "bytes": quantiles(scan.bytes[good]),
    }


def by_class(labels: np.ndarray, at: np.ndarray, scan: Scan) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Median width and height of each class, and its mean red, green and blue of 0 to 1. labels: str (N,)."""
    good = has_image(at, scan)
    widths, heights = upright(scan)
    sizes: dict[str, list[float]] = {}
    colours: dict[str, list[float]] = {}
    for name in sorted(set(labels[good].tolist()) - {""}):
        rows = at[good & (labels == name)]
        sizes[name] = [float(np.median(widths[rows])), float(np.median(heights[rows]))]
        colours[name] = [round(float(value), 4) for value in scan.means[rows].mean(axis=0)]
    return sizes, colours
