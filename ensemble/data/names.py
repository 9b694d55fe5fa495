"""Which file each written name means: tables and sample submissions spell names in their own ways.

A name is first taken as it stands, then with less and less of it: without stray spaces, in any case, with any ending,
by its last folders, without leading zeros. The first form that fits some file decides, and must fit exactly one. A file
that another row names more exactly is taken: a missing cat/12.jpg never becomes dog/12.jpg.
"""

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.errors import UserError

# What may stand after the last point of a name and is no part of it: "photo.2019" has no ending.
# fmt: off
ENDINGS = frozenset({
    ".apng", ".arw", ".avif", ".bmp", ".cr2", ".dcm", ".dib", ".dng", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2",
    ".jpe", ".jpeg", ".jpg", ".jxl", ".mpo", ".nef", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff",
    ".webp",
})
# fmt: on
ADDRESS = re.compile(r"^\s*[A-Za-z][A-Za-z0-9+.-]+:/+(?=[^/\s])")  # of Path("https://x") one slash is left
LETTERS_OF_A_DRIVE = 2  # "C:/photos" is a path
LOOKED_AT = 20_000  # names among which the nearest is sought


@dataclass(frozen=True)
class Matched:
    """What N written names mean among the names that there are.

    rows: int64 (N,), -1 where a name means none or several.
    several: of an ambiguous name's position the rows that it could mean.
    notes: a line for each way in which names are written otherwise than the files' own.
    """

    rows: np.ndarray
    several: dict[int, tuple[int, ...]]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Name:
    """A path in its parts.

    folders: the names above.
    stem: the name without its ending.
    ending: ".jpg", or "".
    """

    folders: tuple[str, ...]
    stem: str
    ending: str


def nfc(text: str) -> str:
    """Composed Unicode: macOS stores 한 as three code points, a CSV typed elsewhere as one; ids must agree."""
    return unicodedata.normalize("NFC", text)


def tidy(text: str) -> str:
    """A path as it was meant: composed, with / between its parts, without spaces, quotes or "./" around it."""
    text = nfc(text).strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    text = text.replace("\\", "/")
    if "./" in text or "//" in text:
        text = re.sub(r"^(\./)+", "", re.sub(r"/{2,}", "/", text))
    return text


def is_address(text: str) -> bool:
    """True for https://..., s3://... and their like, also where `Path` has taken a slash away; not for C:/..."""
    found = ADDRESS.match(text)
    return found is not None and found[0].strip().index(":") >= LETTERS_OF_A_DRIVE


def refuse_address(path: str | Path) -> None:
    """Raise UserError for https://... and its like, named as it was typed: `Path` takes one of the slashes away. pandas
    would fetch it."""
    if is_address(str(path)):
        typed = re.sub(r"^([^:/]+):/+", r"\1://", str(path))
        raise UserError(f"{typed} is an address, and ens fetches nothing: download it, and name the file")


def match_names(written: Sequence[str], existing: Sequence[str]) -> Matched:
    """The one of `existing` (relative paths, each once) that each of N written names means."""
    rows = np.full(len(written), -1, dtype=np.int64)
    several: dict[int, tuple[int, ...]] = {}
    taken: set[int] = set()
    exact = {nfc(name): row for row, name in enumerate(existing)}
    open_rows = []
    for row, text in enumerate(written):
        place = exact.get(text, exact.get(nfc(text), exact.get(tidy(text))))
        if place is None:
            open_rows.append(row)
        else:
            rows[row] = place
            taken.add(place)
    if open_rows:
        open_rows = [row for row in open_rows if not is_address(written[row]) and tidy(written[row])]
        files = [parse(nfc(name)) for name in existing]
        names = {row: parse(tidy(written[row])) for row in open_rows}
        for key in FORMS:
            if not open_rows:
                break
            open_rows = _by(key, names, open_rows, files, (rows, several, taken))
        _refuse_shared(written, rows, several)
    return Matched(rows, several, tuple(_lines(written, existing, rows)))


def why_not(written: str, row: int, matched: Matched, existing: Sequence[str]) -> str:
    """Why a name (that of `row`, which has no file in `matched`) means none, and what is nearest; it begins with the
    name."""
    if is_address(written):
        return f"{written!r} is an address, and ens fetches nothing: download it, and write the path of the file"
    if row in matched.several:
        found = [existing[place] for place in matched.several[row]]
        if len(found) == 1:
            return f"{written!r} is not there: the file {found[0]!r} belongs to another row, or two rows mean it"
        return f"{written!r} could be {found[0]!r} or {found[1]!r} ({len(found)} files): write the path in full"
    near = _nearest(tidy(written), existing)
    return f"{written!r} is not there" + (f"; the nearest name is {near!r}" if near is not None else "")


def parse(name: str) -> Name:
    """A path in its parts; string methods, since `PurePosixPath` takes five times as long (100,000 names: 1.2 s)."""
    above, _, last = name.rpartition("/")
    stem, point, end = last.rpartition(".")
    ending = point + end if stem and (point + end).lower() in ENDINGS else ""
    folders = tuple(part for part in above.split("/") if part not in ("", ".", "..")) if above else ()
    return Name(folders, stem if ending else last, ending)


