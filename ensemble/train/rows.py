"""What a run learns from: its labelled rows, and the decoded pixels of each.

`Rows` is sent to every worker, so that this imports little: pandas, which reads tables, takes most of a second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ensemble.data.pixels.decode import Files, Pixels
from ensemble.data.pixels.preprocess import Decoding, Preprocess
from ensemble.inference.predict import decodings


@dataclass(frozen=True)
class Rows:
    """The N labelled rows of a run.

    ids: str (N,).
    paths: of the image files, N.
    labels: int64 (N,), indices into `classes`.
    folds: int8 (N,), -1 for rows that every fold is trained on.
    classes: their names, in the order of the logits.
    weights: of the rows in the loss, float64 (N,), or None.
    digests: SHA-256 of each file's bytes in hex, N, or None where the pixels are read from the files.
    """

    ids: np.ndarray
    paths: tuple[Path, ...]
    labels: np.ndarray
    folds: np.ndarray
    classes: tuple[str, ...]
    weights: np.ndarray | None = None
    digests: tuple[str, ...] | None = None

    @property
    def fold_count(self) -> int:
        return int(self.folds.max()) + 1

    def train_rows(self, fold: int) -> np.ndarray:
        """Numbers of the rows that a fold is trained on, int64."""
        return np.flatnonzero(self.folds != fold)

    def held_out_rows(self, fold: int) -> np.ndarray:
        """Numbers of the rows that a fold's network never sees in training, int64."""
        return np.flatnonzero(self.folds == fold)


@dataclass(frozen=True)
class TrainingData:
    """The rows with their pixels.

    rows: the N labelled rows.
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
