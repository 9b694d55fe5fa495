"""`ens tta-oof`: out-of-fold logits under more views for a trained run, each row by the network that never saw it. The
new views are written beside the file that training wrote, which stays as it is."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from ensemble.blend.oof import Rows, finished, fold_logits, read_rows
from ensemble.config import Config, load_run_config
from ensemble.data.cache.folder import cache_folder
from ensemble.data.cache.store import open_pixels
from ensemble.data.labelled import read_labelled
from ensemble.data.logits import Logits, load_logits
from ensemble.data.pixels.decode import Files, Pixels
from ensemble.data.pixels.preprocess import Decoding, load_preprocess
from ensemble.data.samples import Samples
from ensemble.data.unpacked.source_names import source_name
from ensemble.device import choose_device, keep_freed_memory
from ensemble.errors import Damaged, UserError
from ensemble.events import Events
from ensemble.files.atomic import remove
from ensemble.files.claims import ClaimLost, Taken, claimed
from ensemble.inference.decodings import decodings, geometry
from ensemble.inference.member import LoadedMember, check_view_sizes, fold_eval_models, load_member, missing_engines
from ensemble.inference.predict import Group, batch_rows, forward_views
from ensemble.inference.views import check_views, expand
from ensemble.plural import pluralize
from ensemble.predictions.sharing import WAIT_SECONDS
from ensemble.run import Fold, Member, Run
from ensemble.stop import safe_points

BATCHES = 32  # whose pixels are in memory at once

Elsewhere = Callable[[list[Fold], list[Path]], None]  # given the folds, and the run's labelled images
MissingViews = Mapping[Fold, tuple[str, ...]]  # of the folds of all finished members


def add_views(run: Run, views: Sequence[str], events: Events, elsewhere: Elsewhere | None = None) -> list[str]:
    """Add OOF logits of these views (names or sets) to every finished member of the run that lacks them. Returns the
    names of the finished members.

    elsewhere: has the folds that lack one filled by other processes, which call this; None: it is done here

    Each fold is written as soon as it is done; several processes share the folds. Raises UserError for a view that is
    unknown or impossible for a member, a run without a finished member, or images that are not those that the run was
    trained on.
    """
    rows = read_rows(run)
    members = _finished_members(run, rows)
    names = [member.name for member in members]
    missing = _missing_views(members, np.unique(rows.folds).tolist(), views, events)
    incomplete = {fold: new for fold, new in missing.items() if new}
    if not incomplete:
        events.message(f"{run}: all finished members have these views already")
        return names
    config = load_run_config(run.config_toml)
    samples = run_samples(config, run)
    if elsewhere is not None:
        elsewhere(list(incomplete), [Path(path) for path in samples.paths])
        return names
    needed = {
        decoding
        for fold, new in incomplete.items()
        for decoding in decodings(load_preprocess(fold.member.preprocess_json), new)
    }
    pixels = run_pixels(config, samples, sorted(needed, key=str), events)
    row_of = {name: row for row, name in enumerate(samples.ids.tolist())}
    sample_rows = np.array([row_of[name] for name in rows.ids.tolist()])
    _add_to_folds(incomplete, missing, rows, sample_rows, pixels, config.tta.batch_size, events)
    return names


def _add_to_folds(
    incomplete: MissingViews,
    missing: MissingViews,
    rows: Rows,
    sample_rows: np.ndarray,
    pixels: Mapping[Decoding, Pixels | Files],
    batch_size: int,
    events: Events,
) -> None:
    """Compute and write the missing views, one fold after the other of those that no other process has, and wait for
    the others.

    incomplete: the folds of `missing` that lack a view
    sample_rows: int64 (N,), for each of the run's rows its row in `pixels`
    """
    device = choose_device()
    keep_freed_memory()
    names = list(dict.fromkeys(fold.member.name for fold in incomplete))
    new_views = list(dict.fromkeys(view for views in missing.values() for view in views))
    counts = f"{pluralize(len(rows.ids), 'image')}, {pluralize(len(names), 'member')}"
    events.message(f"{counts}, new views {', '.join(new_views)}; on {device}")
    passes = {fold: int((rows.folds == fold.number).sum()) * len(views) for fold, views in incomplete.items()}
    left = list(incomplete)
    done = 0.0
    position = {name: row for row, name in enumerate(rows.ids.tolist())}

    def advance(image_views: float) -> None:
        nonlocal done
        done += image_views
        events.progress("out-of-fold logits of new views", done, sum(passes.values()))

    batch = batch_rows(batch_size, device)
    current: str | None = None
    loaded: LoadedMember | None = None

    def kept() -> str:
        return f"the new views of {len(missing) - len(left)} of {len(missing)} folds"

    with safe_points(lambda: current, kept) as asked:
        for fold in _taken(left, events):
            before = fold_logits(fold)
            views = tuple(view for view in incomplete[fold] if view not in before.views)
            if not views:  # another process has added them
                advance(passes[fold])
                left.remove(fold)
                continue
            current = f"fold {fold.number} of {fold.member.name}"
            if loaded is None or loaded.name != fold.member.name:
                loaded = None  # two members need not be in memory at once
                loaded = _load(fold.member, rows, device, events)
            group = Group(loaded.preprocess, views, (fold_eval_models(loaded)[fold.number],))
            fold_rows = sample_rows[[position[name] for name in before.ids.tolist()]]
            logits = _logits(group, pixels, fold_rows, batch, device, advance)
            with suppress(ClaimLost):  # else the process that took it over writes the same
                _write_added(fold, before, views, logits)
                left.remove(fold)
            if asked():
                raise KeyboardInterrupt
            current = None


def _taken(left: list[Fold], events: Events) -> Iterator[Fold]:
    """Each of the folds while it is claimed, in order; those that other processes have last, when they are free. Ends
    when whoever asks has removed all from `left`."""
    has_told = False
    while left:
        holders: set[str] = set()
        for fold in list(left):
            try:
                with claimed(fold.claim_file):  # another process may add views, or train the fold again
                    yield fold
            except Taken as taken:
                holders.add(str(taken))
        if not left:
            return
        if not has_told:
            has_told = True
            count = pluralize(len(left), "fold is", "folds are")
            events.message(f"waiting: the last {count} held by {', '.join(sorted(holders))}")
        time.sleep(WAIT_SECONDS)


def _load(member: Member, rows: Rows, device: torch.device, events: Events) -> LoadedMember:
    line = missing_engines(member.folds(), device)
    if line is not None:
        events.message(line)
    return load_member(member, len(rows.classes), len(np.unique(rows.folds)), device)


def _finished_members(run: Run, rows: Rows) -> list[Member]:
    """Raises UserError where there is none."""
    numbers = np.unique(rows.folds).tolist()
    names = [name for name in run.member_names() if finished(run, name, rows) == numbers]
    if not names:
        again = f"train on with: ens train-folds {run.config_toml}"
        raise UserError(f"{run}: no member has all its folds finished; {again}")
    return [run.member(name) for name in names]


def _missing_views(
    members: Sequence[Member], numbers: Sequence[int], views: Sequence[str], events: Events
) -> dict[Fold, tuple[str, ...]]:
    """For each fold those of the views, or of the views in these sets, that it has no logits of. Raises UserError for a
    view that is unknown, or impossible for a member."""
    missing = {}
    for member in members:
        preprocess = load_preprocess(member.preprocess_json)
        for fold in map(member.fold, numbers):
            _remove_if_damaged(fold, events)
            present = fold_logits(fold).views
            try:
                # Views are compared by what they show, not by their names.
                all_views = check_views(list(dict.fromkeys([*present, *expand(views)])), geometry(preprocess))
            except UserError as error:
                raise UserError(f"member {member.name!r}: {error}") from None
            missing[fold] = tuple(view for view in all_views if view not in present)
        try:
            check_view_sizes(member.timm_name(), preprocess, expand(views))
        except UserError as error:
            raise UserError(f"member {member.name!r}: {error}") from None
    return missing


def _remove_if_damaged(fold: Fold, events: Events) -> None:
    """Remove added views that are damaged: they are computed again where they are asked for."""
    try:
        if fold.added_views_file.is_file():
            load_logits(fold.added_views_file)
    except Damaged as error:
        events.message(f"warning: {error}")
        remove(fold.added_views_file)


def _logits(
    group: Group,
    pixels: Mapping[Decoding, Pixels | Files],
    rows: np.ndarray,
    batch: int,
    device: torch.device,
    advance: Callable[[float], None],
) -> np.ndarray:
    """float32 (V, len(rows), C) of the group's one network."""

    def advance_views(images: float) -> None:
        advance(images * len(group.views))

    parts = []
    for start in range(0, len(rows), BATCHES * batch):
        part = rows[start : start + BATCHES * batch]
        squares = {
            decoding: torch.from_numpy(pixels[decoding].squares(part)).to(device)
            for decoding in decodings(group.preprocess, group.views)
        }
        parts.append(forward_views(group, squares, batch, device, advance=advance_views)[0][0])
    return np.concatenate(parts, axis=1)


