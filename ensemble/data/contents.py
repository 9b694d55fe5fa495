"""contents.json of a run: what its images held when it began, by their digests."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from ensemble import rundir
from ensemble.files.reading import read_json


class Contents(TypedDict):
    """sha256: of all digests, in the order of the rows. rows: each row's, by its id; runs of an older ens lack it."""

    sha256: str
    rows: NotRequired[dict[str, str]]


def contents_of(ids: Sequence[str], digests: Sequence[str]) -> Contents:
    """Of N rows, their files' digests in the same order."""
    together = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return {"sha256": together, "rows": {str(id): digest for id, digest in zip(ids, digests, strict=True)}}


def row_digests(run: Path) -> dict[str, str]:
    """Each row's digest by its id; none where the run keeps none. Raises UserError if the file is damaged."""
    path = rundir.contents_json(run)
    return read_json(path, Contents).get("rows", {}) if path.is_file() else {}
