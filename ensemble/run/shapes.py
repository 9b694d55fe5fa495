"""The types of a run's small JSON files, for the keys that are read; other keys are left alone.

Keys that are NotRequired are missing in runs of an older ens.
"""

from typing import Any, NotRequired

from typing_extensions import TypedDict

from ensemble.files.reading import Count, Finite


class Vouched(TypedDict):
    """A file's entry in done.json."""

    bytes: Count
    xxh3: str


class Done(TypedDict):
    """done.json. Older ones hold sizes only."""

    files: dict[str, Vouched | Count]
    settings: NotRequired[str]  # the checksum of the member's settings.json
    seconds: NotRequired[Finite]
    of: NotRequired[list[str | None]]  # of a soup: the digests of the weights that were averaged
    agreement: NotRequired[Finite]  # of a soup with its ensemble
    on: NotRequired[str]  # the images that this was measured on


class Failure(TypedDict):
    """failure.json."""

    error: str


class Settings(TypedDict):
    """The keys of settings.json that are read; older runs lack some."""

    timm: NotRequired[str]
    views: NotRequired[list[str]]
    strategy: NotRequired[str | None]
    head: NotRequired[str]
    keep: NotRequired[str]
    epochs: NotRequired[Count]
    loss: NotRequired[str]
    label_smoothing: NotRequired[Finite]
    image_size: NotRequired[Count]
    learned_from: NotRequired[dict[str, Any]]  # of a student: its teachers, and how it learned
    soup: NotRequired[list[str]]  # the members that it was averaged from; the other keys are the first one's


class Aside(TypedDict):
    """aside.json of a member."""

    why: str


Corrected = TypedDict("Corrected", {"labels changed": NotRequired[Count], "rows dropped": NotRequired[Count]})

ProvenanceFacts = TypedDict(
    "ProvenanceFacts",
    {"data fingerprint": NotRequired[str], "classes": NotRequired[list[str]], "relabel": NotRequired[Corrected | None]},
)


_Provenance = TypedDict("_Provenance", {"made with": NotRequired[dict[str, str | int]]})


class Provenance(_Provenance):
    """provenance.json."""

    facts: ProvenanceFacts
    files: NotRequired[dict[str, str]]  # XXH3 of folds.csv and classes.json


class SavedSize(TypedDict):
    """A set of views in tta-search.json."""

    views: list[str]
    ms: Finite
    scores: dict[str, dict[str, Any]]


class SavedSearch(TypedDict):
    """The keys of tta-search.json that are read."""

    metric: str
    base: str
    chosen: list[str]
    sizes: list[SavedSize]


class Epoch(TypedDict):
    """A line of log.jsonl. A linear probe has one line, without an epoch."""

    epoch: NotRequired[Count]
    loss: NotRequired[float]  # NaN where training went wrong
    lr: NotRequired[Finite]
    seconds: NotRequired[Finite]
    images_per_second: NotRequired[Finite]
    step_images_per_second: NotRequired[Finite]
    micro_batch: NotRequired[Count]
    processes: NotRequired[Count]  # that trained it together, where it was more than one
    held_out_log_loss: NotRequired[Finite]
    held_out_accuracy: NotRequired[Finite]
    strategy: NotRequired[str]  # "probe"
    strength: NotRequired[Finite]  # a linear probe's L2 strength
    chosen: NotRequired[str]  # another head's hyper-parameters


class SavedPair(TypedDict):
    """Two copies or look-alikes, in audit.json."""

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
    """The keys of audit.json that a report reads."""

    fingerprint: NotRequired[str | None]
    test: NotRequired[str | None]
    findings: NotRequired[list[SavedFinding]]
    pairs: NotRequired[list[SavedPair]]
