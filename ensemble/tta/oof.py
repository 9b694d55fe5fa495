"""`ens tta-oof`: out-of-fold logits under more views for a run that is trained, each row by the network that never saw
it. Training's own file is left as it is; the new views stand beside it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from ensemble import rundir
from ensemble.blend.oof import Rows, finished, fold_logits, read_rows
from ensemble.config import Config, load_run_config
from ensemble.data.cache.store import cache_folder, open_pixels
from ensemble.data.labelled import read_labelled
from ensemble.data.logits import Logits, load_logits
from ensemble.data.pixels.decode import Files, Pixels
from ensemble.data.pixels.preprocess import Decoding, load_preprocess
from ensemble.data.samples import Samples
from ensemble.device import choose_device, keep_freed_memory
from ensemble.errors import Damaged, UserError
from ensemble.inference.member import fold_forwards, load_member
from ensemble.inference.predict import Group, batch_rows, decodings, forward_views, geometry
from ensemble.inference.views import check_views, expand
from ensemble.progress import Show
from ensemble.run import Run
from ensemble.stop import safe_points

Say = Callable[[str], None]
BATCHES = 32  # whose pixels are in memory at once


def add_views(run: Path, views: Sequence[str], show: Show, say: Say = print) -> list[str]:
    """Add OOF logits of these views (names or sets) to every finished member of the run that lacks them. Returns the
    members.

    Folds that are finished are kept if it is stopped. Raises UserError for a view that is unknown or impossible for a
    member, a run without a finished member, or images that are not those that the run was trained on.
    """
    rows = read_rows(run)
    numbers = np.unique(rows.folds).tolist()
    members = [name for name in rundir.members(run) if finished(run, name, rows) == numbers]
    if not members:
        again = f"train on with: ens train-folds {rundir.config_toml(run)}"
        raise UserError(f"{run}: no member has all its folds finished; {again}")
    preprocesses = {name: load_preprocess(rundir.preprocess_json(run, name)) for name in members}
    lacking: dict[tuple[str, int], tuple[str, ...]] = {}
    for name, preprocess in preprocesses.items():
        for fold in numbers:
            _drop_damaged(rundir.added_file(rundir.fold_dir(run, name, fold)), say)
            there = fold_logits(rundir.fold_dir(run, name, fold)).views
            try:
                # those that are there are told from new ones by what they show, not by their names
                wanted = check_views(list(dict.fromkeys([*there, *expand(views)])), geometry(preprocess))
            except UserError as error:
                raise UserError(f"member {name!r}: {error}") from None
            lacking[name, fold] = tuple(view for view in wanted if view not in there)
    todo = [name for name in members if any(lacking[name, fold] for fold in numbers)]
    if not todo:
        say(f"{run}: all finished members have these views already")
        return members
    config = load_run_config(rundir.config_toml(run))
    samples = run_samples(config, run)
    hows = {how for name in todo for fold in numbers for how in decodings(preprocesses[name], lacking[name, fold])}
    pixels = run_pixels(config, samples, sorted(hows, key=str), show, say)
    device = choose_device()
    keep_freed_memory()
    row_of = {name: row for row, name in enumerate(samples.ids.tolist())}
    where = np.array([row_of[name] for name in rows.ids.tolist()])
    passes = sum(int((rows.folds == fold).sum()) * len(lacking[name, fold]) for name in todo for fold in numbers)
    new = tuple(dict.fromkeys(view for own in lacking.values() for view in own))
    say(f"{len(rows.ids)} images, {len(todo)} members, new views {', '.join(new)}; on {device}")
    done, added = 0.0, sum(not own for own in lacking.values())

    def told(images: float, views: int) -> None:
        nonlocal done
        done += images * views
        show("out-of-fold logits of new views", done, passes)

    batch = batch_rows(config.tta.batch_size, device)
    at_hand = ""
    with safe_points(lambda: at_hand, lambda: f"the new views of {added} of {len(lacking)} folds") as asked:
        for name in todo:
            member = load_member(Run(run).member(name), len(rows.classes), len(numbers), device)
            for fold, forward in enumerate(fold_forwards(member)):
                if not lacking[name, fold]:
                    continue
                at_hand = f"fold {fold} of {name}"
                directory = rundir.fold_dir(run, name, fold)
                with FileLock(rundir.lock_file(directory)):  # another process may add views, or train the fold again
                    kept = fold_logits(directory)
                    own = tuple(view for view in lacking[name, fold] if view not in kept.views)
                    if own:
                        group = Group(member.preprocess, own, (forward,))
                        values = _logits(group, pixels, where[_positions(rows, kept.ids)], batch, device, told)
                        _add(directory, kept, own, values)
                added += 1
                if asked():
                    raise KeyboardInterrupt
    return members


def _drop_damaged(added: Path, say: Say) -> None:
    """Remove added views that are not as they were written: they are computed again if they are asked for."""
    try:
        if added.is_file():
            load_logits(added)
    except Damaged as error:
        say(f"warning: {error}")
        added.unlink()


def _positions(rows: Rows, ids: np.ndarray) -> np.ndarray:
    position = {name: row for row, name in enumerate(rows.ids.tolist())}
    return np.array([position[name] for name in ids.tolist()])


def _logits(
    group: Group,
    pixels: Mapping[Decoding, Pixels | Files],
    rows: np.ndarray,
    batch: int,
    device: torch.device,
    told: Callable[[float, int], None],
) -> np.ndarray:
    """float32 (V, len(rows), C) of the group's one network."""
    parts = []
    for start in range(0, len(rows), BATCHES * batch):
        part = rows[start : start + BATCHES * batch]
        hows = decodings(group.preprocess, group.views)
        squares = {how: torch.from_numpy(pixels[how].squares(part)).to(device) for how in hows}
        show = lambda images: told(images, len(group.views))  # noqa: E731
        parts.append(forward_views(group, squares, batch, device, advance=show)[0][0])
    return np.concatenate(parts, axis=1)


def _add(directory: Path, kept: Logits, views: tuple[str, ...], values: np.ndarray) -> None:
    """Write the new views beside those that were added before."""
    before = len(load_logits(rundir.oof_file(directory)).views)
    old = kept.values[before:], kept.views[before:]
    merged = Logits(kept.ids, old[1] + views, kept.classes, np.concatenate([old[0], values]), kept.meta)
    merged.save(rundir.added_file(directory))


def run_samples(config: Config, run: Path) -> Samples:
    """The run's labelled images. Raises UserError if they are not those that it was trained on."""
    samples = read_labelled(config)
    held = rundir.read_provenance(run)["facts"].get("data fingerprint")
    if samples.fingerprint() != held:
        raise UserError(f"{config.data.train}: not the images that {run} was trained on (its data fingerprint differs)")
    return samples


def run_pixels(
    config: Config, samples: Samples, hows: Sequence[Decoding], show: Show, say: Say
) -> dict[Decoding, Pixels | Files]:
    """The decoded pixels of all samples, from the cache where the run uses one."""
    if config.data.cache == "off":
        return {how: Files(samples.paths, how) for how in hows}
    folder, limit = cache_folder(config.data.cache), int(config.data.cache_limit_gb * 1e9)
    return {**open_pixels(samples.paths, hows, folder, limit, show, say=say)}
