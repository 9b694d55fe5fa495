"""Unpacked and fetched copies by the names of their sources: messages name the zip or the address that the user named,
not the place of the copy in the cache."""

from pathlib import Path

from ensemble.files.mirror import as_url

_sources: dict[str, str] = {}  # a folder or table in the cache -> what it is a copy of, in this process


def remember_source(place: Path, source: str) -> None:
    """From now on, call this file or folder of the cache by the name of its source."""
    _sources[str(place)] = source


def copy_of_source(path: Path) -> Path | None:
    """The folder of the copy that a path lies in; None if it lies in no copy."""
    places = [place for place in (path, *path.parents) if str(place) in _sources]
    return next((place for place in places if place.is_dir()), None)


def source_name(path: Path) -> str:
    """A path as it is written on a command line or in an experiment file."""
    return with_source_names(as_url(path) or str(path))


def with_source_names(text: str) -> str:
    """A message in which every path of a copy is replaced by the name of its source."""
    for place in sorted(_sources, key=len, reverse=True):
        text = text.replace(place, _sources[place])
    return text