ANY = "/"  # in the place of a folder: no folder is called so
Key = Callable[[Name], str | None]


def _zeros(name: Name) -> str | None:
    """The number that a file is named by. A name that was once a number may end in ".0"."""
    found = re.fullmatch(r"0*(\d+)(\.0)?", name.stem)
    return found[1] if found else None


FORMS: tuple[Key, ...] = (
    lambda name: name.stem + name.ending,
    lambda name: name.stem + name.ending.casefold(),
    lambda name: (name.stem + name.ending).casefold(),
    lambda name: name.stem,
    lambda name: name.stem.casefold(),
    _zeros,
)


def _by(
    key: Key,
    names: dict[int, Name],
    open_rows: Sequence[int],
    files: Sequence[Name],
    found: tuple[np.ndarray, dict[int, tuple[int, ...]], set[int]],
) -> list[int]:
    """Settle the rows whose names fit files in this form; the others are returned. found: rows, several and taken of
    `match_names`, which are added to."""
    rows, several, taken = found
    # By the last folder too: where 1,000 classes have a 001.jpg each, cat/001 is not compared with all of them.
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, file in enumerate(files):
        if (text := key(file)) is not None and (key is not _zeros or file.stem != text):
            places[text, _last(file)].append(place)
            if file.folders:
                places[text, ANY].append(place)
    left, claimed = [], set()
    for row in open_rows:
        name = names[row]
        text = key(name)
        if text is None or (key is _zeros and name.stem.removesuffix(".0") != text):
            left.append(row)
            continue
        ends = (_last(name), "") if name.folders else ("", ANY)
        near = sorted(place for end in ends for place in places.get((text, end), ()))
        fits = [(_common(name.folders, files[place].folders), place) for place in near]
        longest = max((length for length, _ in fits), default=-1)
        best = [place for length, place in fits if length == longest and length >= 0]
        free = [place for place in best if place not in taken]
        if len(free) == 1 == len(best):
            rows[row] = free[0]
            claimed.add(free[0])
        elif best:
            several[row] = tuple(best)
        else:
            left.append(row)
    taken |= claimed
    return left


def _last(name: Name) -> str:
    """The folder that a name lies in, in one case; "" where it names none."""
    return name.folders[-1].casefold() if name.folders else ""


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many last folders two paths share, in any case; -1 unless one of them ends as the whole other does."""
    length = min(len(one), len(other))
    if not length:
        return 0
    ends = ([part.casefold() for part in parts[len(parts) - length :]] for parts in (one, other))
    return length if next(ends) == next(ends) else -1


def _refuse_shared(written: Sequence[str], rows: np.ndarray, several: dict[int, tuple[int, ...]]) -> None:
    """Two names that are unlike and mean one file: neither is sure."""
    of: dict[int, set[str]] = defaultdict(set)
    for row, place in enumerate(rows.tolist()):
        if place >= 0:
            of[place].add(tidy(written[row]))
    shared = {place for place, texts in of.items() if len(texts) > 1}
    for row in np.flatnonzero(np.isin(rows, list(shared))).tolist() if shared else ():
        several[row] = (int(rows[row]),)
        rows[row] = -1


def _lines(written: Sequence[str], existing: Sequence[str], rows: np.ndarray) -> list[str]:
    found: dict[str, list[int]] = defaultdict(list)
    for row, place in enumerate(rows.tolist()):
        if place >= 0 and nfc(written[row]) != nfc(existing[place]):
            found[_difference(written[row], existing[place])].append(row)
    return [
        f"{len(of):,} of {len(written):,} names are written {words}: {written[of[0]]!r} is read as "
        f"{existing[rows[of[0]]]!r}"
        for words, of in found.items()
    ]


def _difference(written: str, existing: str) -> str:
    one, other = parse(tidy(written)), parse(nfc(existing))
    words = []
    if nfc(written) != tidy(written):
        words.append("with backslashes" if "\\" in written else "with spaces or quotes around them")
    if len(one.folders) < len(other.folders):
        words.append("without their folders")
    elif len(one.folders) > len(other.folders):
        words.append("with other folders before them")
    if one.stem != other.stem and one.stem.casefold() != other.stem.casefold():
        words.append("without their leading zeros")
    if one.ending.casefold() != other.ending.casefold():
        words.append("with another ending" if one.ending else "without their ending")
    elif one.ending != other.ending or (one.stem != other.stem and one.stem.casefold() == other.stem.casefold()):
        words.append("in another case")
    return ", ".join(words[:-1]) + " and " * (len(words) > 1) + words[-1] if words else "otherwise"


def _nearest(written: str, existing: Sequence[str]) -> str | None:
    """The name most like it by its last part without the ending."""
    if len(written) > 255:  # prose, from a wrong column
        return None
    stems = {parse(name).stem: name for name in existing[:LOOKED_AT]}
    near = difflib.get_close_matches(parse(written).stem, stems, n=1, cutoff=0.5)
    return stems[near[0]] if near else None
