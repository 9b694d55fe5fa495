"""What a process computes of each batch where several train one job: some of its images, as one process alone would
have made them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from ensemble.launch.ranks import Ranks
from ensemble.train.augment.mix import Mixing
from ensemble.train.augment.policy import Draws
from ensemble.train.batches import Cut, made_ahead


class Share(NamedTuple):
    """The N images of a batch that a process trains on and, after them, those that they are mixed with: M in all.

    crops: uint8 (M, 3, S, S) on the device.
    draws: of the M images.
    rows: int64 (M,).
    mixing: of the first N; None where nothing is mixed, N = M.
    """

    crops: torch.Tensor
    draws: Draws
    rows: np.ndarray
    mixing: Mixing | None


def shares(
    order: np.ndarray,
    drawn: Callable[[np.ndarray], Draws],
    mixing: Callable[[], Mixing | None],
    cut: Cut,
    size: int,
    ahead: int,
    ranks: Ranks,
) -> Iterator[Share]:
    """This process's shares of the batches of rows in `order`, int64 (steps, B). Every process draws the chances of the
    whole batch, so that all of them draw alike, and cuts out what it needs.

    drawn, mixing: draw the chances of a batch. ahead: how many shares are made before they are asked for.
    """

    def make(rows: np.ndarray) -> Share:
        rows, draws, mix = _share(ranks, rows, drawn(rows), mixing())
        return Share(cut(rows, draws, size), draws, rows, mix)

    return made_ahead(make, order, ahead)


def _share(
    ranks: Ranks, rows: np.ndarray, draws: Draws, mixing: Mixing | None
) -> tuple[np.ndarray, Draws, Mixing | None]:
    if ranks.count == 1:
        return rows, draws, mixing
    needed = mine = ranks.part(len(rows))
    if mixing is not None:
        needed = np.concatenate([mine, np.setdiff1d(mixing.partner[mine], mine)])
        places = np.empty(len(rows), dtype=np.int64)
        places[needed] = np.arange(len(needed))
        mixing = Mixing(places[mixing.partner[mine]], mixing.down[mine], mixing.across[mine], mixing.share[mine])
    return rows[needed], draws.of(needed), mixing
