"""Is one thumbnail a copy of another? Turned alike, laid upon each other, and compared in their details.

Two photos of one kind of scene agree in their coarse light and shade, and two things on white in their outlines, so
neither decides. Every pixel is therefore seen against its own surroundings, less their mean and over their contrast
(local contrast normalisation: Jarrett et al., What is the best multi-stage architecture for object recognition?, 2009):
a faint pattern then counts as much as a strong outline, and an empty background not at all. The correlation of what is
left is the similarity. What it is worth was measured on others than it was set with: benchmarks/audit.py.
"""

from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 64
BLUR = 2.0  # px, sigma: detail is what this takes away, where the search for an alignment is cut short
LOCAL = 2.5  # px, sigma: the surroundings of a pixel
FAINT = 1.0  # grey levels: contrasts well below are no content but noise
ORIENTATIONS = ("same", "hflip", "vflip", "rot90", "rot180", "rot270", "transpose", "transverse")
LOOK_ALIKE = "look-alike"
# Of 6,853 pairs of look-alikes drawn for it (persons before one wall, faces on black, one form filled in by others) the
# likest is 0.943; of planted copies of masked faces 95 % and more are above, whatever was done to them.
COPY = 0.945
# Nearly all pairs of masked faces above show one photo, with and without its mask; most below 0.7 are two persons.
ALIKE = 0.75
# Blurred or enlarged pictures have few details to agree by: of 26,101 pairs of digits, enlarged to 64 px, the likest is
# 0.972 (sharpness 0.15; paintings, photos and drawings have 0.31 and more).
SOFT, SOFT_COPY = 0.25, 0.985
CONTENT = 0.1  # share of the area: planted copies of things on white have half
STRETCH = 1.15  # slanted letters are upright ones stretched by 1.22; 99 % of planted copies need less than 1.07
SURE = 0.97  # no alignment could say more
STEPS = 60
# At half size, after 5 steps, 91% of unlike pairs have less than this, and end there at a fifth of the cost. Of planted
# copies the least had 0.46, and none of 1,291 pairs of masks less than 0.3.
WORTH, HALF_STEPS = 0.3, 5
MOVED = 1.3  # px of 64 that a corner may move before a copy counts as cropped


@dataclass(frozen=True)
class Match:
    """How two images are alike.

    kind: of the second image seen from the first, as in `near.Pairs`.
    similarity: 1 for equal pixels.
    """

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
    """Two thumbnails, uint8 (64, 64); None if they are unlike.

    orientation: of `turned`, that makes the first one look like the second. zoom: of the first one at the start, 0.95
    for its middle 95%.
    """
    first = np.ascontiguousarray(turned(first, orientation))
    warp = _zoomed(zoom)
    similarity, content = _agreement(second, first, warp)
    if similarity < SURE:
        if _at_half_size(second, first, zoom) < WORTH:
            return None
        aligned = _aligned(second, first, warp, STEPS)
        if aligned is not None:
            better, its_content = _agreement(second, first, aligned)
            if better > similarity:
                similarity, content, warp = better, its_content, aligned
    if content < CONTENT or similarity < ALIKE:
        return None
    needed = COPY if max(_sharpness(first), _sharpness(second)) >= SOFT else SOFT_COPY
    if similarity < needed or _stretch(warp) > STRETCH:
        return Match(LOOK_ALIKE, similarity)
    return Match(_kind(orientation, _moved(warp)), similarity)


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
    first, second = (_details(given, BLUR)[2:-2, 2:-2].reshape(-1) for given in (one, np.asarray(laid)))
    return _correlation(first, second)


def _zoomed(zoom: float, side: int = SIDE) -> np.ndarray:
    """The warp, float32 (2, 3), that looks at the middle of an image."""
    shift = (1 - zoom) * (side - 1) / 2
    return np.array([[zoom, 0, shift], [0, zoom, shift]], dtype=np.float32)


def _moved(warp: np.ndarray) -> float:
    """How far the corners move at most, px."""
    corners = np.array([[x, y, 1] for x in (0, SIDE - 1) for y in (0, SIDE - 1)], dtype=np.float64)
    return float(np.linalg.norm(corners @ warp.T - corners[:, :2], axis=1).max())


def _stretch(warp: np.ndarray) -> float:
    """How much longer a warp makes one direction than another: 1 for shifts, zooms and turns."""
    longest, shortest = np.linalg.svd(warp[:, :2].astype(np.float64), compute_uv=False)
    return float(longest / max(float(shortest), 1e-6))


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


def _agreement(template: np.ndarray, image: np.ndarray, warp: np.ndarray) -> tuple[float, float]:
    """Correlation of what both show against its surroundings, and the share of the area that has content."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (SIDE, SIDE)
    laid = cv2.warpAffine(image, warp, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    seen = cv2.warpAffine(np.ones(size, dtype=np.float32), warp, size, flags=flags) > 0.99
    inside = cv2.erode(seen.astype(np.uint8), np.ones((3, 3), dtype=np.uint8)) > 0
    if inside.mean() < 0.4:
        return -1.0, 0.0
    (one, contrast), (other, other_contrast) = _against_surroundings(template), _against_surroundings(np.asarray(laid))
    content = float((np.maximum(contrast, other_contrast)[inside] > 2 * FAINT).mean())
    return _correlation(one[inside], other[inside]), content


def _against_surroundings(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel less the mean around it and over the contrast there, and that contrast, float32 (64, 64)."""
    details = _details(image, LOCAL)
    contrast = np.sqrt(np.maximum(np.asarray(cv2.GaussianBlur(details * details, (0, 0), LOCAL)), 0))
    return details / (contrast + FAINT), contrast


def _sharpness(image: np.ndarray) -> float:
    """Share of the finest details: 0.3 to 0.7 in photos, paintings and drawings, 0.15 in what was enlarged 8 times."""
    return float(_details(image, 1.0).std() / max(float(_details(image, 3.0).std()), 1e-3))


def _details(image: np.ndarray, blur: float) -> np.ndarray:
    exact = image.astype(np.float32)
    return exact - np.asarray(cv2.GaussianBlur(exact, (0, 0), blur))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / np.sqrt(max(float((first @ first) * (second @ second)), 1e-6)))
