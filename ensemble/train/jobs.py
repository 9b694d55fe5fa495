"""Which backbone x fold jobs a run still lacks, and running them here, one after the other."""

import json
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

import ensemble
from ensemble import backbones, rundir
from ensemble.config import Backbone, Config, to_toml, train_settings
from ensemble.data.folds import check_classes, check_own_folds, copies, joined, make_folds, read_folds, write_folds
from ensemble.data.pixels import Decoding, Pixels, Preprocess, decode_all
from ensemble.data.table import Samples, read_samples
from ensemble.device import choose_device, keep_freed_memory
from ensemble.errors import RunFailure, UserError
from ensemble.progress import Show, duration
from ensemble.train.fit import fit
from ensemble.tta.views import check_views

Say = Callable[[str], None]


def train_folds(config: Config, show: Show, say: Say = print) -> list[str]:
    """Train every backbone on every fold that the run lacks; a finished fold is left as it is.

    Returns one line for each job that failed; the others are trained all the same. Raises UserError before anything
    is trained if the data, a backbone or the run directory does not fit.
    """
    samples, groups = read_data(config, say)
    assert samples.labels is not None
    check_views(config.tta.views)
    for backbone in config.backbone:
        check_backbone(config, backbone, len(samples.classes))
    folds = open_run(config, samples, groups)
    preprocesses = {backbone.name: open_member(config, backbone) for backbone in config.backbone}
    device = choose_device()
    keep_freed_memory()
    jobs = [
        (backbone, fold)
        for backbone in config.backbone
        for fold in range(int(folds.max()) + 1)
        if not rundir.is_done(rundir.fold_dir(config.run, backbone.name, fold))
    ]
    total = len(config.backbone) * (int(folds.max()) + 1)
    counts = f"{total} jobs, {total - len(jobs)} of them done"
    say(f"{len(samples)} images, {len(samples.classes)} classes; {counts}; on {device}")
    clock = Clock({(backbone.name, fold): _images(config, backbone, folds, fold) for backbone, fold in jobs})
    failures: list[str] = []
    held: tuple[Decoding, Pixels] | None = None
    for backbone, fold in jobs:
        preprocess = preprocesses[backbone.name]
        directory = rundir.fold_dir(config.run, backbone.name, fold)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(rundir.lock_file(directory), timeout=0):
                if rundir.is_done(directory):  # by another process, since the list of jobs was made
                    clock.left[backbone.name, fold] = 0
                    continue
                rundir.clear_temporaries(directory)
                if held is None or held[0] != preprocess.decoding:
                    held = None  # let go of the old pixels before the new ones are decoded
                    held = preprocess.decoding, decode_all(samples.paths, preprocess.decoding, config.run, show)
                seconds = fit(
                    directory,
                    member=backbone.name,
                    fold=fold,
                    create=partial(_create, config, backbone, len(samples.classes)),
                    preprocess=preprocess,
                    pixels=held[1],
                    ids=samples.ids,
                    labels=samples.labels,
                    folds=folds,
                    classes=samples.classes,
                    settings=train_settings(config, backbone),
                    views=config.tta.views,
                    eval_batch=config.tta.batch_size,
                    seed=config.seed,
                    device=device,
                    report=partial(clock.report, show, (backbone.name, fold)),
                )
                say(f"{backbone.name} fold {fold}: done in {duration(seconds)}")
        except Timeout:
            clock.left[backbone.name, fold] = 0
            say(f"{backbone.name} fold {fold}: another process is at it, left to that one")
        except (RunFailure, RuntimeError) as error:
            failure = str(error) if isinstance(error, RunFailure) else _out_of_memory(error, backbone.name, fold)
            clock.left[backbone.name, fold] = 0
            failures.append(failure)
            say(f"failed: {failure}")
    return failures


def _out_of_memory(error: RuntimeError, member: str, fold: int) -> str:
    """The line for an allocation that failed, on a GPU or on the CPU; any other error goes on its way."""
    if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
        raise error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return f"{member} fold {fold}: out of memory; lower its batch_size or its image_size"


def read_data(config: Config, say: Say) -> tuple[Samples, np.ndarray | None]:
    """The labelled samples, and their groups with copies of one file joined. Says what it joined."""
    data = config.data
    samples = read_samples(data.train, data.path, data.label, data.id, data.group, config.folds.fold, data.images)
    assert samples.labels is not None
    first = copies(samples.paths)
    copied = np.flatnonzero(first != np.arange(len(first)))
    if len(copied):
        say(f"{len(copied)} images are byte for byte copies of another; a copy shares its original's fold")
    clash = copied[samples.labels[copied] != samples.labels[first[copied]]]
    if len(clash):
        pair = f"{str(samples.ids[clash[0]])!r} and {str(samples.ids[first[clash[0]]])!r}"
        say(f"warning: {len(clash)} copies carry another label than their original, the first are {pair}")
    return samples, joined(samples.groups, first)


