"""What `ens compare` finds: items, the blocks in which they are compared, and what can be told."""

from dataclasses import dataclass

import numpy as np

from ensemble.run import Run
from ensemble.scoring.bootstrap import Gain, Score

OPTIMISTIC = "optimistic: its best epoch was chosen on these rows"
FEWEST = 6  # clusters that must differ for accuracy to tell: of 5, all one way are chance in 1 of 16 cases (sign test)


@dataclass(frozen=True)
class Item:
    """What is compared: a member of a run, or the plain mean of several.

    name: what it is called in its block.
    run: as the user named it.
    members: their names, one or several.
    seconds: of training, all folds together; None where that of one is not recorded.
    epochs: of training; None where the members' differ or one is not recorded.
    optimistic: whether a member kept the epoch that was best on its OOF rows.
    """

    name: str
    run: Run
    members: tuple[str, ...]
    seconds: float | None
    epochs: int | None
    optimistic: bool

    @property
    def label(self) -> str:
        """The name, with the mark that an optimistic item carries wherever it is named."""
        return f"{self.name} ({OPTIMISTIC})" if self.optimistic else self.name


@dataclass(frozen=True)
class Block:
    """S items compared with each other on the N rows of the comparison; the first is the baseline.

    title: what its members are called together.
    items: S of them.
    folds: int64 (S, N), those of each item's run.
    predicted: int64 (S, N), the most probable classes.
    losses: float64 (S, N), -log(true-class probability) in nats, of the networks' scores as they are.
    tempered_losses: float64 (S, N), the same at the item's best temperature on the other folds.
    scores: for each item metric -> Score, of the networks' scores as they are.
    tempered: for each item the Score of its log loss at its temperature.
    accuracy: each item's gain over the baseline; 0 of the baseline itself.
    log_loss: the same of the tempered log loss, in nats.
    differ: int64 (S,), clusters (rows or groups) on which an item is not right as often as the baseline.
    best: the number of the first item of the greatest accuracy.
    behind: each item's gain in accuracy over the best, 0 or less.
    behind_differ: int64 (S,), as `differ`, against the best.
    recall: float64 (S, C), of each class; NaN without rows.
    recall_gain: float64 (S, C), what is gained over the baseline.
    recall_interval: float64 (2, S, C), the gain's 95% interval, for which the class's rows (or groups) are resampled.
    marked: bool (S, C), whether that excludes 0 and at least FEWEST clusters differ.
    """

    title: str
    items: tuple[Item, ...]
    folds: np.ndarray
    predicted: np.ndarray
    losses: np.ndarray
    tempered_losses: np.ndarray
    scores: tuple[dict[str, Score], ...]
    tempered: tuple[Score, ...]
    accuracy: tuple[Gain, ...]
    log_loss: tuple[Gain, ...]
    differ: np.ndarray
    best: int
    behind: tuple[Gain, ...]
    behind_differ: np.ndarray
    recall: np.ndarray
    recall_gain: np.ndarray
    recall_interval: np.ndarray
    marked: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """Blocks of items on the same rows.

    ids: str (N,).
    labels: int64 (N,).
    clusters: int64 (N,); rows of one cluster (a row or a group) are resampled together.
    grouped: whether a run has groups.
    classes: C names.
    blocks: of items that are compared with each other.
    notes: lines to print: what was left out and why.
    seeds: lines on how much another seed moves the scores, of the backbones that were trained with several.
    """

    ids: np.ndarray
    labels: np.ndarray
    clusters: np.ndarray
    grouped: bool
    classes: tuple[str, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    seeds: tuple[str, ...] = ()


def tells(gained: Gain, differ: int | None = None) -> int:
    """1 if the interval of a gain lies above 0, -1 if below, else 0: no difference can be told at 95%.

    differ: for accuracy, the clusters that differ; of fewer than FEWEST, whatever the interval is, none can be told.
    """
    return 0 if differ is not None and differ < FEWEST else int(gained.low > 0) - int(gained.high < 0)
