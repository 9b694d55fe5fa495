"""`ens unknown`: fit and choose what tells images that are none of the classes from the run's rows, for one of its
blends."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ensemble.blend import Blend, check_sources, load_blend
from ensemble.blend.oof import Oof, read_oof
from ensemble.config import Config, load_run_config
from ensemble.data.folds import fold_count
from ensemble.data.pixels.decode import Source
from ensemble.data.samples import Samples, read_images
from ensemble.device import choose_device, keep_freed_memory
from ensemble.events import Events
from ensemble.inference.decode import decoded_squares
from ensemble.inference.decodings import decodings
from ensemble.inference.frozen import frozen_features, load_frozen
from ensemble.inference.member import LoadedMember
from ensemble.ood.choose import FALSE_ALARMS, YOURS, FoldOutputs, choose
from ensemble.ood.saved import load_features, save_detector, save_features
from ensemble.ood.suitable import require_suitable
from ensemble.progress import paced
from ensemble.run import Run
from ensemble.run.networks import FROZEN_VIEWS
from ensemble.train.frozen import require_frozen
from ensemble.tta.apply import choose_blend
from ensemble.tta.oof import run_pixels, run_samples
from ensemble.tta.predictor import load_members
from ensemble.unknown.outputs import fold_outputs
from ensemble.unknown.refit import logits_without
from ensemble.unknown.result import FittedDetector
from ensemble.unknown.synthetic import COUNT, synthetic_images

MOST_ROWS = 10_000  # that new images are compared with, drawn from all
MOST_FOREIGN = 200  # images of the user's


def fit_unknown(run: Run, blend_name: str | None, foreign: Path | None, events: Events) -> FittedDetector:
    """Fit, choose and save a detector for a blend of the run.

    blend_name: of the run's blend; None for the only one.
    foreign: a folder of images that are none of the classes, to choose by beside the synthetic ones; None for none.

    Raises UserError for a blend that can't have one (see `require_suitable`), for training images that are not those
    that the run was trained on, and for a foreign image that can't be read.
    """
    run.require()
    name = choose_blend(run, blend_name)
    blend = load_blend(run, name)
    require_suitable(run, name, blend)
    check_sources(run, name)
    others = [] if foreign is None else _drawn(read_images(foreign)[1], MOST_FOREIGN)
    config, device = load_run_config(run.config_toml), choose_device()
    oof = read_oof(run, blend.all_views, list(blend.trained))
    samples = run_samples(config, run)
    keep_freed_memory()
    frozen = load_frozen(run, device) if require_frozen(run, events) else None
    if frozen is None:
        events.message(
            "no member starts from weights that never saw these images, so that there are no frozen features: scores "
            "are of the members' logits alone"
        )
    kept = np.sort(np.random.default_rng(0).permutation(len(oof.rows.ids))[:MOST_ROWS])
    known = FoldOutputs(
        np.stack([values[:, kept].mean(axis=0) for values in _asked_views(oof, blend)]),
        oof.rows.folds[kept],
        None if frozen is None else _features(run, config, samples, oof.rows.ids[kept], frozen, device, events),
    )
    unknown = _unknown(run, config, blend, samples, frozen, others, device, events)

    def refit(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        assert known.features is not None
        events.progress("classifiers without a class", 0, 1)
        return logits_without(known.features, rows, labels, known.folds, device)

    events.progress("choosing the scores that tell them apart", 0, 1)
    detector, trials = choose(known, oof.rows.labels[kept], oof.rows.clusters[kept], oof.rows.classes, unknown, refit)
    path = save_detector(run, name, blend, detector, trials)
    return FittedDetector(name, path, len(kept), tuple(trials), max(FALSE_ALARMS, detector.least_rate))


def _asked_views(oof: Oof, blend: Blend) -> list[np.ndarray]:
    """Of each member that ens trained the out-of-fold logits under the blend's views, float32 (V, N, C)."""
    numbers = {name: m for m, name in enumerate(oof.members)}
    return [
        oof.values[numbers[name]][[oof.views[numbers[name]].index(view) for view in views]]
        for name, views in blend.trained.items()
    ]


def _drawn(files: Sequence[Path], count: int) -> list[Path]:
    """At most so many of the files, always the same ones."""
    return [files[row] for row in np.sort(np.random.default_rng(0).permutation(len(files))[:count])]


def _features(
    run: Run,
    config: Config,
    samples: Samples,
    ids: np.ndarray,
    frozen: LoadedMember,
    device: torch.device,
    events: Events,
) -> np.ndarray:
    """The frozen features of the rows of these ids, float32 (N, D): those that the run keeps, or computed and kept."""
    there = load_features(run, ids.tolist())
    if there is not None:
        return there
    row_of = {name: row for row, name in enumerate(samples.ids.tolist())}
    rows = np.array([row_of[name] for name in ids.tolist()])
    pixels = run_pixels(config, samples, decodings(frozen.preprocess, FROZEN_VIEWS), events)
    parts: list[np.ndarray] = []
    advance = paced(events, "features of the training images", 0, len(rows))
    for part in frozen_features(frozen, pixels, rows, config.tta.batch_size, device):
        parts.append(part)
        advance(len(part))
    features = np.concatenate(parts)
    save_features(run, ids.tolist(), features)
    return features


def _unknown(
    run: Run,
    config: Config,
    blend: Blend,
    samples: Samples,
    frozen: LoadedMember | None,
    others: Sequence[Path],
    device: torch.device,
    events: Events,
) -> Mapping[str, FoldOutputs]:
    """kind -> the outputs of the run's networks for synthetic images and the user's."""
    folds = fold_count(run)
    members = load_members(run, list(blend.trained), len(blend.classes), folds, events)
    first = next(iter(members.values())).preprocess
    drawn = np.random.default_rng(0).permutation(len(samples.paths))[: 2 * COUNT]
    squares, _ = decoded_squares([Path(samples.paths[row]) for row in drawn], [first.decoding], device)
    labels = [int(samples.labels[row]) for row in drawn] if samples.labels is not None else [0] * len(drawn)
    kinds: dict[str, Sequence[Source]] = dict(synthetic_images(squares[first.decoding].numpy(), labels))
    if others:
        kinds[YOURS] = others
    advance = paced(events, "predicting unknown images", 0, sum(map(len, kinds.values())))
    return {
        kind: fold_outputs(
            list(members.values()),
            list(blend.trained.values()),
            frozen,
            sources,
            folds,
            config.tta.batch_size,
            device,
            advance,
        )
        for kind, sources in kinds.items()
    }
