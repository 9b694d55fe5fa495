"""Where the labelled images of an unpacked data set lie, and what its other folders are: by names and by structure.

A folder of class folders is one whose own folders are the classes. What is usually unpacked wraps it: `train` beside
`test1`, `seg_train/seg_train`, `images` beside `segmentations`. Such a step is followed where it can be read in one way
only; otherwise the readings are named, with their classes and with what chooses each.
"""

import glob
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ensemble.data.folders.class_folders import Folder
from ensemble.data.folders.splits import BESIDE, HELD_OUT, IMAGES, SAMPLE, TEST, TRAIN, VALIDATION, role_of, roles
from ensemble.errors import UserError

SHOWN = 4  # classes of a reading


@dataclass(frozen=True)
class Followed:
    """The way from the folder that was named to that of the class folders.

    folder: that of the class folders.
    passed: all folders up to it; the first is the one that was named.
    notes: a line on each step.
    test: held-out folders of test images that lie beside it and were left out.
    validation: likewise, of validation images.
    """

    folder: Folder
    passed: tuple[Folder, ...]
    notes: tuple[str, ...] = ()
    test: tuple[Folder, ...] = ()
    validation: tuple[Folder, ...] = ()


def way(top: Folder) -> Iterator[Followed]:
    """Every folder from an unpacked data set to its folder of class folders, which is the last. Raises UserError where
    there are several ways to go on, with the readings."""
    place = Followed(top, (top,))
    while True:
        yield place
        step = next_folder(place.folder)
        if step is None:
            return
        inner, note = step
        kinds = roles(place.folder.inner)
        beside = [other for other in place.folder.inner.values() if other is not inner]
        test, validation = ([other for other in beside if kinds.get(other.path.name) == kind] for kind in HELD_OUT)
        place = Followed(
            inner,
            (*place.passed, inner),
            (*place.notes, note),
            (*place.test, *test),
            (*place.validation, *validation),
        )


def follow(top: Folder) -> Followed:
    """The last of `way`."""
    *_, place = way(top)
    return place


def next_folder(folder: Folder) -> tuple[Folder, str] | None:
    """The one folder in it that holds the labelled images, with a line that says why; None if it is there already.
    Raises UserError with the readings, if there are several."""
    inner = folder.inner
    if len(inner) == 1 and not folder.direct:
        (only,) = inner.values()
        named = role_of(only.path.name)
        if named[0] in HELD_OUT and not named[1]:
            raise UserError(
                f"{folder.path}: {only.path.name} is the only folder with images in it, and named like held-out ones; "
                f"to train on these, name {only.core.path}"
            )
        if only.inner or (named[0] and not named[1]):
            words = "in {} holds the training images" if named[0] == TRAIN else "is the only folder with images in {}"
            return only, f"{only.path.name} {words.format(folder.path)}"
        return None
    kinds = roles(inner)
    of = {kind: [inner[name] for name in inner if kinds.get(name) == kind] for kind in set(kinds.values())}
    train, pictures = of.get(TRAIN, []), of.get(IMAGES, [])
    held = [*of.get(VALIDATION, []), *of.get(TEST, [])]
    aside = [*of.get(BESIDE, []), *of.get(SAMPLE, [])]
    plain = [inner[name] for name in inner if name not in kinds]
    nested = [other for other in train if other.nests]
    if len(train) == 1 and not plain and not pictures:
        return train[0], _says(train[0], folder)
    if (
        len(nested) == 1
        and len(train) == 1
        and held
        and len(plain + pictures) == 1
        and not _is_split(*plain, *pictures)
    ):
        return train[0], _says(train[0], folder)
    if nested or (train and not plain and not pictures):
        raise _several(folder, [*train, *(other for other in plain if _is_split(other))], kinds)
    if not train and len(pictures) == 1 and not plain and (aside or held):
        return pictures[0], _says(pictures[0], folder)
    if not train and not pictures and len(plain) == 1 and aside and not held and plain[0].nests:
        return plain[0], _says(plain[0], folder)
    likely = [other for other in inner.values() if other not in held + of.get(SAMPLE, [])]
    odd = len(likely) < len(inner)
    if odd and (len(likely) != 1 or likely[0].nests):
        raise _several(folder, [other for other in inner.values() if other.nests], kinds)
    nests = len(inner) > 1 and not folder.direct and all(other.nests for other in inner.values())
    if nests and not odd and not _numbered_below(folder):
        raise _several(folder, list(inner.values()), kinds)
    return None


def refuse_loose(place: Followed, images: Sequence[Path]) -> None:
    """Raise UserError if images lie outside the class folders, with what is needed. images: of `place.folder`."""
    folder = place.folder
    if not folder.direct:
        return
    loose = [image for image in images if image.parent == folder.path]
    text = f"{folder.path}: image {loose[0].name!r} lies outside any class folder"
    if not folder.inner:
        text = f"{folder.path}: its {folder.direct:,} images ({loose[0].name!r}, ...) lie outside any class folder"
    text += f"; want one folder per class: {folder.path.name}/<class>/*.jpg, or a CSV"
    named = _labels_in_names(loose) if not folder.inner else {}
    if named:
        text += f" with the columns path and label, for which the file names may do: {_counted(named)}"
    several = [passed for passed in place.passed[:-1] if len(passed.inner) > 1]
    if several:
        outer = several[-1]
        text += (
            f". Or if the folders in {outer.path} are the classes, {_classes(outer.inner.values())}: {option(['*'])}"
        )
    raise UserError(text)


