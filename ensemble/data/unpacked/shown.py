"""What people call the files of a copy: by the zip or the address that they named, not by where ens keeps the copy."""

from pathlib import Path

from ensemble.files.mirror import as_url

_named: dict[str, str] = {}  # a folder or table in the cache -> what it is a copy of, in this process


def remember(place: Path, named: str) -> None:
    """`place` is the copy of what was named so."""
    _named[str(place)] = named


def copy_of_source(path: Path) -> Path | None:
    """The folder of the copy that a path lies in; None for what is no copy."""
    places = [place for place in (path, *path.parents) if str(place) in _named]
    return next((place for place in places if place.is_dir()), None)


def named(path: Path) -> str:
    """A path as it is written on a command line or in an experiment file."""
    return shown(as_url(path) or str(path))


def shown(text: str) -> str:
    """A line for people, with the paths of copies as they were named."""
    for place in sorted(_named, key=len, reverse=True):
        text = text.replace(place, _named[place])
    return text
