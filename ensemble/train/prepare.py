"""What comes before a backbone's folds: its pixels, its probes, and the numeric settings that it is trained with."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from ensemble import rundir
from ensemble.backbones import timm_model
from ensemble.config import Backbone, Config, train_settings
from ensemble.data.cache.store import cache_folder, open_pixels
from ensemble.data.pixels.decode import Files, Pixels
from ensemble.data.pixels.preprocess import Decoding, Preprocess, load_preprocess
from ensemble.data.samples import Samples
from ensemble.device import side_by_side
from ensemble.errors import UserError
from ensemble.files.reading import Finite, read_json
from ensemble.files.sealed import write_json
from ensemble.inference.eval_model import find_speeds, formats
from ensemble.inference.predict import batch_rows, geometry
from ensemble.inference.views import check_views
from ensemble.progress import Show
from ensemble.train.fit import Labelled
from ensemble.train.members import crop_size, image_size, make_model, probes
from ensemble.train.numerics import (
    SHORT,
    Numerics,
    candidates,
    describe,
    find_numerics,
    known_file,
    load_numerics,
    save_numerics,
)
from ensemble.train.probe import load_heads, probe_member
from ensemble.train.setup import whole
from ensemble.train.workers import Slot

Say = Callable[[str], None]
Opened = dict[Decoding, Pixels | Files]  # the pixels that this process has open


def prepare(
    config: Config,
    backbone: Backbone,
    samples: Samples,
    folds: np.ndarray,
    opened: Opened,
    device: torch.device,
    places: Sequence[Slot],
    show: Show,
    say: Say,
) -> dict[str, float]:
    """What comes before a backbone's folds: its probes, and its numeric settings. Returns its images per second."""
    settings = train_settings(config, backbone)
    classes = len(samples.classes)
    path = rundir.numerics_json(config.run, backbone.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / ".lock"):  # another process may be at it: it is waited for
        lacking = not whole(rundir.probe_file(config.run, backbone.name), load_heads, say)
        if settings.strategy == "probe":  # its folds are written with it
            lacking = bool(unfinished(config, backbone, int(folds.max()) + 1))
        if probes(settings) and lacking:
            preprocess = load_preprocess(rundir.preprocess_json(config.run, backbone.name))
            probe_member(
                config.run,
                backbone.name,
                partial(make_model, config, backbone, classes, 0),
                preprocess,
                labelled(config, samples, folds, preprocess, opened),
                settings,
                tested_views(config, backbone),
                config.tta.batch_size,
                device,
                show,
                say,
            )
        if settings.strategy == "probe":
            return {}
        speeds = rundir.speeds_json(config.run, backbone.name)
        if config.tta.dtype == "auto" and not whole(speeds, _read_speeds, say):
            write_json(speeds, _speeds(config, backbone, device, show, say))
        if not whole(path, load_numerics, say):
            numerics = _found(config, backbone, classes, device, places[0].threads, show, say)
            save_numerics(path, numerics)
            say(f"{backbone.name}: {describe(numerics)}")
    return {backbone.name: load_numerics(path).images_per_second}


def _trial(config: Config, backbone: Backbone, device: torch.device, threads: int) -> tuple[Path, int, list[Numerics]]:
    """Where the machine's choice for this backbone is kept, the batch to try, and what is tried."""
    settings = train_settings(config, backbone)
    by_hand = settings.micro_batch != "auto"
    batch = min(settings.batch_size, int(settings.micro_batch)) if by_hand else settings.batch_size
    plan = candidates(device, settings.dtype, settings.memory_format, settings.compile)
    known = known_file(
        cache_folder("auto" if config.data.cache == "off" else config.data.cache) / "numerics",
        timm=backbone.timm, size=crop_size(config, backbone), batch=batch, strategy=settings.strategy,
        stages=settings.stages, plan=[str(candidate) for candidate in plan], threads=threads,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    )  # fmt: skip
    return known, batch, plan


def forget_short(config: Config, backbone: Backbone, device: torch.device, threads: int) -> str | None:
    """A line, where the steps of training were far slower than in the trial that chose the member's numeric settings:
    the machine forgets the choice, and the next run times again. This run keeps it: its folds would else end in other
    bits when they are stopped and go on."""
    path = rundir.numerics_json(config.run, backbone.name)
    if device.type != "cpu" or not path.is_file():  # a GPU's steps end after they return
        return None
    folds = [rundir.fold_dir(config.run, backbone.name, fold) for fold in rundir.folds_of(config.run, backbone.name)]
    try:
        lines = [line for fold in folds if rundir.log_file(fold).is_file() for line in rundir.read_log(fold)]
    except UserError:  # a damaged log costs this line alone
        return None
    rates = [line["step_images_per_second"] for line in lines if "step_images_per_second" in line]
    numerics, known = load_numerics(path), _trial(config, backbone, device, threads)[0]
    if not rates or max(rates) >= SHORT * numerics.images_per_second:
        return None
    known.unlink(missing_ok=True)
    return (
        f"{backbone.name}: its steps reached {max(rates):.0f} images/s, where the trial had "
        f"{numerics.images_per_second:.0f}: the numeric settings ({numerics.dtype}, {numerics.memory_format}) may be "
        "wrong; this run keeps them, the next one times again"
    )


