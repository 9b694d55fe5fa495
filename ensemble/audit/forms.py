"""What forms the pixels have: modes, depths, animations, orientations; and the rules by which odd ones are read."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from ensemble.audit.findings import Finding, finding
from ensemble.audit.rows import Rows
from ensemble.data.scan import Scan


def check_forms(rows: Rows, good: np.ndarray, at: np.ndarray, scan: Scan, side: str) -> list[Finding]:
    """Colour modes, animations and orientations; those of most images are the set's own way and not a finding.

    good: the rows that have an image. at: row of each of `rows` in `scan`, int64 (N,).
    """
    modes = scan.modes[at[good]]
    frames = scan.frames[at[good]] > 1
    rules = [text.split(",") for text in scan.rules[at[good]].tolist()]

    def of(*names: str) -> np.ndarray:
        return np.isin(modes, names)

    def by(rule: str) -> np.ndarray:
        return np.array([rule in each for each in rules], dtype=bool)

    depths = np.array([next((rule for rule in each if rule.endswith("-bit")), "") for each in rules], dtype=str)
    deep = depths != ""
    grey = of("L", "1", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
    alpha, palette = of("RGBA", "LA", "PA", "La", "RGBa") & ~by("fourth-band"), of("P", "PA")
    print_modes = of("CMYK", "LAB", "YCbCr", "HSV")
    turned = scan.orientations[at[good]] > 1
    kinds: list[tuple[str, np.ndarray, tuple[str, str], str]] = [
        ("cmyk", print_modes, ("image in CMYK, or another space for print",
         "images in CMYK, or another space for print"), "made RGB without a colour profile; convert for exact colours"),
        ("alpha", alpha, ("image with transparency", "images with transparency"), "ens lays them on white"),
        ("16-bit", deep, ("image of 16 bits or more per channel", "images of 16 bits or more per channel"),
         "none needed: scaled to 8"),
        ("min-is-white", by("min-is-white"), ("TIFF whose 0 is white", "TIFFs whose 0 is white"),
         "none needed: ens inverts them, in training and prediction; other programs may not"),
        ("palette", palette, ("image with a palette", "images with a palette"), "none needed: made RGB"),
        ("animation", frames, ("file of several frames or pages", "files of several frames or pages"),
         "ens takes the first; save the others as files of their own if they count"),
    ]  # fmt: skip
    found = []
    for kind, mask, words, advice in kinds:
        if mask.sum() <= len(good) / 2:
            found += finding(kind, "note", rows.ids[good[mask]], words, advice, side)
    if 0 < grey.sum() <= len(good) / 2:
        found += finding(
            "grey", "note", rows.ids[good[grey]], ("grey image among colour ones", "grey images among colour ones"),
            "none needed: made RGB; see that it is not one class or one source", side,
        )  # fmt: skip
    if turned.any():
        found += finding(
            "turned", "note", rows.ids[good[turned]], ("image that EXIF turns", "images that EXIF turns"),
            "none needed: ens turns them upright, in training and prediction; other programs may not", side,
        )  # fmt: skip
    return found + _by_rules(rows.ids[good], depths, by, side)


def _by_rules(ids: np.ndarray, depths: np.ndarray, by: Callable[[str], np.ndarray], side: str) -> list[Finding]:
    """What was read by a rule that may be wrong for it, however many images it concerns."""
    kinds: list[tuple[str, str, tuple[str, str], str]] = [
        ("fourth-band", "warning", ("image of four bands that states no transparency",
         "images of four bands that state no transparency"), "ens takes three as RGB and leaves the fourth out"),
        ("clear", "warning", ("image that is transparent throughout", "images that are transparent throughout"),
         "ens lays them on white and nothing shows; save them without transparency"),
        ("alpha-0-1", "note", ("image whose transparency is only 0 or 1", "images whose transparency is only 0 or 1"),
         "none needed: ens takes 1 for opaque"),
        ("no-end-marker", "note", ("JPEG that lacks its end marker alone", "JPEGs that lack their end marker alone"),
         "none needed: the picture is whole; other programs may refuse it"),
        ("odd-exif", "note", ("image whose EXIF states an orientation that doesn't exist",
         "images whose EXIF states an orientation that doesn't exist"), "ens takes them as they are stored"),
    ]  # fmt: skip
    found = []
    for kind, level, words, advice in kinds:
        found += finding(kind, level, ids[by(kind)], words, advice, side)
    counts = Counter(depths[depths != ""].tolist())
    narrow = np.isin(depths, ("", "16-bit", "32-bit"), invert=True)
    listed = ", ".join(f"{depth}: {count}" for depth, count in counts.most_common())
    return found + finding(
        "bit-depth", "note" if len(counts) == 1 else "warning", ids[narrow],
        ("image that uses only some of its 16 or 32 bits", "images that use only some of their 16 or 32 bits"),
        f"ens scales each by the bits that its header states or its largest value needs ({listed}); one that is merely "
        "dark comes out too bright: save it with 8 bits", side,
    )  # fmt: skip
