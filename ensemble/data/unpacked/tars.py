"""What tar files hold: a tree of files, or WebDataset's samples (0001.jpg beside 0001.cls), of which a table is made.

A sample's files share their name up to its first point. Of the files beside an image, `.cls` is its label, and the keys
of `.json` and the text of `.txt` are further columns. Nothing is unpickled.
"""

import json
import os
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ensemble.data.folders.listing import is_hidden
from ensemble.data.pixels.formats import IMAGE_ENDINGS
from ensemble.data.unpacked.made_table import made_table
from ensemble.data.unpacked.member import (
    TABLE_NAME,
    Member,
    Packed,
    decoded_names,
    inside,
    require_pictures,
    some,
    unpacking,
)
from ensemble.errors import UserError
from ensemble.plural import pluralize

LABELS, COLUMNS = ("cls", "json"), ("cls", "json", "txt")
SMALL = 2**20  # bytes of a file that may be a cell


@dataclass
class _Split:
    """The files of some tars, by their headers.

    names: of each tar's files, by their places in it.
    nbytes: of all files.
    links: names of those that are left out.
    """

    names: dict[Path, dict[int, str]] = field(default_factory=dict)
    nbytes: int = 0
    links: list[str] = field(default_factory=list)

    @property
    def all_names(self) -> list[str]:
        return [name for names in self.names.values() for name in names.values()]


def read_tars(source: Path, splits: Mapping[str, Sequence[Path]]) -> Packed:
    """What tar files hold.

    source: the file or folder that the user named.
    splits: the tars of each folder of the copy; "" is the copy itself.

    Raises UserError that names the tar, the sample or the file.
    """
    count, nbytes, notes = 0, 0, list[str]()
    read: dict[str, tuple[_Split, bool]] = {}
    for name, files in splits.items():
        split = _Split()
        for file in files:
            notes += _read_headers(file, split)
        if split.links:
            notes.append(f"{source.name}: {pluralize(len(split.links), 'link')} left out ({some(split.links)})")
        require_pictures(source, split.all_names)
        read[name] = split, _has_samples(split.all_names)
        if read[name][1]:
            notes += _notes_on_samples(source, split.all_names)
        count, nbytes = count + len(split.all_names), nbytes + split.nbytes
    tables = [_below(name, TABLE_NAME) for name, (_, sampled) in read.items() if sampled]
    return Packed(count, nbytes, partial(_members, read), tuple(tables), tuple(notes))


def _read_headers(file: Path, split: _Split) -> list[str]:
    with unpacking(file), closing(tarfile.open(file)) as archive:
        members = archive.getmembers()
        at = archive.offset
    whole = _is_ended(file, at)
    raw = [os.fsencode(member.name) for member in members]
    texts = decoded_names(raw, file) if raw else []
    names = {}
    for place, (member, text) in enumerate(zip(members, texts, strict=True)):
        if member.isfile():
            names[place] = inside(text, file)
            split.nbytes += member.size
        elif not member.isdir():
            split.links.append(text)
    split.names[file] = names
    return [] if whole else [f"warning: {file}: has no end mark, so it may have been cut short"]


def _is_ended(file: Path, at: int) -> bool:
    """Whether an unpacked tar ends with a block of zeros, as tar writes it."""
    if file.suffix.lower() != ".tar":
        return True
    with file.open("rb") as stream:
        stream.seek(max(0, at - tarfile.BLOCKSIZE))
        return bytes(tarfile.BLOCKSIZE) in stream.read(2 * tarfile.BLOCKSIZE)


def _members(read: Mapping[str, tuple[_Split, bool]]) -> Iterator[Member]:
    for folder, (split, sampled) in read.items():
        samples: dict[str, dict[str, Any]] = defaultdict(dict)
        images: dict[str, str] = {}
        for file, names in split.names.items():
            with unpacking(file), closing(tarfile.open(file)) as archive:
                for place, member in enumerate(archive):
                    if place not in names:
                        continue
                    name = names[place]
                    key, kind = _key(name)
                    data = archive.extractfile(member)
                    assert data is not None  # it is a file
                    if not sampled:
                        yield Member(_below(folder, name), data)
                    elif _is_image(name):
                        images[key] = name
                        yield Member(_below(folder, name), data)
                    elif kind in COLUMNS and member.size <= SMALL:
                        cells = _cells(data.read(), kind, f"{file}: {name}")
                        samples[key] = cells | samples[key] if kind == "json" else samples[key] | cells
        if sampled:
            rows = [samples[key] for key in images]
            columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(n for row in rows for n in row)}
            yield Member(_below(folder, TABLE_NAME), made_table(list(images.values()), columns))


def _has_samples(names: Sequence[str]) -> bool:
    """Whether the images have labels beside them."""
    keys = {_key(name)[0] for name in names if _is_image(name)}
    return any(key in keys and kind in LABELS for key, kind in map(_key, names))


def _notes_on_samples(source: Path, names: Sequence[str]) -> list[str]:
    """What is left out of samples. Raises UserError for one of several images."""
    of: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if not any(map(is_hidden, name.split("/"))):
            of[_key(name)[0]].append(name)
    several = {key: found for key, files in of.items() if len(found := [n for n in files if _is_image(n)]) > 1}
    for key, found in several.items():
        raise UserError(
            f"{source}: sample {key!r} holds {len(found)} images ({some(found)}); ens takes one image in a sample"
        )
    lines = []
    empty = [key for key, files in of.items() if not any(map(_is_image, files))]
    if empty:
        lines.append(f"warning: {pluralize(len(empty), 'sample')} left out, without an image ({some(empty)})")
    bare = [key for key, files in of.items() if key not in empty and not any(_key(n)[1] in LABELS for n in files)]
    if bare:
        lines.append(f"warning: {pluralize(len(bare), 'sample has', 'samples have')} no .cls ({some(bare)})")
    others = [name for files in of.values() for name in files if not _is_image(name) and _key(name)[1] not in COLUMNS]
    if others:
        lines.append(f"{pluralize(len(others), 'file')} beside the images left out ({some(others)})")
    return lines


def _cells(data: bytes, kind: str, where: str) -> dict[str, Any]:
    try:
        text = data.decode().strip()
        if kind != "json":
            return {"label" if kind == "cls" else kind: text}
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{where}: not the text that a .{kind} holds") from None
    return dict(value) if isinstance(value, dict) else {"json": value}


def _key(name: str) -> tuple[str, str]:
    """The name of a sample, and the last part of the ending: "a/0001" and "cls" of "a/0001.cls"."""
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return folder + slash + stem, ending.rpartition(".")[2].lower()


def _is_image(name: str) -> bool:
    return f".{_key(name)[1]}" in IMAGE_ENDINGS and not any(map(is_hidden, name.split("/")))


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
