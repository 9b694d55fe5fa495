"""What comes before a backbone's folds: its pixels, its probes, and the numeric settings that it is trained with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ensemble.backbones import timm_model
from ensemble.config import Backbone, Config, train_settings
from ensemble.data.cache.folder import cache_folder
from ensemble.data.pixels.preprocess import load_preprocess
from ensemble.device import free_cached_memory, is_out_of_memory, side_by_side
from ensemble.errors import RunFailure, UserError
from ensemble.events import Events
from ensemble.files.claims import ClaimLost, Taken, claimed_when_free
from ensemble.files.reading import Finite, read_json
from ensemble.files.sealed import write_json
from ensemble.inference.choose_format import LEAST_ROWS, find_speeds
from ensemble.inference.compiled import how_to_install, installed
from ensemble.inference.decodings import geometry
from ensemble.inference.formats import engine_formats, formats
from ensemble.inference.member import check_view_sizes
from ensemble.inference.predict import batch_rows
from ensemble.inference.views import check_views
from ensemble.run import Fold, Member, Run
from ensemble.train.evaluate import Evaluation
from ensemble.train.members import crop_size, image_size, make_model, probes
from ensemble.train.mend import is_readable
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
from ensemble.train.pixels import OpenPixels, all_decodings, open_cache, training_data
from ensemble.train.probe import LastFeatures, load_heads, probe_member
from ensemble.train.rows import Rows
from ensemble.train.teacher import fastest_dtype, read_teacher_speeds


def prepare(
    config: Config,
    backbone: Backbone,
    rows: Rows,
    open_pixels: OpenPixels,
    device: torch.device,
    threads: int,
    events: Events,
    last_features: LastFeatures,
) -> dict[str, float]:
    """What comes before a backbone's folds: its probes, and its numeric settings. Returns its images per second.
    threads: of one worker. last_features: see `probe_member`."""
    settings = train_settings(config, backbone)
    member = Run(config.run).member(backbone.name)
    member.path.mkdir(parents=True, exist_ok=True)

    def on_wait(taken: Taken) -> None:
        events.progress(f"{backbone.name}: waiting for {taken}, which prepares it", 0, 1)

    try:
        with claimed_when_free(member.claim_file, on_wait):  # another process may do the same
            if probes(settings) and rows.fold_count:  # refits have one of their own, on all rows
                is_lacking = not is_readable(member.probe_file, load_heads, events)
                if settings.strategy == "probe":  # its folds are written with it
                    is_lacking = bool(unfinished(member, rows.fold_count))
                if is_lacking:
                    evaluation = evaluation_of(config, backbone, device)
                    model = make_model(config, backbone, len(rows.classes), 0)
                    data = training_data(config.data, rows, evaluation, open_pixels, events)
                    data = replace(data, rows=rows.labelled())
                    alone = settings.strategy == "probe"
                    probe_member(member, model, data, evaluation, alone, events, settings.head, last_features)
            if settings.strategy == "probe":
                return {}
            names = allowed_formats(config, rows, device)
            is_timed = config.tta.dtype == "auto" or len(names) > 1
            if is_timed and not is_readable(member.speeds_json, read_speeds, events):
                write_json(member.speeds_json, forward_speeds(config, backbone, device, events, names))
            line = unused_engine(config, backbone.name, allowed_speeds(config, member, rows, device))
            if line is not None and rows.fold_count:
                events.message(line)
            if not is_readable(member.numerics_json, load_numerics, events):
                numerics = training_numerics(config, backbone, rows, device, threads, events)
                save_numerics(member.numerics_json, numerics)
                events.message(f"{backbone.name}: {describe(numerics)}")
    except ClaimLost:  # this process was suspended, and another one prepares the member: it is waited for
        return prepare(config, backbone, rows, open_pixels, device, threads, events, last_features)
    seconds = 1 / load_numerics(member.numerics_json).images_per_second
    if member.teachers_json.is_file():
        all_speeds = read_teacher_speeds(member.teachers_json).values()
        seconds += sum(1 / speeds[fastest_dtype(speeds)] for speeds in all_speeds)
    return {backbone.name: 1 / seconds}


def _trial(
    config: Config, backbone: Backbone, device: torch.device, threads: int, images: int = 0
) -> tuple[Path, int, list[Numerics]]:
    """Where the machine's choice for this backbone is kept, the batch to try, and what is tried. images: of a job, on
    which it depends whether compiling is tried at all; on a CPU it is not."""
    settings = train_settings(config, backbone)
    by_hand = settings.micro_batch != "auto"
    batch = min(settings.batch_size, int(settings.micro_batch)) if by_hand else settings.batch_size
    plan = candidates(device, settings.dtype, settings.memory_format, settings.compile)
    known = known_file(
        known_folder(config) / "numerics", timm=backbone.timm, size=crop_size(config, backbone), batch=batch,
        strategy=settings.strategy, stages=settings.stages, plan=[str(candidate) for candidate in plan],
        threads=threads, device=device_name(device),
        **({"images": images} if settings.compile == "auto" and plan[-1].compile else {}),
    )  # fmt: skip
    return known, batch, plan


def forget_slow(config: Config, backbone: Backbone, device: torch.device, threads: int) -> str | None:
    """A line, where the steps of training were far slower than in the trial that chose the member's numeric settings:
    the machine forgets the choice, which is timed again in the next run. This run keeps it: its folds would else end in
    other bits when they are stopped and go on."""
    member = Run(config.run).member(backbone.name)
    if device.type != "cpu" or not member.numerics_json.is_file():  # a GPU's steps end after they return
        return None
    try:
        lines = [line for fold in member.folds() if fold.log_file.is_file() for line in fold.read_log()]
    except UserError:  # a damaged log costs this line alone
        return None
    rates = [line["step_images_per_second"] for line in lines if "step_images_per_second" in line]
    numerics, (known, _, plan) = load_numerics(member.numerics_json), _trial(config, backbone, device, threads)
    if not rates or max(rates) >= SHORT * numerics.images_per_second:
        return None
    known.unlink(missing_ok=True)
    if len(plan) == 1:  # settings by hand: only the speed was timed
        return None
    return (
        f"{backbone.name}: its steps reached {max(rates):.0f} images/s, where the trial had "
        f"{numerics.images_per_second:.0f}: the numeric settings ({numerics.dtype}, {numerics.memory_format}) may be "
        "wrong; this run keeps them, and they will be timed again in the next run"
    )


def training_numerics(
    config: Config, backbone: Backbone, rows: Rows, device: torch.device, threads: int, events: Events
) -> Numerics:
    """The numeric settings for this backbone on this machine, timed unless they were before."""
    size, classes = crop_size(config, backbone), len(rows.classes)
    images = len(rows.train_rows(0)) * train_settings(config, backbone).epochs
    known, batch, plan = _trial(config, backbone, device, threads, images)
    if is_readable(known, load_numerics, events):
        return load_numerics(known)
    events.progress(f"{backbone.name}: finding the fastest numeric settings", 0, 1)
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        create = partial(make_model, config, backbone, classes, 0)
        found, doubt = find_numerics(create, size, classes, batch, device, plan, images)
    finally:
        torch.set_num_threads(usual)
        free_cached_memory(device)
    if not doubt:
        save_numerics(known, found)
    elif len(plan) > 1:
        events.message(
            f"{backbone.name}: {doubt} while the numeric settings were timed; they will be timed again in the next run"
        )
    return found


def forward_speeds(
    config: Config, backbone: Backbone, device: torch.device, events: Events, names: Sequence[str]
) -> dict[str, float]:
    """Images per second of a forward pass in each of these formats, float32 among them, timed unless it was before on
    this machine."""
    size = image_size(config, backbone)
    batch = batch_rows(config.tta.batch_size, device)
    known = known_file(
        known_folder(config) / "speeds", timm=backbone.timm, size=size, batch=batch, formats=list(names),
        device=device_name(device),
    )  # fmt: skip
    if not is_readable(known, read_speeds, events):
        events.progress(f"{backbone.name}: finding the fastest number format", 0, 1)
        create = partial(timm_model.create, backbone.timm, 2, size)
        work = partial(find_speeds, create, size, batch, names)
        speeds, busy = side_by_side(work, [device], device)[0]
        if busy:
            events.message(
                f"{backbone.name}: the machine was busy while the number formats were timed; they will be timed again "
                "in the next run"
            )
            return speeds
        write_json(known, speeds)
    return read_speeds(known)


def known_folder(config: Config) -> Path:
    """Where this machine keeps its choices between runs."""
    return cache_folder("auto" if config.data.cache == "off" else config.data.cache)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def read_speeds(path: Path) -> dict[str, float]:
    return read_json(path, dict[str, Finite], "delete it, and the speeds are measured again")


def allowed_formats(config: Config, rows: Rows, device: torch.device) -> list[str]:
    """The formats that evaluation may be computed in: float32, those of `tta.dtype`, and those of `tta.engine` where
    folds hold out enough rows to check them on. Raises UserError if that engine is not installed."""
    engine = config.tta.engine
    if engine not in ("auto", "torch", *installed()):
        raise UserError(f"tta.engine = {engine!r}: it is not installed: {how_to_install(engine)}")
    names = formats(device)
    held_out = [len(rows.held_out_rows(fold)) for fold in range(rows.fold_count)]
    if engine != "torch" and held_out and max(held_out) >= LEAST_ROWS:
        names = names + (engine_formats(device) if engine == "auto" else engine_formats(device, [engine]))
    return [name for name in names if config.tta.dtype == "auto" or name.endswith("float32")]


def allowed_speeds(config: Config, member: Member, rows: Rows, device: torch.device) -> dict[str, float]:
    """The formats that a member may be computed in, with their speeds."""
    names = allowed_formats(config, rows, device)
    if names == ["float32"]:
        return {"float32": 1.0}
    return {name: speed for name, speed in read_speeds(member.speeds_json).items() if name in names}


def unused_engine(config: Config, name: str, speeds: Mapping[str, float]) -> str | None:
    """A line where the engine that is asked for by name is not among the formats that a member may be computed in."""
    engine = config.tta.engine
    if engine in ("auto", "torch") or any(each.startswith(f"{engine} ") for each in speeds):
        return None
    return (
        f"{name}: torch evaluates it, not tta.engine = {engine!r}, which needs a CPU, a network that it can compute, "
        f"and folds that hold out at least {LEAST_ROWS} rows to check it on"
    )


def cached_pixels(config: Config, rows: Rows, backbones: Sequence[Backbone], events: Events) -> OpenPixels:
    """The pixels of these backbones, decoded and compared with their checksums; none without a cache."""
    if config.data.cache == "off" or rows.digests is None:
        return {}
    run = Run(config.run)
    needed = {
        decoding
        for backbone in backbones
        for decoding in all_decodings(
            load_preprocess(run.member(backbone.name).preprocess_json), tested_views(config, backbone)
        )
    }
    return {**open_cache(config.data, rows, sorted(needed, key=str), events)}


def why_unprepared(error: Exception) -> str:
    """Why a backbone can't be prepared. Raises what is neither a failure nor a lack of memory."""
    if isinstance(error, RunFailure):
        return str(error)
    if isinstance(error, RuntimeError) and is_out_of_memory(error):
        return "out of memory; lower tta.batch_size"
    raise error


