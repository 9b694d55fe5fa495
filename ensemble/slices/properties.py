"""Properties of image files: what their headers and pixels show without a network. Never imports torch."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import ExifTags

from ensemble.audit.features import upright
from ensemble.data.copies.ties import scan_folder
from ensemble.data.pixels.open_image import open_image
from ensemble.data.scan import Scan, scan
from ensemble.events import Events
from ensemble.machine import cores
from ensemble.progress import paced
from ensemble.slices.rules import Candidate, of_numbers, of_values

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
NUMBERS = {  # how each is written
    "shorter side": "{:.0f} px",
    "width / height": "{:.2f}",
    "bytes a pixel": "{:.2f}",
    "brightness": "{:.2f}",
    "contrast": "{:.2f}",
    "sharpness": "{:.3g}",
}
CHUNK = 256  # files between two reports
MAKE, MODEL = ExifTags.Base.Make, ExifTags.Base.Model


def image_properties(paths: Sequence[Path], cache: str, events: Events) -> dict[str, np.ndarray]:
    """Each property of N images by its name: float64 (N,), NaN where unknown, or str (N,), "" where unknown.

    cache: `data.cache`, where scans are remembered.
    """
    with scan_folder(cache) as folder:
        seen = scan(paths, folder, events)
        found = _of_pixels(seen)
    advance = paced(events, "reading the cameras", 0, len(paths))
    cameras: list[str] = []
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(paths), CHUNK):
            cameras += pool.map(camera, paths[start : start + CHUNK])
            advance(len(cameras) - start)
    return {**found, "file type": seen.formats, "mode": seen.modes, "camera": np.array(cameras, dtype=np.str_)}


def camera(path: Path) -> str:
    """Maker and model as EXIF has them; "" where it says none, or can't be read."""
    try:
        with open_image(path) as image:
            tags = image.getexif()
            make, model = (str(tags.get(tag, "")).strip(" \0") for tag in (MAKE, MODEL))
    except Exception:  # Pillow's plugins raise whatever a broken file leads them to
        return ""
    return model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()


def property_slices(found: dict[str, np.ndarray], min_size: int) -> tuple[list[Candidate], list[str]]:
    """The slices of `image_properties` that are looked at, and a line on the properties that have none."""
    slices: list[Candidate] = []
    left = []
    for name, values in found.items():
        if name in NUMBERS:
            of_property = of_numbers("image", name, values, NUMBERS[name], min_size)
        else:
            of_property = of_values("image", name, values, min_size)
        slices += of_property
        if not of_property:
            left.append(name)
    return slices, [f"not looked at, since nearly all images have the same or none: {', '.join(left)}"] if left else []


def _of_pixels(seen: Scan) -> dict[str, np.ndarray]:
    widths, heights = upright(seen)
    is_whole = np.array([error is None for error in seen.errors], dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = (
            np.minimum(widths, heights),
            widths / heights,
            seen.bytes / (widths * heights),
            seen.means @ np.array(LUMA),
            seen.stds.mean(axis=1),
            seen.sharpness,
        )
    return {name: np.where(is_whole, column, np.nan) for name, column in zip(NUMBERS, columns, strict=True)}
