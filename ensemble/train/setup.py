"""What a run is made of and held to: its samples and its folds. No training here."""

import platform
import subprocess
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

import ensemble
from ensemble.config import Config, Folds
from ensemble.data.contents import Contents, contents_of
from ensemble.data.copies.ties import exact_groups, near_groups
from ensemble.data.folds import across, check_classes, check_own_folds, listing, make_folds, read_folds, write_folds
from ensemble.data.labelled import names_base, read_labelled
from ensemble.data.name_groups import NAMED_GROUPS, suggested_groups
from ensemble.data.samples import Samples
from ensemble.data.uneven import uneven
from ensemble.device import choose_device
from ensemble.errors import Damaged, UserError
from ensemble.events import Events
from ensemble.files import sealed
from ensemble.files.damage import damaged
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.plural import pluralize
from ensemble.run import Run
from ensemble.toml import to_toml
from ensemble.train.differences import first_difference
from ensemble.train.mend import is_readable
from ensemble.train.rows import Rows

# Northcutt et al., "Pervasive label errors in test sets destabilize machine learning benchmarks" (NeurIPS 2021): which
# model seems best changes with the labels that are corrected.
OPTIMISTIC = (
    "labels that were changed or dropped because networks disagreed with them make out-of-fold scores optimistic"
)
CORRECTED = ("labels changed", "rows dropped")  # of `Samples.corrections`, in provenance.json


def read_data(config: Config, events: Events) -> Samples:
    """The labelled samples, corrected. Says how many were corrected, what was left out, and which groups that file
    names suggest are not used."""
    samples = read_labelled(config, events)
    for note in samples.notes:
        events.message(note)
    if samples.groups is None and samples.folds is None:
        found = suggested_groups(samples, names_base(config))
        if found is not None:
            events.message(f"warning: {found.describe()}. {NAMED_GROUPS}")
    if samples.corrections is not None:
        changed, dropped = samples.corrections
        optimistic = f"; {OPTIMISTIC}" if changed or dropped else ""
        counts = f"{pluralize(changed, 'label')} changed, {pluralize(dropped, 'row')} dropped"
        events.message(f"{counts} by {config.data.relabel}{optimistic}")
    return samples


def open_run(config: Config, samples: Samples, events: Events) -> np.ndarray:
    """The run's folds, int8 (N,): those on disk, or new ones, in which copies of one picture share a fold. Raises
    UserError if the run on disk is another one."""
    run = Run(config.run)
    facts = _facts(config, samples)
    damage = None
    if run.is_begun():
        try:
            return _held_folds(run, config, samples.ids, facts)
        except Damaged as error:
            damage = error
            events.message(f"warning: {error}")
    if damage is None and run.folds_csv.is_file() and not run.provenance_json.is_file():
        raise UserError(f"{run.folds_csv}: exists already, but no run wrote it: choose another directory (run = ...)")
    folds, groups = new_folds(config, samples, events)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"run = {str(run)!r}: a file is in the way; choose another directory") from None
    listed = listing(samples, folds, groups)
    files = {name: xxhash.xxh3_128(text.encode()).hexdigest() for name, text in listed.items()}
    is_vouched = damage is not None and _is_vouched(run, files, damage)
    run.write_config(to_toml(config))
    if not is_vouched:
        write_json(run.provenance_json, {"facts": facts, "files": files, "made with": _versions()})
    write_folds(run, listed)
    return folds


def _facts(config: Config, samples: Samples) -> dict[str, Any]:
    """What all folds of a run have to share, for provenance.json."""
    corrections = samples.corrections or (0, 0)
    return {
        "seed": config.seed,
        "folds": config.folds.model_dump(mode="json"),
        "group": config.data.group,
        "classes": list(samples.classes),
        "relabel": dict(zip(CORRECTED, corrections, strict=True)) if any(corrections) else None,
        "data fingerprint": samples.fingerprint(),
    }


