"""What `ens slices` found, as it is kept in the run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from ensemble.files.reading import Count, Finite, Unread, read_json
from ensemble.files.sealed import write_json
from ensemble.run import Run
from ensemble.slices.rules import Rule

MOST_SHOWN = 20  # slices: of more, the table shows the most certain, and the map marks those


@dataclass(frozen=True)
class Share:
    """An accuracy with its 95% interval, all 0 to 1."""

    value: Finite
    low: Finite
    high: Finite


@dataclass(frozen=True)
class Example:
    """An image that is predicted wrongly.

    id: of its row.
    label, predicted: the names of its class and of the predicted one.
    p_label, p_predicted: the probabilities of these two.
    """

    id: str
    label: str
    predicted: str
    p_label: Finite
    p_predicted: Finite


@dataclass(frozen=True)
class Slice:
    """A part of the images in which accuracy is worse than elsewhere.

    rule: which images it holds.
    rows: how many images it holds.
    wrong: how many of them are predicted wrongly.
    accuracy: of its images.
    elsewhere: the accuracy of all other images.
    of_its_classes: the accuracy that its classes have elsewhere, in its shares of them; None where one has no image
        elsewhere.
    p: its p-value, adjusted for all slices that were looked at.
    examples: some of the wrong images, the most confident first.
    mostly_in: the slice further up that holds most of its wrong images, and their share; None where it is below half.
    test_images: how many test images lie in it; None where that is not known.
    """

    rule: Rule
    rows: Count
    wrong: Count
    accuracy: Share
    elsewhere: Share
    of_its_classes: Finite | None
    p: Finite
    examples: tuple[Example, ...]
    mostly_in: tuple[str, Finite] | None = None
    test_images: Count | None = None


@dataclass(frozen=True)
class Map:
    """n images in the plane, those that are alike near to each other.

    source: what is mapped, in words.
    ids: of the images.
    x, y: where each lies, in thousandths of the side.
    label, predicted: numbers of classes.
    confidence: the probability of the predicted class.
    slices: of the first slices that were found, which of these images lie in each.
    of: how many images there are.
    """

    source: str
    ids: tuple[str, ...]
    x: tuple[Count, ...]
    y: tuple[Count, ...]
    label: tuple[Count, ...]
    predicted: tuple[Count, ...]
    confidence: tuple[Finite, ...]
    slices: tuple[tuple[Count, ...], ...]
    of: Count


@dataclass(frozen=True)
class TestImages:
    """How many test images lie in slices.

    images: the folder or table.
    rows: how many images it holds.
    inside: how many of them lie in at least one of the slices.
    notes: lines on slices of which that is not known.
    """

    images: str
    rows: Count
    inside: Count
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Slices:
    """What `ens slices` found.

    path: its file.
    blend: the saved blend whose predictions these are; None: the members' plain mean.
    basis: whose predictions these are, in words.
    rows: how many images there are.
    wrong: how many of them are predicted wrongly.
    groups: how many groups the rows have; None where they have none.
    accuracy: of all images.
    alpha: the chance that a slice is reported where none is bad.
    min_size: how many images a slice has at least.
    draws: how often what is wrong was dealt out anew for the p-values.
    looked_at: kind of slices -> how many were looked at.
    found: the slices, the most certain first; of one property, column and direction only the most certain.
    map: None where there is nothing to map.
    test: None without test images.
    notes: lines on what was not looked at.
    made_of: member -> the checksums of its folds' out-of-fold logits, see `predicted.checksums`.
    """

    path: Annotated[Path | None, Unread()]
    blend: str | None
    basis: str
    rows: Count
    wrong: Count
    groups: Count | None
    accuracy: Share
    alpha: Finite
    min_size: Count
    draws: Count
    looked_at: dict[str, Count]
    found: tuple[Slice, ...]
    map: Map | None
    test: TestImages | None
    notes: tuple[str, ...]
    made_of: dict[str, tuple[str, ...]]

    def save(self, run: Run) -> None:
        """Write slices.json."""
        write_json(run.slices_json, {**asdict(self), "path": None}, indent=None)


def read_slices(run: Run) -> Slices | None:
    """What `Slices.save` wrote; None if there is no such file. Raises UserError that names the file and the key that
    can't be read."""
    path = run.slices_json
    return read_json(path, Slices) if path.is_file() else None
