"""What a run is made of and held to: its samples and its folds. No training here."""

import json
import platform
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

import ensemble
from ensemble import rundir
from ensemble.config import Config, Folds, to_toml
from ensemble.data.contents import Contents, contents_of
from ensemble.data.copies.ties import exact_groups, near_groups
from ensemble.data.folds import across, check_classes, check_own_folds, listing, make_folds, read_folds, write_folds
from ensemble.data.labelled import names_base, read_labelled
from ensemble.data.name_groups import NAMED_GROUPS, suggested_groups
from ensemble.data.samples import Samples
from ensemble.data.uneven import uneven
from ensemble.device import choose_device
from ensemble.errors import Damaged, UserError
from ensemble.escape import shortened
from ensemble.files import sealed
from ensemble.files.damage import damaged
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.progress import Show
from ensemble.run import Run

Say = Callable[[str], None]

# Northcutt et al., "Pervasive label errors in test sets destabilize machine learning benchmarks" (NeurIPS 2021): which
# model seems best changes with the labels that are corrected.
FLATTERED = "labels that were changed or dropped because networks disagreed with them flatter the scores out of fold"
CORRECTED = ("labels changed", "rows dropped")  # of `Samples.corrections`, in provenance.json


def read_data(config: Config, say: Say) -> Samples:
    """The labelled samples, corrected. Says how many were, what was left out, and which groups are not used that file
    names suggest."""
    samples = read_labelled(config)
    for note in samples.notes:
        say(note)
    if samples.groups is None and samples.folds is None:
        found = suggested_groups(samples, names_base(config))
        if found is not None:
            say(f"warning: {found.describe()}. {NAMED_GROUPS}")
    if samples.corrections is not None:
        changed, dropped = samples.corrections
        labels, rows = "label" if changed == 1 else "labels", "row" if dropped == 1 else "rows"
        flattered = f"; {FLATTERED}" if changed or dropped else ""
        say(f"{changed} {labels} changed, {dropped} {rows} dropped by {config.data.relabel}{flattered}")
    return samples


def open_run(config: Config, samples: Samples, show: Show, say: Say) -> np.ndarray:
    """The run's folds, int8 (N,): those on disk, or new ones, in which copies of one picture share a fold. Raises
    UserError if the run on disk is another one."""
    assert samples.labels is not None
    run = config.run
    corrections = samples.corrections or (0, 0)
    facts = {
        "seed": config.seed,
        "folds": config.folds.model_dump(mode="json"),
        "group": config.data.group,
        "classes": list(samples.classes),
        "relabel": dict(zip(CORRECTED, corrections, strict=True)) if any(corrections) else None,
        "data fingerprint": samples.fingerprint(),
    }
    harm = None
    if rundir.is_begun(run):
        try:
            return _held_folds(config, samples.ids, facts)
        except Damaged as error:
            harm = error
            say(f"warning: {error}")
    old = rundir.folds_csv(run)
    if harm is None and old.is_file() and not rundir.provenance_json(run).is_file():
        raise UserError(f"{old}: is there already, and no run wrote it: choose another directory (run = ...)")
    groups = exact_groups(samples, say)
    if samples.folds is not None:
        folds = samples.folds.astype(np.int8)
        check_own_folds(folds, groups, samples.ids)
        check_classes(folds, samples.labels, samples.classes, f"spread it in column {config.folds.fold!r}")
    if config.folds.near_copies:
        groups = near_groups(samples, groups, config.data.cache, show, say)
    if samples.folds is None:
        folds = make_folds(samples.labels, samples.classes, config.folds.k, config.seed, groups, config.folds.method)
    elif groups is not None and (split := across(folds, groups)):
        say(f"warning: {split} sets of near copies stand in two or more of your own folds, which flatters their scores")
    if (odd := uneven(folds, groups if samples.folds is None else None)) is not None:
        say(odd.line())
    try:
        run.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"run = {str(run)!r}: a file is in the way; choose another directory") from None
    listed = listing(samples, folds, groups)
    files = {name: xxhash.xxh3_128(text.encode()).hexdigest() for name, text in listed.items()}
    vouched = harm is not None and _is_same(run, files, harm)
    rundir.write_config(run, to_toml(config))
    if not vouched:
        write_json(rundir.provenance_json(run), {"facts": facts, "files": files, "made with": _versions()})
    write_folds(Run(run), listed)
    return folds


def _held_folds(config: Config, ids: np.ndarray, facts: dict[str, Any]) -> np.ndarray:
    """The folds of a run that is begun. Raises UserError if it is another one, Damaged if a file of it is."""
    run = config.run
    for path in (rundir.provenance_json(run), rundir.classes_json(run), rundir.folds_csv(run)):
        if not path.is_file():
            raise damaged(path, "missing")
    held = dict(rundir.read_provenance(run)["facts"])
    of_folds = held.get("folds")
    if isinstance(of_folds, dict):  # it may be older than one of the keys
        held["folds"] = Folds().model_dump(mode="json") | of_folds
    for key, value in facts.items():
        if held.get(key) != value:
            raise UserError(
                f"{run}: holds a run with another {key} ({short(held.get(key))}; now {short(value)}): "
                "set it back, or give this run a directory of its own (run = ...)"
            )
    rundir.write_config(run, to_toml(config))  # as last used: a backbone may be new
    rundir.read_classes(run)
    table = read_folds(Run(run)).set_index("id")
    return np.asarray(table.loc[ids, "fold"], dtype=np.int8)


def _is_same(run: Path, files: dict[str, str], harm: Damaged) -> bool:
    """True if the digests of folds.csv and classes.json, made anew, are those in provenance.json; False if that is
    damaged itself, and they are those of the files on disk. Raises UserError where they are not."""
    try:
        vouched, whole = rundir.read_provenance(run).get("files", {}), True
    except UserError:
        vouched, whole = {name: sealed.digest(run / name) for name in files if (run / name).is_file()}, False
    if files != vouched:
        raise UserError(
            f"{harm}, but here it comes out otherwise (other data, settings or libraries than then): put the file back "
            "from a copy, or train in a directory of its own (run = ...)"
        )
    return whole


def check_contents(run: Path, ids: Sequence[str], digests: Sequence[str], say: Say) -> None:
    """Warn if the images hold other pixels than when the run began (the fingerprint has only their sizes): its finished
    folds have seen the old ones. ids, digests: of the rows and of their files."""
    now, path = contents_of(ids, digests), rundir.contents_json(run)
    if not rundir.is_begun(run) or not whole(path, partial(read_json, kind=Contents), say):
        write_json(path, now)
        return
    held = read_json(path, Contents)
    if held["sha256"] == now["sha256"]:
        if "rows" not in held:  # an older ens kept none
            write_json(path, now)
    else:
        say(
            f"warning: images have changed since {run} began; what is trained from now on sees the new ones: to have "
            "all folds alike, put them back, or delete the run"
        )


def whole(path: Path, read: Callable[[Path], object], say: Say) -> bool:
    """True if a file is there and `read` takes it; of one that is damaged it is said, since what follows writes it
    again."""
    if not path.is_file():
        return False
    try:
        read(path)
        return True
    except UserError as error:
        say(f"warning: {error}")
        return False


def short(value: Any) -> str:
    """JSON of a value, cut to 60 characters, for a line."""
    return shortened(json.dumps(value, ensure_ascii=False))


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
