"""What is wrong with the files themselves: not there, unreadable, or other than they seem."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ensemble.audit.findings import Finding, finding
from ensemble.audit.forms import check_forms
from ensemble.audit.rows import Rows
from ensemble.data.pixels.formats import IMAGE_ENDINGS
from ensemble.data.scan import Scan
from ensemble.escape import shortened

FORMATS = {
    ".avif": {"AVIF"}, ".bmp": {"BMP", "DIB"}, ".gif": {"GIF"}, ".jfif": {"JPEG", "MPO"}, ".jpeg": {"JPEG", "MPO"},
    ".jpg": {"JPEG", "MPO"}, ".pgm": {"PPM"}, ".png": {"PNG"}, ".ppm": {"PPM"}, ".tif": {"TIFF"}, ".tiff": {"TIFF"},
    ".webp": {"WEBP"},
}  # fmt: skip
CUT_SHORT = ("truncated", "unexpected end", "premature", "broken data stream", "incomplete")
NOT_AN_IMAGE = (
    (b"<!doctype", "an HTML page"), (b"<html", "an HTML page"), (b"<?xml", "XML"), (b"{", "JSON"), (b"%pdf", "a PDF"),
    (b"version https://git-lfs", "a Git LFS pointer"), (b"pk\x03\x04", "a zip"),
)  # fmt: skip


def check_files(rows: Rows, at: np.ndarray, scan: Scan, side: str) -> list[Finding]:
    """at: row of each of `rows` in `scan`, int64 (N,), -1 where there is no file."""
    return [*_missing(rows, at, side), *_broken(rows, at, scan, side), *_unlike_their_ending(rows, at, scan, side),
            *check_forms(rows, np.flatnonzero(has_image(at, scan)), at, scan, side), *_others(rows, side)]  # fmt: skip


def check_test_ids(test: Rows) -> list[Finding]:
    """Test images that are listed more than once."""
    counts = Counter(test.ids.tolist())
    return finding(
        "repeated-path", "error", [id for id, count in counts.items() if count > 1],
        ("image that is listed more than once", "images that are listed more than once"),
        "keep one row of each: ens tta-predict joins by id", "test",
    )  # fmt: skip


def has_image(at: np.ndarray, scan: Scan) -> np.ndarray:
    """True for rows whose image can be decoded, bool (N,)."""
    whole = np.array([*(error is None for error in scan.errors), False], dtype=bool)
    return np.asarray((at >= 0) & whole[at])


def _missing(rows: Rows, at: np.ndarray, side: str) -> list[Finding]:
    return finding(
        "missing-file", "error", rows.ids[at < 0], ("row without its file", "rows without their files"),
        "restore the files, or drop the rows (--fix)" if side == "train" else "restore the files, or drop the rows",
        side,
    )  # fmt: skip


def _broken(rows: Rows, at: np.ndarray, scan: Scan, side: str) -> list[Finding]:
    empty, short, other = [], [], []
    for row in np.flatnonzero((at >= 0) & ~has_image(at, scan)):
        error = scan.errors[at[row]] or ""
        if scan.bytes[at[row]] == 0:
            empty.append(row)
        elif any(word in error.lower() for word in CUT_SHORT):
            short.append(row)
        else:
            other.append(row)
    advice = "fetch them again, or drop them (--fix)" if side == "train" else "fetch them again, or --on-bad skip"
    reasons = [
        f"{rows.ids[row]} ({_what_it_is(rows.files[row]) or shortened(scan.errors[at[row]] or '')})"
        for row in other[:3]
    ]
    return [
        *finding("empty-file", "error", rows.ids[empty], ("empty file", "empty files"), advice, side),
        *finding("truncated", "error", rows.ids[short], ("image cut short", "images cut short"), advice, side),
        *finding(
            "unreadable", "error", rows.ids[other],
            ("file that is no readable image", "files that are no readable images"), advice, side, reasons,
        ),
    ]  # fmt: skip


def _unlike_their_ending(rows: Rows, at: np.ndarray, scan: Scan, side: str) -> list[Finding]:
    odd = [
        row
        for row in np.flatnonzero(has_image(at, scan))
        if (file := rows.files[row]) is not None
        and scan.formats[at[row]] not in FORMATS.get(file.suffix.lower(), {scan.formats[at[row]]})
    ]
    return finding(
        "other-format", "note", rows.ids[odd], ("image of another format than its ending says", "images of another "
        "format than their endings say"), "none needed: ens goes by the content; other programs may not", side,
        [f"{rows.ids[row]} ({scan.formats[at[row]]})" for row in odd[:3]],
    )  # fmt: skip


def _others(rows: Rows, side: str) -> list[Finding]:
    """Files below a folder that are left out: pictures of other endings, hidden ones, and the rest by their endings.
    And folders that are named like images; one that is a class without images is told as such."""
    listing = rows.listing
    if listing is None:
        return []

    def names(paths: Iterable[Path]) -> list[str]:
        return [path.relative_to(rows.source).as_posix() for path in paths]

    folders = [path for path in listing.empty if path.suffix.lower() in IMAGE_ENDINGS and path not in rows.bare]
    endings = Counter(file.suffix.lower() or "no ending" for file in listing.no_pictures).most_common(3)
    return [
        *finding(
            "left-out-picture", "warning", names(listing.other_pictures),
            ("picture that is left out for its ending", "pictures that are left out for their endings"),
            "convert them to JPEG or PNG", side,
        ),
        *finding(
            "left-out-folder", "warning", names(folders),
            ("folder that is named like an image and holds none", "folders that are named like images and hold none"),
            "fetch the images again, or remove the folders", side,
        ),
        *finding(
            "linked-folder", "warning", names(listing.turned),
            ("linked folder that is not followed", "linked folders that are not followed"),
            "each leads back up, or to a folder that is read already; remove the links", side,
        ),
        *finding(
            "left-out-file", "note", names(listing.no_pictures),
            ("file that is no image", "files that are no images"),
            "none needed: left out", side, [f"{count} x {ending}" for ending, count in endings],
        ),
        *finding(
            "hidden", "note", names(listing.hidden_images), ("hidden image", "hidden images"),
            "left out; macOS's ._ files can be deleted, rename others without the dot", side,
        ),
    ]  # fmt: skip


def _what_it_is(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        with file.open("rb") as stream:
            start = stream.read(64).lstrip().lower()
    except OSError:
        return None
    return next((name for magic, name in NOT_AN_IMAGE if start.startswith(magic)), None)