def tested_views(config: Config, backbone: Backbone) -> tuple[str, ...]:
    """The views of the config, sets written out. Raises UserError for those that this backbone can't have."""
    preprocess = timm_model.preprocess_for(backbone.timm, image_size(config, backbone), config.data.crop)
    try:
        return check_views(config.tta.views, geometry(preprocess))
    except UserError as error:
        raise UserError(f"tta.views, for backbone {backbone.name!r}: {error}") from None


def check_views_of(config: Config, backbone: Backbone) -> None:
    """Raise UserError for views of the config that this backbone can't have; those of another size are tried."""
    views = tested_views(config, backbone)
    preprocess = timm_model.preprocess_for(backbone.timm, image_size(config, backbone), config.data.crop)
    try:
        check_view_sizes(backbone.timm, preprocess, views)
    except UserError as error:
        raise UserError(f"tta.views, for backbone {backbone.name!r}: {error}") from None


def evaluation_of(config: Config, backbone: Backbone, device: torch.device) -> Evaluation:
    """How the member's rows are evaluated, with the preprocessing that it has stored."""
    preprocess = load_preprocess(Run(config.run).member(backbone.name).preprocess_json)
    return Evaluation(preprocess, tested_views(config, backbone), config.tta.batch_size, device)


def backbone_named(config: Config, name: str) -> Backbone:
    return next(backbone for backbone in config.backbone if backbone.name == name)


def unfinished(member: Member, folds: int) -> list[Fold]:
    """Its folds, of so many, that are not whole."""
    return [member.fold(number) for number in range(folds) if not member.fold(number).is_done()]
