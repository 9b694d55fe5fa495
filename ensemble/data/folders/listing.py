"""Which files below a folder are images, and every one that is left out, by kind: nothing is passed over in silence.

A file is an image by its ending, where Pillow has a decoder for it, and by its content where it has no ending. Linked
folders are followed once.
"""

import heapq
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.data.pixels.formats import IMAGE_ENDINGS, OTHER_PICTURES, USUAL, signed
from ensemble.data.pixels.open_image import open_image
from ensemble.errors import UserError

# fmt: off
LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})  # and whatever begins with a dot
LITTER_FOLDERS = frozenset({"__macosx", "@eadir", "$recycle.bin", "lost+found", "__pycache__"})
# fmt: on
ENDING = re.compile(r"\.[a-z][\w+~-]{0,11}$", re.IGNORECASE)  # "2019.03.01" and "Mr. Smith" have none
PACKED = (".zip", ".tar")
SHOWN = 3


@dataclass(frozen=True)
class Listing:
    """What lies below a folder, each part sorted.

    folder: the folder.
    images: files that are read.
    others: files that are not.
    hidden: files whose names, or whose folders' names, begin with a dot, or which an operating system left there
        (__MACOSX, Thumbs.db).
    lost: links that lead nowhere.
    turned: linked folders that are not followed, since they lead back up or to a folder that is read already.
    empty: folders that hold no image at any depth.
    """

    folder: Path
    images: tuple[Path, ...]
    others: tuple[Path, ...]
    hidden: tuple[Path, ...]
    lost: tuple[Path, ...]
    turned: tuple[Path, ...]
    empty: tuple[Path, ...]

    def below(self, folder: Path) -> "Listing":
        """The part of it below `folder`, which is one of its folders."""
        if folder == self.folder:
            return self
        parts = (self.images, self.others, self.hidden, self.lost, self.turned, self.empty)
        start = f"{folder}{os.sep}"
        return Listing(folder, *(tuple(path for path in part if str(path).startswith(start)) for part in parts))

    @property
    def other_pictures(self) -> list[Path]:
        """Pictures that ens has no decoder for."""
        return [path for path in self.others if path.suffix.lower() in OTHER_PICTURES]

    @property
    def no_pictures(self) -> list[Path]:
        """The other files that are not read, no pictures by their endings."""
        return [path for path in self.others if path.suffix.lower() not in OTHER_PICTURES]

    @property
    def hidden_images(self) -> list[Path]:
        return [path for path in self.hidden if path.suffix.lower() in IMAGE_ENDINGS]

    def left_out(self) -> list[str]:
        """A line on each kind of file that is not read, with the number and examples; empty if all are."""
        kinds = (
            (
                self.other_pictures,
                "warning: {} left out: ens can't read {}; convert {} to JPEG or PNG",
                ("picture is", "pictures are"),
            ),
            (
                self.no_pictures,
                "{} left out",
                ("file that is no image by its ending is", "files that are no images by their endings are"),
            ),
            (self.lost, "warning: {} left out", ("link that leads nowhere is", "links that lead nowhere are")),
            (
                self.turned,
                "warning: {} not followed, back to a folder above or to one that is read already",
                ("linked folder is", "linked folders are"),
            ),
            (self.hidden_images, "{} left out", ("hidden image is", "hidden images are")),
        )
        lines = []
        for paths, text, words in kinds:
            if paths:
                endings = ", ".join(ending for ending, _ in Counter(map(_kind, paths)).most_common(SHOWN))
                them = "it" if len(paths) == 1 else "them"
                count = f"{len(paths):,} {words[len(paths) != 1]}"
                lines.append(f"{text.format(count, endings, them)} ({self.some(paths)})")
        return lines

    def no_images(self) -> str:
        """What to say where there is not one image."""
        others = f", only others, {self.others[0].name!r} among them" if self.others else ""
        packed = next((path for path in self.others if path.suffix.lower() in PACKED), None)
        hint = "" if packed is None else f"; to read what is packed in {packed.name}, name it"
        return f"{self.folder}: no images in it or below it{others} (endings known: {USUAL} and others){hint}"

    def some(self, paths: Sequence[Path]) -> str:
        """The first few, seen from the folder, and how many more there are."""
        shown = [path.relative_to(self.folder).as_posix() for path in paths[:SHOWN]]
        more = f" and {len(paths) - SHOWN:,} more" if len(paths) > SHOWN else ""
        return ", ".join(shown) + more


def list_folder(folder: Path) -> Listing:
    """Look through a folder. Real folders come before linked ones, so that each is read under its own name if it has
    one. Raises UserError that names a folder which can't be opened."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found: dict[str, list[Path]] = {kind: [] for kind in ("images", "others", "hidden", "lost", "turned", "folders")}
    passed = {_identity(path) for path in folder.resolve().parents}
    waiting, linked = [folder], list[Path]()
    while waiting or linked:
        if not waiting:
            link = heapq.heappop(linked)
            if _identity(link) in passed:
                found["turned"].append(link)
                continue
            waiting.append(link)
        place = waiting.pop()
        passed.add(_identity(place))
        inner, links = _look_into(place, found)
        waiting += inner
        for link in links:
            heapq.heappush(linked, link)
    images = sorted(found["images"], key=str)  # paths compare ten times as slowly
    holders = {place for folder in {image.parent for image in images} for place in (folder, *folder.parents)}
    empty = sorted(path for path in found["folders"] if path not in holders)
    others, hidden, lost, turned = (tuple(sorted(found[kind])) for kind in ("others", "hidden", "lost", "turned"))
    return Listing(folder, tuple(images), others, hidden, lost, turned, tuple(empty))


def image_files(folder: Path) -> list[Path]:
    """Every image below `folder`, sorted."""
    return list(list_folder(folder).images)


def is_image(path: Path) -> bool:
    """True for a file that is an image by its ending, or by its content where it has no ending."""
    ending = ENDING.search(path.name)
    return path.suffix.lower() in IMAGE_ENDINGS if ending else has_picture(path)


def has_picture(path: Path) -> bool:
    """True if a file begins as pictures do."""
    try:
        with open_image(path, signed()):
            return True
    except Exception:  # Pillow's plugins raise whatever a broken file leads them to
        return False


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER | LITTER_FOLDERS


def _look_into(folder: Path, found: dict[str, list[Path]]) -> tuple[list[Path], list[Path]]:
    """Sort what a folder holds into `found`; the folders in it and the linked ones, to be read next."""
    inner: list[Path] = []
    links: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = folder / entry.name
                if is_hidden(entry.name):
                    if entry.is_dir(follow_symlinks=False):
                        found["hidden"] += _files(path)
                    elif entry.is_file():
                        found["hidden"].append(path)
                elif entry.is_dir():
                    found["folders"].append(path)
                    (links if entry.is_symlink() else inner).append(path)
                elif not entry.is_file():
                    found["lost" if entry.is_symlink() else "others"].append(path)
                else:
                    found["images" if is_image(path) else "others"].append(path)
    except OSError as error:
        raise UserError(f"{folder}: the folder can't be read ({error.strerror})") from None
    return inner, links


def _files(folder: Path) -> Iterable[Path]:
    return [Path(place) / name for place, _, names in os.walk(folder) for name in names]


def _identity(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError as error:  # it went away after its name was read
        raise UserError(f"{path}: the folder can't be read ({error.strerror})") from None
    return state.st_dev, state.st_ino


def _kind(path: Path) -> str:
    return path.suffix.lower() if ENDING.search(path.name) else "no ending"