def _write_added(fold: Fold, before: Logits, views: tuple[str, ...], values: np.ndarray) -> None:
    """Write the new views, float32 (V, N, C), beside those that were added before."""
    trained = len(load_logits(fold.oof_file).views)
    added_values, added_views = before.values[trained:], before.views[trained:]
    values = np.concatenate([added_values, values])
    Logits(before.ids, added_views + views, before.classes, values, before.meta).save(fold.added_views_file)


def run_samples(config: Config, run: Run) -> Samples:
    """The run's labelled images. Raises UserError if they are not those that it was trained on."""
    samples = read_labelled(config)
    trained_on = run.read_provenance()["facts"].get("data fingerprint")
    if samples.fingerprint() != trained_on:
        raise UserError(
            f"{source_name(config.data.train)}: not the images that {run} was trained on (its data fingerprint differs)"
        )
    return samples


def run_pixels(
    config: Config, samples: Samples, needed: Sequence[Decoding], events: Events
) -> dict[Decoding, Pixels | Files]:
    """The pixels of all samples in these decodings, from the cache where the run uses one."""
    if config.data.cache == "off":
        return {decoding: Files(samples.paths, decoding) for decoding in needed}
    folder, limit = cache_folder(config.data.cache), int(config.data.cache_limit_gb * 1e9)
    return {**open_pixels(samples.paths, needed, folder, limit, events)}
