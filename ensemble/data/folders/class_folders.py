"""Folders that hold images, as a tree, and which of them are classes: by patterns such as "train/*" and "!test"."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ensemble.data.folders.listing import Listing
from ensemble.data.names import nfc
from ensemble.errors import UserError


@dataclass(frozen=True)
class Folder:
    """A folder with images in it or below it.

    path: of it.
    direct: how many images lie directly in it.
    total: how many lie in it and below it.
    inner: the folders in it that hold images, by name, sorted.
    """

    path: Path
    direct: int
    total: int
    inner: dict[str, "Folder"]

    @property
    def core(self) -> "Folder":
        """Itself, or what it merely wraps: seg_train/seg_train."""
        folder = self
        while not folder.direct and len(folder.inner) == 1:
            (only,) = folder.inner.values()
            if not only.inner:
                break
            folder = only
        return folder

    @property
    def nests(self) -> bool:
        """True if it could itself be a folder of class folders."""
        return not self.core.direct and len(self.core.inner) > 1


def tree(listing: Listing, apart: Path | None = None) -> Folder:
    """The folders that hold images, from `listing.folder` on. apart: a folder that is passed over."""
    counts = Counter(image.parent for image in listing.images)
    if apart is not None:
        counts = Counter({path: count for path, count in counts.items() if apart not in (path, *path.parents)})
    places = [(folder.relative_to(listing.folder).parts, count) for folder, count in sorted(counts.items())]
    return _grow(listing.folder, places)


def class_folders(top: Folder, patterns: Sequence[str]) -> dict[Path, str]:
    """The folders that `patterns` choose, and the class of each: its name. "train/*" are the folders in train; one
    that begins with "!" takes folders away again.

    A folder that holds images alone has none. Raises UserError for a pattern that no folder with images matches, and
    for class folders inside of each other.
    """
    chosen: dict[Path, str] = {}
    if not top.inner:
        return chosen
    for pattern in patterns:
        wanted = pattern.removeprefix("!").strip("/").split("/")
        found = {folder.path: nfc(folder.path.name.strip()) for folder in _matches(top, wanted)}
        if not found:
            raise UserError(f"{top.path}: no folder with images matches {pattern!r} of --classes (data.classes)")
        if pattern.startswith("!"):
            chosen = {path: name for path, name in chosen.items() if path not in found}
        else:
            chosen |= found
    for path in chosen:
        if above := next((other for other in path.parents if other in chosen), None):
            raise UserError(f"{path}: lies in {above}, and --classes (data.classes) names both as class folders")
    return chosen


def labels_of(images: Sequence[Path], folders: dict[Path, str]) -> list[str]:
    """The class of each image by `class_folders`, "" where it lies outside of them."""
    known: dict[Path, str] = {}
    for image in images:
        place = image.parent
        if place not in known:
            known[place] = next((folders[path] for path in (place, *place.parents) if path in folders), "")
    return [known[image.parent] for image in images]


def bare_folders(listing: Listing, patterns: Sequence[str]) -> tuple[Path, ...]:
    """Folders without an image that `class_folders` would take for classes."""
    return tuple(path for path in listing.empty if _matching(path.relative_to(listing.folder).parts, patterns))


def outside(listing: Listing, labels: Sequence[str]) -> list[str]:
    """A line on the images of a listing that are of no class. labels: as `labels_of` gives them."""
    loose = [image for image, label in zip(listing.images, labels, strict=True) if not label]
    if not loose:
        return []
    return [f"not trained on: {len(loose):,} images outside of the class folders ({listing.some(loose)})"]


def _grow(path: Path, places: list[tuple[tuple[str, ...], int]]) -> Folder:
    direct, inner = 0, dict[str, list[tuple[tuple[str, ...], int]]]()
    for parts, count in places:
        if parts:
            inner.setdefault(parts[0], []).append((parts[1:], count))
        else:
            direct += count
    folders = {name: _grow(path / name, inner[name]) for name in sorted(inner)}
    return Folder(path, direct, direct + sum(folder.total for folder in folders.values()), folders)


def _matching(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    taken = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!").strip("/").split("/")
        if len(wanted) == len(parts) and all(map(_fits, parts, wanted)):
            taken = not pattern.startswith("!")
    return taken


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(nfc(name), nfc(pattern))


def _matches(folder: Folder, wanted: list[str]) -> Iterable[Folder]:
    if not wanted:
        return [folder]
    first, rest = wanted[0], wanted[1:]
    return [found for name, inner in folder.inner.items() if _fits(name, first) for found in _matches(inner, rest)]