def _labels_in_names(images: Sequence[Path]) -> dict[str, int]:
    """Images by what stands before the first number of their names ("cat.0.jpg"); empty where that is no label."""
    counts = Counter(re.split(r"[\W_]*\d", image.stem, maxsplit=1)[0] for image in images)
    sound = len(counts) > 1 and "" not in counts and min(counts.values()) > 1
    return dict(sorted(counts.items())) if sound else {}


def levels(folder: Folder) -> list[str]:
    """A line on class folders that hold several folders of their own."""
    nested = [inner for inner in folder.inner.values() if inner.nests]
    if len(folder.inner) < 2 or not nested:
        return []
    inside = ", ".join(list(nested[0].core.inner)[:3])
    return [
        f"the folders in {folder.path} are taken for the classes, and those in them ({inside}, ...) for parts of "
        f"these; if they are the classes: {option(['*/*'])}"
    ]


def refuse_parts(top: Folder) -> None:
    """Raise UserError if a folder of images to predict is a whole data set: training images beside held-out ones, or
    images beside masks."""
    folder = top.core
    kinds = roles(folder.inner)
    held, known = {TEST, VALIDATION} & set(kinds.values()), set(kinds.values())
    if (TRAIN in known and held) or {IMAGES, BESIDE} <= known or (TRAIN in known and BESIDE in known):
        each = ", ".join(f"{inner.path} ({inner.total:,} images)" for inner in folder.inner.values())
        raise UserError(f"{folder.path}: holds several parts of a data set; name the one to predict: {each}")


def _end_of(folder: Folder) -> Folder:
    """The folder of class folders in it, or where the way to it parts."""
    with suppress(UserError):
        found = follow(folder).folder
        return found if len(found.inner) > 1 else folder.core
    return folder.core


def _is_split(*folders: Folder) -> bool:
    """True if one of the folders holds a train folder of its own: a second copy of the data set."""
    names = [name for folder in folders for inner in (folder, *folder.inner.values()) for name in inner.inner]
    return TRAIN in roles(names).values()


def _numbered_below(folder: Folder) -> bool:
    """True if the folders two levels down look like numbered sets (films, sessions) of the classes above them, and not
    like classes themselves."""
    counts = Counter(name for other in folder.inner.values() for name in other.core.inner)
    if not _numbered(counts):
        return False
    shared = sum(count > 1 for count in counts.values()) >= len(counts) / 2
    return not shared or not _numbered(folder.inner)


def _numbered(names: Iterable[str]) -> bool:
    marks = [any(letter.isdigit() for letter in name) for name in names]
    return sum(marks) > len(marks) / 2


def _says(chosen: Folder, folder: Folder) -> str:
    others = [f"{other.path.name} ({other.total:,} images)" for other in folder.inner.values() if other is not chosen]
    if folder.direct:
        others.append(f"{folder.direct:,} images that lie beside it")
    return f"{chosen.path.name} in {folder.path} holds the training images; not trained on: {', '.join(others)}"


def _several(folder: Folder, likely: Sequence[Folder], kinds: dict[str, str]) -> UserError:
    """likely: the folders in it that may hold class folders, each a reading of its own."""
    readings = [f"{_classes(folder.inner.values())}: {option(['*'])}"]
    held = [name for name, kind in kinds.items() if kind in (*HELD_OUT, SAMPLE)]
    kept = [other for name, other in folder.inner.items() if name not in held]
    if held and len(kept) > 1 and TRAIN not in kinds.values():
        without = option(["*", *(f"!{glob.escape(name)}" for name in held)])
        readings.append(f"{_classes(kept)}, without {', '.join(held)}: {without}")
    ends = {other.path.name: _end_of(other) for other in likely if other.nests}
    for name, end in list(ends.items())[:SHOWN]:
        readings.append(f"in {name} {_classes(end.inner.values())}: name {end.path} instead")
    if len(ends) > SHOWN:
        readings.append(f"the same for the other {len(ends) - SHOWN} of these {len(ends)}")
    if len(ends) > 1:
        patterns = [f"{glob.escape(end.path.relative_to(folder.path).as_posix())}/*" for end in ends.values()]
        if len(ends) == len(folder.inner) and all(end.path.parent == folder.path for end in ends.values()):
            patterns = ["*/*"]
        joined = Counter[str]()
        for end in ends.values():
            joined.update({name: inner.total for name, inner in end.inner.items()})
        readings.append(f"in all of them together {_counted(joined)}: {option(patterns)}")
    if len(readings) == 1:
        readings.append("parts of a data set without class folders: name a CSV with the columns path and label instead")
    listed = "; ".join(f"({number}) {reading}" for number, reading in enumerate(readings, 1))
    return UserError(
        f"{folder.path}: its folders can be read in {len(readings)} ways; choose one: {listed}. In an experiment file, "
        "--classes '*' is data.classes = [\"*\"]"
    )


def option(patterns: Sequence[str]) -> str:
    return " ".join(f"--classes {shlex.quote(pattern)}" for pattern in patterns)


def _classes(folders: Iterable[Folder]) -> str:
    return _counted(Counter({folder.path.name: folder.total for folder in folders}))


def _counted(counts: dict[str, int]) -> str:
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:SHOWN])
    return f"{len(counts)} classes ({shown}{', ...' if len(counts) > SHOWN else ''})"
