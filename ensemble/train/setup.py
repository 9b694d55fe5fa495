"""What a run is made of and held to: its samples, its folds, its members' settings. No training here."""

import json
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

import ensemble
from ensemble import backbones, rundir, sealed, weights
from ensemble.config import Backbone, Config, Folds, Train, to_toml, train_settings
from ensemble.damage import damaged
from ensemble.data.contents import Contents, contents_of
from ensemble.data.folds import across, check_classes, check_own_folds, listing, make_folds, read_folds, write_folds
from ensemble.data.labelled import names_base, read_labelled
from ensemble.data.name_groups import NAMED_GROUPS, suggested_groups
from ensemble.data.pixels import Preprocess, load_preprocess
from ensemble.data.table import Samples
from ensemble.data.ties import exact_groups, near_groups
from ensemble.data.uneven import uneven
from ensemble.device import choose_device
from ensemble.errors import Damaged, UserError
from ensemble.progress import Show

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
            say(f"warning: {found.said()}. {NAMED_GROUPS}")
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
        rundir.write_json(rundir.provenance_json(run), {"facts": facts, "files": files, "made with": _versions()})
    write_folds(run, listed)
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
                f"{run}: holds a run with another {key} ({_short(held.get(key))}; now {_short(value)}): "
                "set it back, or give this run a directory of its own (run = ...)"
            )
    rundir.write_config(run, to_toml(config))  # as last used: a backbone may be new
    rundir.read_classes(run)
    table = read_folds(run).set_index("id")
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
    if not rundir.is_begun(run) or not whole(path, partial(rundir.read_json, kind=Contents), say):
        rundir.write_json(path, now)
        return
    held = rundir.read_json(path, Contents)
    if held["sha256"] == now["sha256"]:
        if "rows" not in held:  # an older ens kept none
            rundir.write_json(path, now)
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


def make_model(config: Config, backbone: Backbone, classes: int, fold: int, say: Say | None = None) -> torch.nn.Module:
    """A fold's network as it starts, its frozen part frozen. say: is told what was loaded of a file. Raises
    UserError."""
    settings = train_settings(config, backbone)
    scratch = settings.strategy == "scratch"
    start = None
    if backbone.weights is not None and not scratch:
        start = weights.member_weights(backbone.weights, fold, backbone.timm)
    model = backbones.create(
        backbone.timm, classes, image_size(config, backbone), backbone.pretrained and not scratch, start,
        settings.drop_path, say,
    )  # fmt: skip
    backbones.freeze(model, trainable(settings))
    return model


def image_size(config: Config, backbone: Backbone) -> int:
    return backbone.image_size or config.data.image_size


def crop_size(config: Config, backbone: Backbone) -> int:
    """Side of the training crops. Objects look larger in random crops than in the middle of the whole image, so that
    networks do best when they are evaluated at a larger size than they are trained at (Touvron et al., Fixing the
    train-test resolution discrepancy, 2019)."""
    return train_settings(config, backbone).crop_size or image_size(config, backbone)


def trainable(settings: Train) -> str | int:
    """What `backbones.freeze` leaves open: "head", "all" or a number of stages."""
    if settings.strategy == "probe":
        return "head"
    return settings.stages if settings.strategy in ("partial", "probe-then-partial") else "all"


def probes(settings: Train) -> bool:
    """True if linear probes come first."""
    return settings.strategy is not None and settings.strategy.startswith("probe")


def check_backbone(config: Config, backbone: Backbone, classes: int, say: Say) -> None:
    """Make the backbone once, try it and drop it, now and not when its turn comes an hour later. say: is told what was
    loaded of a file. Raises UserError."""
    sizes = {"image_size": image_size(config, backbone), "crop_size": crop_size(config, backbone)}
    try:
        model = make_model(config, backbone, classes, 0, lambda line: say(f"{backbone.name}: {line}")).eval()
        for key, side in sizes.items():
            try:
                with torch.inference_mode():
                    model(torch.zeros(1, 3, side, side))
            except (RuntimeError, AssertionError, ValueError) as error:
                raise UserError(f"does not work at {key} = {side}: {str(error).splitlines()[0]}") from None
        if probes(train_settings(config, backbone)):
            backbones.check_embedding(model, sizes["image_size"])
    except UserError as error:
        raise UserError(f"backbone {backbone.name!r}: {error}") from None


def open_member(config: Config, backbone: Backbone, ids: np.ndarray, folds: np.ndarray, say: Say) -> Preprocess:
    """Make the member's directory. Raises UserError if the run holds the member with other settings: its folds would
    not be of one kind."""
    preprocess = backbones.preprocess_for(backbone.timm, image_size(config, backbone), config.data.crop)
    start: Any = "hub" if backbone.pretrained else "scratch"
    if backbone.weights:
        start = weights.source_of(backbone.weights)
        seen = weights.shared_rows(backbone.weights, ids, folds)
        if seen:
            say(
                f"warning: {backbone.name} starts from weights that were trained on {seen} of the rows it is scored "
                "on: its out-of-fold score will be too good"
            )
    elif train_settings(config, backbone).strategy == "scratch":
        start = "scratch"
    settings = {
        "timm": backbone.timm,
        "start": start,
        "views": list(config.tta.views),
        **train_settings(config, backbone).model_dump(mode="json"),
        **asdict(preprocess),
    }
    settings = json.loads(json.dumps(settings))
    path = rundir.settings_json(config.run, backbone.name)
    stored = rundir.preprocess_json(config.run, backbone.name)
    if rundir.is_begun(config.run, backbone.name):
        if not whole(path, rundir.read_json, say):
            rundir.write_json(path, settings)
            _require_trained_so(path)
        if not whole(stored, load_preprocess, say):
            preprocess.save(stored)
        held = dict(rundir.read_settings(config.run, backbone.name))
        for key in settings:
            if held.get(key) != settings[key]:
                raise UserError(
                    f"backbone {backbone.name!r}: {path.parent} holds it with {key} = {_short(held.get(key))}, "
                    f"the config says {_short(settings[key])}: set it back, give the backbone another name, "
                    f"or delete {path.parent} to train it again"
                )
    else:
        preprocess.save(stored)
        rundir.write_json(path, settings)
    return preprocess


def _require_trained_so(settings: Path) -> None:
    """Raise UserError, and take the file away, if settings.json, made anew, is not that of a finished fold."""
    run, member = settings.parent.parent, settings.parent.name
    for fold in rundir.folds_of(run, member):
        directory = rundir.fold_dir(run, member, fold)
        if rundir.is_done(directory):
            trained = rundir.read_done(directory).get("settings")
            if trained not in (None, sealed.file_checksum(settings)):
                settings.unlink()
                raise UserError(
                    f"{settings}: fold {fold} was trained with other settings than the config has now: set them back, "
                    f"or delete {settings.parent} to train it again"
                )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
