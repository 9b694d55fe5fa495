"""What `ens check` found: findings, their levels, and the file that keeps them.

`audit.json` holds, all ids being those of the rows as `ens train-folds` and `ens tta-predict` name them:

    format             1
    source             what was audited: the table or the folder of class folders; test, sample_submission: or null
    run                the run directory whose folds were looked at, or null
    images, test_images    numbers of rows
    fingerprint        `Samples.fingerprint()` of the labelled images as `ens train-folds` would take them (for an
                       experiment that of its run's provenance.json), or null where it would refuse them
    classes            {class: rows}, the labels stripped and composed (NFC)
    worst              "error", "warning", "note", or null where nothing was found
    findings           the worst first; each: kind, level, side ("train", "test", "submission"), count, what, advice,
                       examples (a few, to be shown) and rows (the ids of all that are concerned)
    pairs              copies and look-alikes: first, second (ids), sides ("train-train", "train-test", "test-test"),
                       kind ("exact", "re-encoded", "hflip", ..., "look-alike"), similarity (1: the same), labels
                       ([first, second]; null for test);
                       of more than 30 exact copies of one file each is paired with the first one only
    sizes              {"train": {"width": [...], "height": [...], "bytes": [...]}, "test": ...}: the quantiles named
                       by `quantiles` [0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1], upright pixels
    class_sizes        {class: [median width, median height]}
    class_colours      {class: [red, green, blue]}, means of 0 to 1
    scores             shortcuts: {"size" | "file" | "colour": {balanced_accuracy, low, high, chance}}; shift: {auc,
                       low, high, features: [{name, auc, train, test}]}; whatever could be computed
    groups             the suggested groups: {how, groups, rows, median, largest, alike}, or null
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.files.sealed import write_json

LEVELS = ("error", "warning", "note")  # the worst first
EXAMPLES = 3
QUANTILES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)


@dataclass(frozen=True)
class Finding:
    """One line of the audit.

    kind: its name, as in "empty-file".
    level: "error", "warning" or "note".
    count: of what was found.
    what: read behind the count, as in 3, "empty files (0 bytes)".
    rows: ids of all rows (or names of all classes, files, groups) concerned.
    examples: a few of them, to be shown.
    advice: what to do, or what ens does.
    side: "train", "test" or "submission".
    """

    kind: str
    level: str
    count: int
    what: str
    advice: str
    examples: tuple[str, ...]
    rows: tuple[str, ...]
    side: str = "train"


@dataclass(frozen=True)
class Audit:
    """All that `ens check` found; the module says what each part of it holds."""

    source: str
    test: str | None
    sample_submission: str | None
    run: str | None
    images: int
    test_images: int | None
    classes: dict[str, int]
    findings: tuple[Finding, ...]
    pairs: tuple[dict[str, Any], ...]
    sizes: dict[str, dict[str, list[float]]]
    class_sizes: dict[str, list[float]]
    class_colours: dict[str, list[float]]
    scores: dict[str, Any]
    groups: dict[str, Any] | None
    fingerprint: str | None = None

    @property
    def worst(self) -> str | None:
        """The worst level found, None where there is nothing."""
        return min((finding.level for finding in self.findings), key=LEVELS.index, default=None)

    def fails(self, fail_on: str) -> bool:
        """True if something was found at or above the level `fail_on`; "never" is above all."""
        return self.worst is not None and fail_on != "never" and LEVELS.index(self.worst) <= LEVELS.index(fail_on)

    def to_json(self) -> dict[str, Any]:
        return {"format": 1, "worst": self.worst, "quantiles": list(QUANTILES), **asdict(self)}


def finding(
    kind: str,
    level: str,
    rows: Sequence[str] | np.ndarray,
    words: tuple[str, str],
    advice: str,
    side: str = "train",
    examples: Sequence[str] | None = None,
    count: int | None = None,
) -> list[Finding]:
    """A finding on these rows in a list, an empty list if there are none.

    words: what was found, for one and for many. examples: what to show instead of the first rows. count: of something
    other than the rows.
    """
    names = tuple(str(row) for row in rows)
    if not names:
        return []
    number = len(names) if count is None else count
    shown = tuple(examples or names)[:EXAMPLES]
    return [Finding(kind, level, number, words[number != 1], advice, shown, names, side)]


def ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The worst first; within a level as they came."""
    return tuple(sorted(findings, key=lambda found: LEVELS.index(found.level)))


def save_audit(path: Path, audit: Audit) -> None:
    write_json(path, audit.to_json())


def quantiles(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in np.quantile(values, QUANTILES)] if len(values) else []
