"""Frozen features of the run's images, by the network that `ens unknown` takes too: see `ensemble.train.frozen`.

It has learned nothing from the run's labels, so that clusters of its features say nothing about what was predicted.
They are kept in the run: torch is imported only where they are computed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ensemble.config import Config
from ensemble.data.samples import Samples
from ensemble.events import Events
from ensemble.ood.saved import load_features, save_features
from ensemble.progress import paced
from ensemble.run import Run
from ensemble.run.networks import FROZEN_VIEWS


def run_features(
    run: Run, config: Config, ids: np.ndarray, samples: Samples | None, events: Events
) -> np.ndarray | None:
    """The features of the run's rows, float32 (N, D): those that the run keeps, or computed now and kept. None where
    there is no frozen network, or where nothing is kept and the images are gone.

    ids: str (N,), of the rows.
    samples: the images of these rows, in their order.
    """
    there = load_features(run, ids.tolist())
    if there is not None or samples is None:
        return there
    from ensemble.train.frozen import require_frozen

    if not require_frozen(run, events):
        return None
    parts = list(_features(run, config, samples.paths, samples, events))
    save_features(run, ids.tolist(), np.concatenate(parts))
    return np.concatenate(parts)


def new_features(run: Run, config: Config, paths: Sequence[Path], events: Events) -> Iterator[np.ndarray]:
    """The features of other image files, batch by batch, each float32 (n, D). Raises UserError that names a file that
    can't be read."""
    return _features(run, config, paths, None, events)


def _features(
    run: Run, config: Config, paths: Sequence[Path], samples: Samples | None, events: Events
) -> Iterator[np.ndarray]:
    """samples: the run's own, whose pixels are taken from the cache."""
    from ensemble.data.pixels.decode import Files, Pixels
    from ensemble.data.pixels.preprocess import Decoding
    from ensemble.device import choose_device
    from ensemble.inference.decodings import decodings
    from ensemble.inference.frozen import frozen_features, load_frozen
    from ensemble.tta.oof import run_pixels

    device = choose_device()
    frozen = load_frozen(run, device)
    needed = decodings(frozen.preprocess, FROZEN_VIEWS)
    pixels: dict[Decoding, Pixels | Files]
    if samples is None:
        pixels = {decoding: Files(list(paths), decoding) for decoding in needed}
    else:
        pixels = run_pixels(config, samples, needed, events)
    advance = paced(events, "frozen features", 0, len(paths))
    for part in frozen_features(frozen, pixels, np.arange(len(paths)), config.tta.batch_size, device):
        yield part
        advance(len(part))
