"""A job: all that the training of one backbone on one fold depends on, except for its data."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ensemble.config import Train
from ensemble.launch.ranks import ALONE, Ranks
from ensemble.run import Fold
from ensemble.train.evaluate import Evaluation
from ensemble.train.numerics import Numerics
from ensemble.train.teacher import Teacher

Head = tuple[torch.Tensor, torch.Tensor]  # float32 (C, D) and (C,): a classifier to start from


@dataclass(frozen=True)
class Job:
    """One backbone on one fold.

    fold: where it is written.
    create: makes the network, with what is not trained frozen.
    settings: of training.
    numerics: how its steps are computed.
    head: where the classifier starts; None leaves it as created.
    evaluation: how its held-out rows are evaluated.
    speeds: images per second of the number formats that evaluation may use.
    seed: of the run.
    teacher: what it learns from beside the labels; None for nothing.
    ranks: the processes that train it together.
    """

    fold: Fold
    create: Callable[[], torch.nn.Module]
    settings: Train
    numerics: Numerics
    head: Head | None
    evaluation: Evaluation
    speeds: Mapping[str, float]
    seed: int
    teacher: Teacher | None = None
    ranks: Ranks = ALONE

    def random_seed(self, *parts: str | int) -> int:
        """A seed of its own for each (run seed, member, fold, epoch), so that no job depends on what ran before it."""
        words = (self.seed, self.fold.member.name, self.fold.number, *parts)
        return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:7])
