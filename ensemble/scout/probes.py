"""The backbones probed one by one: out-of-fold logits and milliseconds per image, kept in the cache between scouts."""

import statistics
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
import xxhash

from ensemble.backbones import hub, timm_model, weights
from ensemble.config import Backbone, Config, starts_trained
from ensemble.data.contents import with_digests
from ensemble.data.logits import Logits, load_logits
from ensemble.data.pixels.decode import Files, Pixels
from ensemble.data.pixels.preprocess import Decoding, Preprocess
from ensemble.device import (
    choose_device,
    in_layout,
    is_out_of_memory,
    keep_freed_memory,
    side_by_side,
    synchronize,
    to_device,
)
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.inference.decodings import decodings
from ensemble.inference.predict import batch_rows
from ensemble.plural import pluralize
from ensemble.progress import paced
from ensemble.scout.subsets import Probes
from ensemble.stop import safe_points
from ensemble.train.evaluate import Evaluation, exact
from ensemble.train.heads import Heads, fit_heads
from ensemble.train.members import image_size, make_model, warning_of_seen_rows
from ensemble.train.mend import is_readable
from ensemble.train.numerics import known_file
from ensemble.train.pixels import open_cache
from ensemble.train.prepare import known_folder
from ensemble.train.probe import member_features
from ensemble.train.rows import Rows, TrainingData
from ensemble.train.setup import new_folds, read_data

MS = "ms"  # per image, in a file of logits
PASSES = 5  # of which the median is the time
VIEWS = ("identity",)  # a second view takes as long again; backbones are told apart without it


def probe_all(config: Config, events: Events) -> tuple[Probes, Rows, list[str]]:
    """Probe each backbone of a config in the folds of its run. Returns the probes, the rows, and a line for each
    backbone that was skipped, since it can't be made or probed.

    Raises UserError if the data does not fit, or if no backbone is left.
    """
    rows, clusters, grouped = _read(config, events)
    device = choose_device()
    keep_freed_memory()
    events.message(
        f"{pluralize(len(rows.ids), 'image')}, {pluralize(len(rows.classes), 'class', 'classes')}; "
        f"{pluralize(len(config.backbone), 'backbone')} to probe in {rows.fold_count} folds, on {device}"
    )
    validated = np.flatnonzero(rows.folds >= 0)
    validated_ids = rows.ids[validated]
    probed: list[Backbone] = []
    logits: list[np.ndarray] = []
    ms: list[float] = []
    skipped: list[str] = []

    def skip(backbone: Backbone, reason: str) -> None:
        skipped.append(f"{backbone.name} skipped: {reason}")
        events.message(skipped[-1])

    def kept() -> str:
        return f"the probes of {pluralize(len(probed), 'backbone')}"

    with hub.asked_until_unreachable() as ask_no_more, safe_points(lambda: None, kept):
        for number, backbone in enumerate(config.backbone):
            events.progress(f"probing {backbone.name}", number, len(config.backbone))
            try:
                preprocess, path = _known(config, backbone, rows)
                if backbone.weights is not None:
                    warning = warning_of_seen_rows(config, backbone, rows.ids, rows.folds)
                    if warning is not None:
                        events.message(warning)
                model = None if is_readable(path, load_logits, events) else _model(config, backbone, rows)
            except UserError as error:
                skip(backbone, str(error))
                if hub.is_unreachable(error):
                    ask_no_more()
                continue
            if model is None:
                events.message(f"{backbone.name}: probed before")
            else:
                data = _data(config, preprocess, rows, events)
                evaluation = Evaluation(preprocess, VIEWS, config.tta.batch_size, device)
                try:
                    values = _probe(model, backbone.name, data, evaluation, events)
                    forward_ms = _forward_ms(model, evaluation)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    skip(backbone, "out of memory; lower tta.batch_size or its image_size")
                    continue
                # The time is kept as well: measured anew it could change the front, and which blend --pick 3 is.
                Logits(validated_ids, VIEWS, rows.classes, values[None], {MS: f"{forward_ms:.4g}"}).save(path)
            kept_logits = load_logits(path)
            probed.append(backbone)
            logits.append(kept_logits.values[0])
            ms.append(float(kept_logits.meta[MS]))
    if not probed:
        raise UserError(
            f"none of {pluralize(len(skipped), 'backbone')} could be probed; give weights files of your own with "
            f"--weights-dir FOLDER ({skipped[0]})"
        )
    probes = Probes(
        names=tuple(backbone.name for backbone in probed),
        timm=tuple(backbone.timm for backbone in probed),
        image_sizes=tuple(image_size(config, backbone) for backbone in probed),
        ms=np.array(ms),
        z=np.stack(logits),
        labels=rows.labels[validated],
        folds=rows.folds[validated].astype(np.int64),
        clusters=clusters[validated],
        grouped=grouped,
    )
    return probes, rows, skipped


