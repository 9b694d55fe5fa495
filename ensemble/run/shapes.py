"""The types of a run's small JSON files, as far as they are read by key: their other keys stay as they are.

What is NotRequired is lacking in the runs of an older ens.
"""

from typing import Any, NotRequired

from typing_extensions import TypedDict

from ensemble.files.reading import Count, Finite


class Vouched(TypedDict):
    """Of a file, in done.json."""

    bytes: Count
    xxh3: str


class Done(TypedDict):
    """done.json. An older one has sizes alone."""

    files: dict[str, Vouched | Count]
    settings: NotRequired[str]  # the checksum of the member's settings.json
    seconds: NotRequired[Finite]


class Settings(TypedDict):
    """settings.json, as far as it is read by key; an older run lacks some."""

    timm: NotRequired[str]
    views: NotRequired[list[str]]
    strategy: NotRequired[str | None]
    keep: NotRequired[str]
    epochs: NotRequired[Count]
    loss: NotRequired[str]
    label_smoothing: NotRequired[Finite]
    image_size: NotRequired[Count]


Corrected = TypedDict("Corrected", {"labels changed": NotRequired[Count], "rows dropped": NotRequired[Count]})

Facts = TypedDict(
    "Facts",
    {"data fingerprint": NotRequired[str], "classes": NotRequired[list[str]], "relabel": NotRequired[Corrected | None]},
)


_Provenance = TypedDict("_Provenance", {"made with": NotRequired[dict[str, str | int]]})


class Provenance(_Provenance):
    """provenance.json."""

    facts: Facts
    files: NotRequired[dict[str, str]]  # XXH3 of folds.csv and classes.json


class SavedSize(TypedDict):
    """A set of views in tta-search.json."""

    views: list[str]
    ms: Finite
    scores: dict[str, dict[str, Any]]


class SavedSearch(TypedDict):
    """tta-search.json, as far as it is read."""

    metric: str
    base: str
    chosen: list[str]
    sizes: list[SavedSize]


class Epoch(TypedDict):
    """A line of log.jsonl; a linear probe's one line has no epoch."""

    epoch: NotRequired[Count]
    loss: NotRequired[float]  # NaN where training went wrong
    lr: NotRequired[Finite]
    seconds: NotRequired[Finite]
    images_per_second: NotRequired[Finite]
    step_images_per_second: NotRequired[Finite]
    micro_batch: NotRequired[Count]
    held_out_log_loss: NotRequired[Finite]
    held_out_accuracy: NotRequired[Finite]
    strategy: NotRequired[str]  # "probe"
    strength: NotRequired[Finite]  # a probe's L2 strength


class SavedPair(TypedDict):
    """Two images that show the same, in audit.json."""

    first: str
    second: str
    kind: str
    sides: str


class SavedFinding(TypedDict):
    """A row of ens check's table, in audit.json."""

    level: str
    kind: NotRequired[str]
    side: NotRequired[str]
    count: NotRequired[Count]
    what: NotRequired[str]
    advice: NotRequired[str]


class SavedAudit(TypedDict):
    """audit.json, as far as a report reads it."""

    fingerprint: NotRequired[str | None]
    test: NotRequired[str | None]
    findings: NotRequired[list[SavedFinding]]
    pairs: NotRequired[list[SavedPair]]
