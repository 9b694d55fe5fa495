"""What a run learns from: its labelled rows, images without a label, and the decoded pixels of each.

`Rows` is sent to every worker, so that this imports little: pandas, which reads tables, takes most of a second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ensemble.data.pixels.decode import Files, Pixels
from ensemble.data.pixels.preprocess import Decoding, Preprocess
from ensemble.inference.decodings import decodings


@dataclass(frozen=True)
class SoftTargets:
    """What each of K folds learns of U images without a label.

    probabilities: float32 (K, U, C), each row sums to 1.
    weights: of their losses, float32 (K, U), where a labelled row has 1 in the mean; 0 keeps an image from a fold.
    """

    probabilities: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Rows:
    """The N rows of a run. All have a label, but for the last U where there are `soft` targets.

    ids: str (N,).
    paths: of the image files, N.
    labels: int64 (N,), indices into `classes`; -1 for rows without a label.
    folds: int8 (N,), -1 for rows that every fold is trained on, as it is on those without a label.
    classes: their names, in the order of the logits.
    weights: of the labelled rows in the loss, float64 (N - U,), or None.
    digests: SHA-256 of each file's bytes in hex, N, or None where the pixels are read from the files.
    soft: what is learned of the rows without a label; None: there are none.
    """

    ids: np.ndarray
    paths: tuple[Path, ...]
    labels: np.ndarray
    folds: np.ndarray
    classes: tuple[str, ...]
    weights: np.ndarray | None = None
    digests: tuple[str, ...] | None = None
    soft: SoftTargets | None = None

    @property
    def fold_count(self) -> int:
        return int(self.folds.max()) + 1

    @property
    def labelled_count(self) -> int:
        return len(self.ids) - (0 if self.soft is None else self.soft.weights.shape[1])

    def labelled(self) -> "Rows":
        """The rows that have a label."""
        if self.soft is None:
            return self
        count = self.labelled_count
        return replace(
            self,
            ids=self.ids[:count],
            paths=self.paths[:count],
            labels=self.labels[:count],
            folds=self.folds[:count],
            digests=None if self.digests is None else self.digests[:count],
            soft=None,
        )

    def train_rows(self, fold: int) -> np.ndarray:
        """Numbers of the rows that a fold is trained on, int64."""
        rows = np.flatnonzero(self.folds != fold)
        if self.soft is None:
            return rows
        return np.setdiff1d(rows, self.labelled_count + np.flatnonzero(self.soft.weights[fold] == 0))

    def targets(self, fold: int, rows: np.ndarray) -> np.ndarray:
        """What a fold is to answer for n of the rows: their labels int64 (n,), or, where the run has rows without one,
        probabilities float32 (n, C)."""
        if self.soft is None:
            return np.asarray(self.labels[rows])
        is_labelled, targets = rows < self.labelled_count, np.zeros((len(rows), len(self.classes)), dtype=np.float32)
        targets[is_labelled, self.labels[rows[is_labelled]]] = 1
        targets[~is_labelled] = self.soft.probabilities[fold, rows[~is_labelled] - self.labelled_count]
        return targets

    def likeliest(self, fold: int) -> np.ndarray:
        """The label of each row, and of those without one the class that their target in this fold is largest for,
        int64 (N,)."""
        if self.soft is None:
            return self.labels
        return np.concatenate([self.labels[: self.labelled_count], self.soft.probabilities[fold].argmax(axis=1)])

    def held_out_rows(self, fold: int) -> np.ndarray:
        """Numbers of the rows that a fold's network never sees in training, int64."""
        return np.flatnonzero(self.folds == fold)


@dataclass(frozen=True)
class TrainingData:
    """The rows with their pixels.

    rows: the N rows.
    train_pixels: what training crops are cut from, of N rows.
    eval_pixels: what evaluation cuts its views from, of N rows, by their decoding.
    """

    rows: Rows
    train_pixels: Pixels | Files
    eval_pixels: Mapping[Decoding, Pixels | Files]

    def squares(self, preprocess: Preprocess, views: Sequence[str], rows: np.ndarray) -> dict[Decoding, torch.Tensor]:
        """What these views of the rows are cut from, uint8 (len(rows), side, side, 3) by decoding."""
        return {
            decoding: torch.from_numpy(self.eval_pixels[decoding].squares(rows))
            for decoding in decodings(preprocess, views)
        }