def _found(
    config: Config, backbone: Backbone, classes: int, device: torch.device, threads: int, show: Show, say: Say
) -> Numerics:
    """The numeric settings for this backbone on this machine, timed unless they were before."""
    size = crop_size(config, backbone)
    known, batch, plan = _trial(config, backbone, device, threads)
    if whole(known, load_numerics, say):
        return load_numerics(known)
    show(f"{backbone.name}: finding the fastest numeric settings", 0, 1)
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        create = partial(make_model, config, backbone, classes, 0)
        found, doubt = find_numerics(create, size, classes, batch, device, plan)
    finally:
        torch.set_num_threads(usual)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # it would be lacking to the workers
    if doubt:
        say(f"{backbone.name}: {doubt} while the numeric settings were timed: the next run times again")
    else:
        save_numerics(known, found)
    return found


def _speeds(config: Config, backbone: Backbone, device: torch.device, show: Show, say: Say) -> dict[str, float]:
    """Images per second of a forward pass in each number format, timed unless it was before on this machine."""
    size = image_size(config, backbone)
    batch = batch_rows(config.tta.batch_size, device)
    known = known_file(
        cache_folder("auto" if config.data.cache == "off" else config.data.cache) / "speeds",
        timm=backbone.timm, size=size, batch=batch, formats=formats(device),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    )  # fmt: skip
    if not whole(known, _read_speeds, say):
        show(f"{backbone.name}: finding the fastest number format", 0, 1)
        create = partial(timm_model.create, backbone.timm, 2, size)
        work = partial(find_speeds, create, size, batch)
        speeds, busy = side_by_side(work, [device], device)[0]
        if busy:
            say(f"{backbone.name}: the machine was busy while the number formats were timed: the next run times again")
            return speeds
        write_json(known, speeds)
    return _read_speeds(known)


def _read_speeds(path: Path) -> dict[str, float]:
    return read_json(path, dict[str, Finite], "delete it, and the speeds are measured again")


def allowed_speeds(config: Config, member: str) -> dict[str, float]:
    """The formats that a member may be computed in, with their speeds."""
    only = config.tta.dtype == "float32"
    return {"float32": 1.0} if only else _read_speeds(rundir.speeds_json(config.run, member))


def tested_views(config: Config, backbone: Backbone) -> tuple[str, ...]:
    """The views of the config, sets written out. Raises UserError for those that can't be had of this backbone."""
    preprocess = timm_model.preprocess_for(backbone.timm, image_size(config, backbone), config.data.crop)
    try:
        return check_views(config.tta.views, geometry(preprocess))
    except UserError as error:
        raise UserError(f"tta.views, for backbone {backbone.name!r}: {error}") from None


def labelled(config: Config, samples: Samples, folds: np.ndarray, preprocess: Preprocess, opened: Opened) -> Labelled:
    """The rows with their pixels: from the cache, opened once for all folds of a backbone, or from the files."""
    assert samples.labels is not None
    hows = list(dict.fromkeys([preprocess.cropping, preprocess.decoding]))
    shown = hows[0]
    if config.data.cache == "off":
        shown = Decoding(None, preprocess.interpolation, preprocess.crop)  # crops are cut from the whole image
        for how in [shown, *hows]:
            if how not in opened:
                opened[how] = Files(samples.paths, how)
    elif any(how not in opened for how in hows):
        opened.clear()  # a worker keeps the pixels of one backbone open
        opened |= open_cache(config, samples, hows, lambda text, done, total: None, print, verify=False)
    return Labelled(
        samples.ids, samples.labels, folds, samples.classes, samples.weights,
        opened[shown], {how: opened[how] for how in hows},
    )  # fmt: skip


def open_cache(
    config: Config, samples: Samples, hows: Sequence[Decoding], show: Show, say: Say, verify: bool = True
) -> dict[Decoding, Pixels]:
    """The decoded pixels of all samples, as the config says where and how many may be kept."""
    folder, limit = cache_folder(config.data.cache), int(config.data.cache_limit_gb * 1e9)
    return open_pixels(samples.paths, hows, folder, limit, show, verify, say, samples.digests)


def named(config: Config, member: str) -> Backbone:
    """The backbone of this name."""
    return next(backbone for backbone in config.backbone if backbone.name == member)


def unfinished(config: Config, backbone: Backbone, folds: int) -> list[int]:
    """Its folds, of so many, that are not whole."""
    return [fold for fold in range(folds) if not rundir.is_done(rundir.fold_dir(config.run, backbone.name, fold))]
