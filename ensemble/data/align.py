"""Is one thumbnail a copy of another? Turned alike, laid upon each other, and compared in their details.

Two photos of one kind of scene agree in their coarse light and shade, so that decides nothing: what is left of an image
without its blur does. On 240 paintings with 6 planted copies each, the correlation of these details after alignment was
0.85 or more for 99.9% of the true pairs (1,500 of them drawn) and 0.53 at most among 2,737 pairs of different pictures
that look alike (median 0.06, 99% below 0.38).
"""

from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 64
BLUR = 2.0  # px, sigma: detail is what this takes away
ORIENTATIONS = ("same", "hflip", "vflip", "rot90", "rot180", "rot270", "transpose", "transverse")
TEXTURE = 4.0  # grey levels squared: blocks whose details vary less say nothing
BLOCK = 8  # px
ALIKE = 0.6  # correlation of the details of a block that match
DETAIL = 0.6  # of the whole: a copy
SAME_SHARE = 0.6  # of the textured blocks that match: with fewer, parts were drawn over
# One mask drawn on the faces of two people matches in 0.44 to 0.57 of the blocks.
EDITED_SHARE = 0.575
EDITED_DETAIL = 0.45
SURE = 0.9  # no alignment could say more
STEPS = 60
# At half size, after 5 steps, 91% of unlike pairs have less than this, and end there at a fifth of the cost. Of planted
# copies the least had 0.46, and none of 1,291 pairs of masks less than 0.3.
WORTH, HALF_STEPS = 0.3, 5
BLOCKS = 8  # textured blocks without which a picture is too empty to be told from another
# Of 64 blocks. In an emptier picture (a product on white) the outline is most of the detail: guitars of one shop agree
# up to 0.71, 99.9% of planted copies from 0.85 on.
FULL, OUTLINED = 40, 0.8
MOVED = 1.3  # px of 64 that a corner may move before a copy counts as cropped


@dataclass(frozen=True)
class Match:
    """kind: as in `near.Pairs`, of the second image seen from the first. similarity: of the details, 1 is the same."""

    kind: str
    similarity: float


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """One of the 8 flips and turns of (..., S, S), a view. rot90 is counterclockwise."""
    if orientation in (6, 7):
        image = np.swapaxes(image, -1, -2)
        return image if orientation == 6 else image[..., ::-1, ::-1]
    if orientation in (3, 5):
        return np.rot90(image, 1 if orientation == 3 else 3, axes=(-2, -1))
    return image[..., :: -1 if orientation in (2, 4) else 1, :: -1 if orientation in (1, 4) else 1]


def compare(first: np.ndarray, second: np.ndarray, orientation: int, zoom: float) -> Match | None:
    """Two thumbnails, uint8 (64, 64); None if they are different pictures.

    orientation: of `turned`, that makes the first one look like the second. zoom: of the first one at the start, 0.95
    for its middle 95%.
    """
    first = np.ascontiguousarray(turned(first, orientation))
    start = _zoomed(zoom)
    best = _agreement(second, first, start)
    if best[0] < SURE:
        if _at_half_size(second, first, zoom) < WORTH:
            return None
        warp = _aligned(second, first, start, STEPS)
        if warp is not None:
            found = _agreement(second, first, warp)
            if found[0] > best[0]:
                best, start = found, warp
    detail, share, blocks = best
    if blocks < BLOCKS:
        return None
    moved = _moved(start)
    if blocks < FULL and detail < OUTLINED:
        return None
    if share < EDITED_SHARE or detail < EDITED_DETAIL:
        return None
    kind = _kind(orientation, moved) if detail >= DETAIL and share >= SAME_SHARE else "edited"
    return Match(kind, detail)


def _kind(orientation: int, moved: float) -> str:
    if orientation:
        return ORIENTATIONS[orientation]
    return "crop" if moved > MOVED else "re-encoded"


def _at_half_size(template: np.ndarray, image: np.ndarray, zoom: float) -> float:
    """Correlation of the details of thumbnails half as large, hastily aligned and without their borders."""
    half = (SIDE // 2, SIDE // 2)
    one, other = (cv2.resize(given, half, interpolation=cv2.INTER_AREA) for given in (template, image))
    start = _zoomed(zoom, half[0])
    warp = _aligned(one, other, start, HALF_STEPS)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(other, start if warp is None else warp, half, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    first, second = (_details(given)[2:-2, 2:-2].reshape(-1) for given in (one, np.asarray(laid)))
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / np.sqrt(max(float((first @ first) * (second @ second)), 1e-6)))


def _zoomed(zoom: float, side: int = SIDE) -> np.ndarray:
    """The warp, float32 (2, 3), that looks at the middle of an image."""
    shift = (1 - zoom) * (side - 1) / 2
    return np.array([[zoom, 0, shift], [0, zoom, shift]], dtype=np.float32)


def _moved(warp: np.ndarray) -> float:
    """How far the corners move at most, px."""
    corners = np.array([[x, y, 1] for x in (0, SIDE - 1) for y in (0, SIDE - 1)], dtype=np.float64)
    return float(np.linalg.norm(corners @ warp.T - corners[:, :2], axis=1).max())


def _aligned(template: np.ndarray, image: np.ndarray, start: np.ndarray, steps: int) -> np.ndarray | None:
    """The affine warp of template to image coordinates with the greatest correlation (Evangelidis and Psarakis, 2008);
    None where the search runs away."""
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, steps, 1e-4)
    try:
        _, warp = cv2.findTransformECC(
            template, image, start.copy(), cv2.MOTION_AFFINE, stop, np.ones_like(template), 3
        )
    except cv2.error:
        return None
    return np.asarray(warp)


def _agreement(template: np.ndarray, image: np.ndarray, warp: np.ndarray) -> tuple[float, float, int]:
    """Correlation of the details, share of the textured blocks that match, and how many blocks are textured."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (SIDE, SIDE)
    laid = cv2.warpAffine(image, warp, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    seen = cv2.warpAffine(np.ones(size, dtype=np.float32), warp, size, flags=flags) > 0.99
    weight = cv2.erode(seen.astype(np.uint8), np.ones((3, 3), dtype=np.uint8)).astype(np.float32)
    if weight.mean() < 0.4:
        return -1.0, 0.0, 0
    one, other = _details(template), _details(laid)
    count, of_one, of_other = _blocks(weight), _blocks(weight * one), _blocks(weight * other)
    filled = np.maximum(count, 1)
    one_one = _blocks(weight * one * one) - of_one**2 / filled
    other_other = _blocks(weight * other * other) - of_other**2 / filled
    both = _blocks(weight * one * other) - of_one * of_other / filled
    detail = both.sum() / np.sqrt(max(float(one_one.sum() * other_other.sum()), 1e-6))
    textured = (count >= BLOCK**2 / 2) & (np.maximum(one_one, other_other) > TEXTURE * filled)
    local = both[textured] / np.sqrt(np.maximum(one_one * other_other, 1e-6))[textured]
    return float(detail), float((local > ALIKE).mean()) if local.size else 0.0, int(textured.sum())


def _details(image: np.ndarray) -> np.ndarray:
    exact = image.astype(np.float32)
    return exact - np.asarray(cv2.GaussianBlur(exact, (0, 0), BLUR))


def _blocks(values: np.ndarray) -> np.ndarray:
    """Sums over blocks."""
    per = SIDE // BLOCK
    sums: np.ndarray = values.reshape(per, BLOCK, per, BLOCK).sum(axis=(1, 3))
    return sums