def open_run(config: Config, samples: Samples, groups: np.ndarray | None) -> np.ndarray:
    """The run's folds, int8 (N,): those on disk, or new ones. Raises UserError if the run on disk is another one."""
    assert samples.labels is not None
    run = config.run
    facts = {
        "seed": config.seed,
        "folds": config.folds.model_dump(mode="json"),
        "group": config.data.group,
        "classes": list(samples.classes),
        "data fingerprint": samples.fingerprint(),
    }
    if rundir.is_begun(run):
        held = rundir.read_json(rundir.provenance_json(run))["facts"]
        for key, value in facts.items():
            if held[key] != value:
                raise UserError(
                    f"{run}: holds a run with another {key} ({_short(held[key])}; now {_short(value)}): "
                    "set it back, or give this run a directory of its own (run = ...)"
                )
        rundir.write_text(rundir.config_toml(run), to_toml(config))  # as last used: a backbone may be new
        table = read_folds(run).set_index("id")
        return np.asarray(table.loc[samples.ids, "fold"], dtype=np.int8)
    if samples.folds is not None:
        folds = samples.folds.astype(np.int8)
        check_own_folds(folds, groups, samples.ids)
        check_classes(folds, samples.labels, samples.classes, f"spread it in column {config.folds.fold!r}")
    else:
        folds = make_folds(samples.labels, samples.classes, config.folds.k, config.seed, groups, config.folds.method)
    try:
        run.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"run = {str(run)!r}: a file is in the way; choose another directory") from None
    rundir.write_text(rundir.config_toml(run), to_toml(config))
    rundir.write_json(rundir.provenance_json(run), {"facts": facts, "made with": _versions()})
    write_folds(run, samples, folds, groups)  # the last: a run without it is begun anew
    return folds


class Clock:
    """How long the jobs at hand still take, from the images per second seen so far."""

    def __init__(self, images: dict[tuple[str, int], int]) -> None:
        self.left = dict(images)  # per job
        self.total = sum(images.values())
        self.seconds: dict[str, float] = {}  # per backbone, while training
        self.images: dict[str, int] = {}
        self.last = time.monotonic()
        self.job: tuple[str, int] | None = None

    def report(self, show: Show, job: tuple[str, int], text: str, loss: float, images: int, left: int) -> None:
        """Show a job's progress. images: trained since the last call. left: still to train in this job."""
        now = time.monotonic()
        name = job[0]
        if self.job == job:  # the first call of a job also spans its start, which is no measure of its speed
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
            self.images[name] = self.images.get(name, 0) + images
        self.job, self.last = job, now
        self.left[job] = left
        done = self.total - sum(self.left.values())
        if name in self.images:
            speed = self.images[name] / self.seconds[name]
            text = f"{text}  loss {loss:.3f}  {speed:.0f} images/s  {duration(self.remaining())} left"
        show(text, done, self.total)

    def remaining(self) -> float:
        """Seconds; a backbone that has not run yet is taken to be as fast as the mean of those that have."""
        mean = sum(self.seconds.values()) / sum(self.images.values())
        rates = {name: self.seconds[name] / self.images[name] for name in self.images}
        return sum(left * rates.get(name, mean) for (name, _), left in self.left.items())


def _images(config: Config, backbone: Backbone, folds: np.ndarray, fold: int) -> int:
    return int((folds != fold).sum()) * train_settings(config, backbone).epochs


def _create(config: Config, backbone: Backbone, classes: int) -> torch.nn.Module:
    size = backbone.image_size or config.data.image_size
    model = backbones.create(backbone.timm, classes, size, backbone.pretrained, backbone.weights)
    backbones.freeze(model, train_settings(config, backbone).trainable)
    return model


def check_backbone(config: Config, backbone: Backbone, classes: int) -> None:
    """Make the backbone once, try it and drop it, now and not when its turn comes an hour later. Raises UserError."""
    size = backbone.image_size or config.data.image_size
    try:
        model = _create(config, backbone, classes).eval()
    except UserError as error:
        raise UserError(f"backbone {backbone.name!r}: {error}") from None
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"backbone {backbone.name!r}: does not work at image_size = {size}: {reason}") from None


def open_member(config: Config, backbone: Backbone) -> Preprocess:
    """Make the member's directory. Raises UserError if the run holds the member with other settings: its folds would
    not be of one kind."""
    size = backbone.image_size or config.data.image_size
    preprocess = backbones.preprocess_for(backbone.timm, size, config.data.crop)
    start = "hub" if backbone.pretrained else "scratch"
    if backbone.weights:
        start = backbones.digest(backbone.weights)
    settings = {
        "timm": backbone.timm,
        "start": start,
        "views": list(config.tta.views),
        **train_settings(config, backbone).model_dump(mode="json"),
        **asdict(preprocess),
    }
    settings = json.loads(json.dumps(settings))
    path = rundir.settings_json(config.run, backbone.name)
    if rundir.is_begun(config.run, backbone.name):
        held = rundir.read_json(path)
        for key in settings:
            if held.get(key) != settings[key]:
                raise UserError(
                    f"backbone {backbone.name!r}: {path.parent} holds it with {key} = {_short(held.get(key))}, "
                    f"the config says {_short(settings[key])}: set it back, give the backbone another name, "
                    f"or delete {path.parent} to train it again"
                )
    else:
        preprocess.save(rundir.preprocess_json(config.run, backbone.name))
        rundir.write_json(path, settings)
    return preprocess


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