def new_folds(config: Config, samples: Samples, events: Events) -> tuple[np.ndarray, np.ndarray | None]:
    """Folds int8 (N,), and the groups that share one, str (N,), or None. Says what was joined, and what is uneven."""
    assert samples.labels is not None
    groups = exact_groups(samples, events)
    if samples.folds is not None:
        folds = samples.folds.astype(np.int8)
        check_own_folds(folds, groups, samples.ids)
        check_classes(folds, samples.labels, samples.classes, f"spread it in column {config.folds.fold!r}")
    if config.folds.near_copies:
        groups = near_groups(samples, groups, config.data.cache, events)
    events.progress("laying out the folds", 0, 1)
    if samples.folds is None:
        folds = make_folds(samples.labels, samples.classes, config.folds.k, config.seed, groups, config.folds.method)
    elif groups is not None and (split := across(folds, groups)):
        sets = "1 set of near copies stands" if split == 1 else f"{split} sets of near copies stand"
        events.message(f"warning: {sets} in two or more of your own folds, which makes their scores optimistic")
    if (odd := uneven(folds, groups if samples.folds is None else None)) is not None:
        events.message(odd.line())
    return folds, groups


def _held_folds(run: Run, config: Config, ids: np.ndarray, facts: dict[str, Any]) -> np.ndarray:
    """The folds of a run that is begun. Raises UserError if it is another one, Damaged if a file of it is."""
    for path in (run.provenance_json, run.classes_json, run.folds_csv):
        if not path.is_file():
            raise damaged(path, "missing")
    recorded = dict(run.read_provenance()["facts"])
    fold_settings = recorded.get("folds")
    if isinstance(fold_settings, dict):  # it may be older than one of the keys
        recorded["folds"] = Folds().model_dump(mode="json") | fold_settings
    if difference := first_difference(recorded, facts):
        key, before, now = difference
        raise UserError(
            f"{run}: holds a run with another {key} ({before}; now {now}): "
            "set it back, or give this run a directory of its own (run = ...)"
        )
    run.write_config(to_toml(config))  # as last used: a backbone may be new
    run.read_classes()
    table = read_folds(run).set_index("id")
    return np.asarray(table.loc[ids, "fold"], dtype=np.int8)


def held_rows(run: Run, samples: Samples) -> Rows:
    """A run's labelled samples as its rows, in the folds that it holds. Raises UserError that names a file of it that
    can't be read."""
    folds = np.asarray(read_folds(run).set_index("id").loc[samples.ids, "fold"], dtype=np.int8)
    assert samples.labels is not None
    return Rows(
        samples.ids, tuple(samples.paths), samples.labels, folds, samples.classes, samples.weights, samples.digests
    )


def _is_vouched(run: Run, files: dict[str, str], damage: Damaged) -> bool:
    """True if the digests of folds.csv and classes.json, made anew, are those in provenance.json; False if that is
    damaged itself, and they are those of the files on disk. Raises UserError where they are not."""
    try:
        vouched, is_sound = run.read_provenance().get("files", {}), True
    except UserError:
        present = [name for name in files if (run.path / name).is_file()]
        vouched, is_sound = {name: sealed.digest(run.path / name) for name in present}, False
    if files != vouched:
        raise UserError(
            f"{damage}, but it differs when made again (the data, settings or libraries have changed): restore the "
            "file from a copy, or train in another directory (run = ...)"
        )
    return is_sound


def check_contents(run: Run, ids: Sequence[str], digests: Sequence[str], events: Events) -> None:
    """Warn if the images hold other pixels than when the run began (the fingerprint has only their sizes): its finished
    folds have seen the old ones. ids, digests: of the rows and of their files."""
    now, path = contents_of(ids, digests), run.contents_json
    if not run.is_begun() or not is_readable(path, partial(read_json, kind=Contents), events):
        write_json(path, now)
        return
    before = read_json(path, Contents)
    if before["sha256"] == now["sha256"]:
        if "rows" not in before:  # an older ens kept none
            write_json(path, now)
    else:
        events.message(
            f"warning: images have changed since {run} began; folds trained from now on see the new ones: to train all "
            "folds on the same images, restore the old ones, or delete the run"
        )


def _versions() -> dict[str, str | int]:
    return {
        "ens": ensemble.__version__,
        "git": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": metadata.version("timm"),
        "numpy": np.__version__,
        "device": str(choose_device()),
        "threads": torch.get_num_threads(),
        "machine": platform.platform(),
    }


def _commit() -> str:
    """The git commit of ens itself, if it runs from a checkout of its own."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return "not a checkout"
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
