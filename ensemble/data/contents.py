"""contents.json of a run: what its images held when it began, by their digests."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NotRequired

from typing_extensions import TypedDict

from ensemble.events import Events
from ensemble.files.reading import read_json
from ensemble.run import Run

if TYPE_CHECKING:
    from ensemble.data.samples import Samples


class Contents(TypedDict):
    """What the images of a run held when it began.

    sha256: over the digests of all files, in the order of the rows.
    rows: the digest of each row's file, by the row's id; runs of an older ens lack it.
    """

    sha256: str
    rows: NotRequired[dict[str, str]]


def with_digests(samples: "Samples", cache: str, events: Events) -> "Samples":
    """The samples with the digests of their files, worked out once for all that a command needs them for. cache:
    `data.cache`. Raises UserError that names a file which can't be read."""
    if samples.digests is not None:
        return samples
    from ensemble.data.copies.ties import scan_folder  # here: reading the file of a run takes neither OpenCV nor pandas
    from ensemble.data.digests import digests

    with scan_folder(cache) as folder:
        return replace(samples, digests=tuple(digests(samples.paths, folder / "digests", events)))


def contents_of(ids: Sequence[str], file_digests: Sequence[str]) -> Contents:
    """Of N rows, their files' digests in the same order."""
    together = hashlib.sha256("\n".join(file_digests).encode()).hexdigest()
    return {"sha256": together, "rows": {str(id): digest for id, digest in zip(ids, file_digests, strict=True)}}


def row_digests(run: Run) -> dict[str, str]:
    """Each row's digest by its id; none where the run keeps none. Raises UserError if the file is damaged."""
    path = run.contents_json
    return read_json(path, Contents).get("rows", {}) if path.is_file() else {}
