"""What an exported file says of itself: the entry `ens` of its metadata, JSON of a `Description`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ensemble.data.pixels.preprocess import Decoding
from ensemble.errors import UserError
from ensemble.files.reading import Count, Finite, parse_json

KEY = "ens"  # of the metadata
PART_KEY = "ens-part"  # of the metadata of a cascade's graphs: the name of the blend
FORMAT = 1
AGAIN = "write it again with: ens export"


@dataclass(frozen=True)
class ExportedMember:
    """A member of the blend.

    timm: its architecture
    networks: how many of its networks are in the file
    views: the views that its images are shown under
    """

    timm: str
    networks: Count
    views: tuple[str, ...]


@dataclass(frozen=True)
class ExportedScore:
    """A metric of the blend on rows that it was not fitted on.

    value: over all rows
    low, high: its 95% interval
    """

    value: Finite
    low: Finite
    high: Finite


@dataclass(frozen=True)
class Parity:
    """How near the file's probabilities are to those of the run that it was made of, on images of that run.

    rows: how many images
    largest: the largest difference of a probability
    changed: for how many of them the file predicts another class
    """

    rows: Count
    largest: Finite
    changed: Count


@dataclass(frozen=True)
class Description:
    """What is in an exported file.

    format: 1
    classes: C names
    inputs: the names of the graph's inputs, each with the way in which an image is decoded to its squares; the size of
        a `Decoding` is the side of the squares, pixels
    blend: the name of the blend
    method: of the blend
    members: its members by name
    networks: which networks of them: "folds", "soup" or "refit"
    scores: the blend's own, by metric; None where these networks have none
    scores_of_folds: those of the fold networks, where these networks have none of their own
    rows: of how many rows the scores are
    costs: what it costs to predict the column's class for an image of the row's: images are then decided for the class
        of the least expected cost. None: for the most probable one
    dtype: the fastest number format that a runtime may compute the float32 graph in: "float32", or "bfloat16" where
        that was tried and kept the predictions
    parity: how near it is to the run
    versions: of what wrote it: ens, torch, timm, onnx
    data: the fingerprint of the training data
    created: date and time, ISO 8601, UTC
    """

    format: Count
    classes: tuple[str, ...]
    inputs: dict[str, Decoding]
    blend: str
    method: str
    members: dict[str, ExportedMember]
    networks: str
    scores: dict[str, ExportedScore] | None
    scores_of_folds: dict[str, ExportedScore] | None
    rows: Count
    costs: tuple[tuple[Finite, ...], ...] | None
    dtype: str
    parity: Parity
    versions: dict[str, str]
    data: str
    created: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


def parse_description(metadata: Mapping[str, str], source: str) -> Description:
    """What `Description.to_json` wrote among the metadata of a file. source: its name, for errors. Raises UserError if
    ens did not write it, if it is of another format, or if its parts don't go together."""
    if PART_KEY in metadata:
        raise UserError(
            f"{source}: one graph of the cascade {metadata[PART_KEY]!r}, which predicts nothing alone; name its folder"
        )
    if KEY not in metadata:
        raise UserError(f"{source}: not a file that ens export wrote: its metadata has no entry {KEY!r}")
    found = parse_json(metadata[KEY], dict[str, Any], source, AGAIN)
    if found.get("format") != FORMAT:
        raise UserError(
            f"{source}: a file of format {found.get('format')!r}, and this ens reads format {FORMAT}; read it with the "
            f"ens that wrote it, or {AGAIN}"
        )
    description = parse_json(metadata[KEY], Description, source, AGAIN)
    require_whole(description, source)
    return description


def require_whole(description: Description, source: str) -> None:
    """Raise UserError if its parts don't go together. source: the name of its file."""
    classes, costs = description.classes, description.costs
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise UserError(f"{source}: its classes are fewer than two, or one is there twice; {AGAIN}")
    if costs is not None and {len(costs), *map(len, costs)} != {len(classes)}:
        raise UserError(f"{source}: its costs have not a row and a column for each class; {AGAIN}")
    if not description.inputs or any(not decoding.size for decoding in description.inputs.values()):
        raise UserError(f"{source}: it names no input, or one without a size; {AGAIN}")
