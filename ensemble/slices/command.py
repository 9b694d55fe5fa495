"""`ens slices`: looks at parts of a run's images, and keeps those in which accuracy is worse than elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensemble.blend.oof import Rows
from ensemble.config import Config, load_run_config
from ensemble.data.folds import read_folds
from ensemble.data.labelled import read_labelled
from ensemble.data.samples import Samples
from ensemble.data.unpacked.local import as_local
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.plural import pluralize
from ensemble.run import Run
from ensemble.slices.clusters import Clusters, cluster_slices, find_clusters, flat_map, shown_rows, space_of
from ensemble.slices.columns import column_slices, own_columns, read_columns
from ensemble.slices.features import new_features, run_features
from ensemble.slices.found import describe
from ensemble.slices.predicted import Predicted, read_predicted
from ensemble.slices.properties import image_properties, property_slices
from ensemble.slices.result import MOST_SHOWN, Map, Share, Slices
from ensemble.slices.rules import Candidate, of_values
from ensemble.slices.test_images import ImageSources, count_test_images
from ensemble.slices.worse import DRAWS, adjusted_p, share_interval

ALPHA = 0.05
MIN_SIZE = 20


@dataclass(frozen=True)
class SliceOptions:
    """The options of `ens slices`.

    blend: the name of the blend whose predictions are looked at; None: see `read_predicted`.
    columns: a table of further columns, joined by id; None: the experiment's own table.
    by: the columns to look at; None: all.
    test: a folder or table of images to predict.
    alpha: the chance, at most, that any slice is reported where none is worse, 0 to 1.
    min_size: how many images a slice has at least.
    """

    blend: str | None = None
    columns: Path | None = None
    by: Sequence[str] | None = None
    test: Path | None = None
    alpha: float = ALPHA
    min_size: int = MIN_SIZE


@dataclass(frozen=True)
class Embedding:
    """The images as points, those that are alike near to each other.

    source: what is mapped, in words.
    points: float64 (N, d).
    clusters: of frozen features; None where there are no features.
    of_files: gives the cluster of each of n other image files, str (n,); None where there are no clusters.
    """

    source: str
    points: np.ndarray
    clusters: Clusters | None = None
    of_files: Callable[[list[Path]], np.ndarray] | None = None


def slices_run(run: Run, options: SliceOptions, events: Events) -> Slices:
    """Find the slices, and write them into the run. Raises UserError as `read_predicted`, `read_columns` and
    `count_test_images` do, and for too few rows."""
    run.require()
    predicted = read_predicted(run, options.blend, events)
    rows = predicted.rows
    if len(rows.ids) < 2 * options.min_size:
        raise UserError(
            f"{run}: {pluralize(len(rows.ids), 'image')} with out-of-fold predictions are too few for slices of "
            f"{options.min_size} beside as many others; lower --min-size"
        )
    config = load_run_config(run.config_toml)
    candidates, notes = _by_label(run, config, rows, options.min_size)
    more, lines = _by_columns(config, rows, options, events)
    candidates, notes = candidates + more, notes + lines
    samples = _samples(run, config, rows, notes, events)
    if samples is not None:
        properties = image_properties(samples.paths, config.data.cache, events)
        more, lines = property_slices(properties, options.min_size)
        candidates, notes = candidates + more, notes + lines
    embedding = _embedding(run, config, samples, predicted, events, notes)
    if embedding.clusters is not None:
        candidates += cluster_slices(embedding.clusters, rows.labels, rows.classes, options.min_size)
    events.progress("comparing the slices", 0, 1)
    p, extremes = adjusted_p(predicted.wrong, rows.clusters, candidates)
    found = describe(predicted, candidates, p, extremes, options.alpha)
    test = None
    if options.test is not None:
        sources = ImageSources(options.test, config.data.cache, embedding.of_files, predicted.blend)
        test, counts = count_test_images(run, [each.rule for each in found], sources, events)
        found = tuple(replace(each, test_images=count) for each, count in zip(found, counts, strict=True))
    kinds = [candidate.rule.kind for candidate in candidates]
    optimistic = [name for name in predicted.made_of if run.member(name).is_optimistic()]
    if optimistic:
        notes.append(f"all accuracies are optimistic: the best epochs of {', '.join(optimistic)} were kept")
    inside = {candidate.rule: candidate.rows for candidate in candidates}
    events.progress("laying out the map", 0, 1)
    result = Slices(
        path=run.slices_json,
        blend=predicted.blend,
        basis=predicted.basis,
        rows=len(rows.ids),
        wrong=int(predicted.wrong.sum()),
        groups=len(np.unique(rows.clusters)) if rows.grouped else None,
        accuracy=Share(*share_interval(~predicted.wrong, rows.clusters)),
        alpha=options.alpha,
        min_size=options.min_size,
        draws=DRAWS,
        looked_at={kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        found=found,
        map=_map(predicted, embedding, [inside[each.rule] for each in found[:MOST_SHOWN]]),
        test=test,
        notes=tuple(dict.fromkeys(notes)),
        made_of=predicted.made_of,
    )
    result.save(run)
    return result


def _by_label(run: Run, config: Config, rows: Rows, min_size: int) -> tuple[list[Candidate], list[str]]:
    """The slices of classes and groups."""
    found = of_values("class", "class", np.array(rows.classes)[rows.labels], min_size)
    notes = []
    left = len(rows.classes) - len(found)
    if left:
        has = "class has" if left == 1 else "classes have"
        notes.append(f"{left} {has} fewer than {min_size} images, or all but as few: not looked at")
    if rows.grouped:
        table = read_folds(run).set_index("id")
        names = table.loc[rows.ids.tolist(), "group"].to_numpy(dtype=np.str_)
        groups = of_values("group", "group", names, min_size)
        found += groups
        left = len(np.unique(names)) - len(groups)
        if left and (groups or config.data.group is not None):  # else they are copies of an image
            notes.append(f"{pluralize(left, 'group')} of fewer than {min_size} images: not looked at by themselves")
    return found, notes


def _by_columns(config: Config, rows: Rows, options: SliceOptions, events: Events) -> tuple[list[Candidate], list[str]]:
    if options.columns is not None:
        columns = read_columns(as_local(options.columns, events), rows.ids, options.by)
    else:
        columns = own_columns(config, rows.ids, options.by, events)
    found, lines = column_slices(columns, options.min_size)
    return found, [*columns.notes, *lines]


def _samples(run: Run, config: Config, rows: Rows, notes: list[str], events: Events) -> Samples | None:
    """The run's images in the order of the rows; None, with a note, where they can't be found."""
    try:
        samples = read_labelled(config, events)
        trained_on = run.read_provenance()["facts"].get("data fingerprint")
        if trained_on is not None and samples.fingerprint() != trained_on:
            raise UserError(f"{config.data.train}: not the images that {run} was trained on")
        place = {name: row for row, name in enumerate(samples.ids.tolist())}
        lost = [name for name in rows.ids.tolist() if name not in place]
        if lost:
            raise UserError(f"{config.data.train}: has no image {lost[0]!r}")
    except UserError as error:
        notes.append(f"properties of the images are not looked at ({error}; paths start where ens train-folds was run)")
        return None
    order = [place[name] for name in rows.ids.tolist()]
    assert samples.labels is not None
    return replace(
        samples, ids=rows.ids, paths=tuple(samples.paths[row] for row in order), labels=samples.labels[order],
        groups=None, folds=None, weights=None, digests=None,
    )  # fmt: skip


def _embedding(
    run: Run, config: Config, samples: Samples | None, predicted: Predicted, events: Events, notes: list[str]
) -> Embedding:
    """By frozen features, kept or computed now; without any by the out-of-fold probabilities, which give no clusters:
    these would only say that images between two classes are more often wrong."""
    features = run_features(run, config, predicted.rows.ids, samples, events)
    if features is None:
        notes.append(
            "clusters are not looked at: the run has no frozen network, as that of a probe, or pretrained weights that "
            "are still there"
        )
        logs = np.log(np.maximum(predicted.probabilities, 1e-6))
        return Embedding("the out-of-fold probabilities", logs - logs.mean(axis=1, keepdims=True))
    space = space_of(features)
    points = space.points(features)
    clusters = find_clusters(points)

    def of_files(paths: list[Path]) -> np.ndarray:
        parts = new_features(run, config, paths, events)
        return np.concatenate([clusters.nearest(space.points(part)) for part in parts]).astype(np.str_)

    return Embedding("the features of a frozen network", points, clusters, of_files)


def _map(predicted: Predicted, embedding: Embedding, slices: Sequence[np.ndarray]) -> Map:
    """slices: the rows of those that are marked in it."""
    shown = shown_rows(predicted.wrong)
    flat = np.rint(1000 * flat_map(embedding.points[shown])).astype(int)
    chosen = predicted.predicted[shown]
    return Map(
        source=embedding.source,
        ids=tuple(predicted.rows.ids[shown].tolist()),
        x=tuple(flat[:, 0].tolist()),
        y=tuple(flat[:, 1].tolist()),
        label=tuple(predicted.rows.labels[shown].tolist()),
        predicted=tuple(chosen.tolist()),
        confidence=tuple(np.round(predicted.probabilities[shown, chosen], 4).tolist()),
        slices=tuple(tuple(np.flatnonzero(np.isin(shown, rows)).tolist()) for rows in slices),
        of=len(predicted.wrong),
    )