def _read(config: Config, events: Events) -> tuple[Rows, np.ndarray, bool]:
    """The rows in the folds that `ens train-folds` makes, the cluster of each, int64 (N,), and whether those are
    groups."""
    samples = with_digests(read_data(config, events), config.data.cache, events)
    folds, groups = new_folds(config, samples, events)
    assert samples.labels is not None
    rows = Rows(
        samples.ids, tuple(samples.paths), samples.labels, folds, samples.classes, samples.weights, samples.digests
    )  # fmt: skip
    if groups is None:
        return rows, np.arange(len(samples)), False
    return rows, np.unique(groups, return_inverse=True)[1].astype(np.int64), True


def _known(config: Config, backbone: Backbone, rows: Rows) -> tuple[Preprocess, Path]:
    """The backbone's preprocessing, and where its logits of these rows in these folds are kept. Raises UserError if it
    has no trained features, or not such a file to start from."""
    if not starts_trained(backbone):
        raise UserError("trains from scratch, so that there are no trained features to probe")
    timm_model.check_name(backbone.timm)
    preprocess = timm_model.preprocess_for(backbone.timm, image_size(config, backbone), config.data.crop)
    assert rows.digests is not None
    arrays = [rows.labels, rows.folds, *([] if rows.weights is None else [rows.weights])]
    path = known_file(
        known_folder(config) / "probes", timm=backbone.timm, version=metadata.version("timm"), **asdict(preprocess),
        start=weights.source_of(backbone.weights) if backbone.weights else "hub",
        rows=xxhash.xxh3_128("\n".join([*rows.ids.tolist(), *rows.digests, *rows.classes]).encode()).hexdigest(),
        learned=[xxhash.xxh3_128(array.tobytes()).hexdigest() for array in arrays],
    )  # fmt: skip
    return preprocess, path.with_suffix(".safetensors")


def _model(config: Config, backbone: Backbone, rows: Rows) -> torch.nn.Module:
    """The network, in evaluation. Raises UserError if it can't be made, or not be probed."""
    model = make_model(config, backbone, len(rows.classes), 0)
    size = image_size(config, backbone)
    try:
        timm_model.check_embedding(model, size)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"does not work at image_size = {size}: {str(error).splitlines()[0]}") from None
    return model


def _probe(model: torch.nn.Module, name: str, data: TrainingData, evaluation: Evaluation, events: Events) -> np.ndarray:
    """Out-of-fold logits of the rows that have a fold, float32 (n, C)."""
    rows = data.rows
    advance = paced(events, f"{name}: features", 0, len(rows.ids))
    begun = time.monotonic()
    features = member_features(to_device(model, evaluation.device), data, evaluation, advance)
    embedded = time.monotonic() - begun
    heads = fit_heads(features.to(evaluation.device), rows.labels, rows.folds, len(rows.classes), rows.weights)
    seconds = time.monotonic() - begun
    events.message(f"{name}: features in {embedded:.1f} s, {len(heads.biases)} probes in {seconds - embedded:.1f} s")
    return out_of_fold(features[0], heads, rows.folds)[rows.folds >= 0]


def _forward_ms(model: torch.nn.Module, evaluation: Evaluation) -> float:
    """Milliseconds per image of a forward pass in float32 by one core, or by the GPU. On a CPU what counts is the time
    that the thread computes: beside other work a pass may take many times as long by the clock on the wall."""
    device = evaluation.device
    network, size = exact(model, evaluation).exact, evaluation.preprocess.image_size
    rows = batch_rows(evaluation.batch_size, device)
    clock = time.thread_time if device.type == "cpu" else time.perf_counter

    @torch.inference_mode()
    def work(place: torch.device) -> float:
        images = in_layout(torch.randn(rows, 3, size, size, device=place))
        seconds = []
        for _ in range(1 + PASSES):  # the first one allocates
            synchronize(place)
            begun = clock()
            timm_model.logits(network, images)
            synchronize(place)
            seconds.append(clock() - begun)
        return 1000 * statistics.median(seconds[1:]) / rows

    return side_by_side(work, [device], device)[0]


def out_of_fold(features: torch.Tensor, heads: Heads, folds: np.ndarray) -> np.ndarray:
    """Logits float32 (N, C) of features (N, D), of each row by the classifier that was fitted without its fold; of rows
    of no fold (-1) zeros."""
    values = torch.zeros(len(folds), heads.biases.shape[1])
    for fold, (weight, bias) in enumerate(zip(heads.weights.cpu(), heads.biases.cpu(), strict=True)):
        held_out = torch.from_numpy(np.flatnonzero(folds == fold))
        values[held_out] = features[held_out] @ weight.T + bias
    return values.numpy()


def _data(config: Config, preprocess: Preprocess, rows: Rows, events: Events) -> TrainingData:
    """The rows with what evaluation cuts its squares from; training's crops, which no probe asks for, are the same."""
    needed = decodings(preprocess, VIEWS)
    opened: dict[Decoding, Pixels | Files] = {}
    if config.data.cache == "off":
        opened |= {decoding: Files(rows.paths, decoding) for decoding in needed}
    else:
        opened |= open_cache(config.data, rows, needed, events)
    return TrainingData(rows, opened[needed[0]], opened)
