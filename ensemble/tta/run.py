"""`ens tta-predict`: from a run, a blend and images to saved predictions and a submission.

Networks, and torch, are loaded only for logits that the run does not keep from before (ensemble/tta/kept.py)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble import rundir
from ensemble.blend import GIVEN, Blend, check_sources
from ensemble.config import load_run_config
from ensemble.data.cache.shards import size
from ensemble.data.folds import fold_count
from ensemble.data.logits import load_logits, write_logits
from ensemble.data.pixels.decode import decode
from ensemble.data.pixels.preprocess import Preprocess, load_preprocess
from ensemble.data.samples import read_images
from ensemble.data.submission.write import follow, write_submission
from ensemble.errors import UserError
from ensemble.machine import cores, device_type, threads_allowed
from ensemble.progress import Show, paced
from ensemble.run import Run
from ensemble.run.outputs import inputs_of, require_output
from ensemble.stop import safe_points
from ensemble.tta import kept as kept_logits
from ensemble.tta import shards
from ensemble.tta.apply import Given, blend_chunk, find_blend, foreign_predictions
from ensemble.tta.kept import Kept
from ensemble.tta.shards import Shard

Say = Callable[[str], None]


@dataclass(frozen=True)
class Predicted:
    """What `tta_predict` made. ids: N, in the order of the rows. unreadable: how many of them have no prediction."""

    ids: np.ndarray
    classes: tuple[str, ...]
    predictions: Path
    submission: Path
    said: str
    unreadable: int

    @property
    def probabilities(self) -> np.ndarray:
        """float32 (N, C), read from the predictions' file; NaN in rows without a prediction."""
        return np.asarray(np.exp(load_logits(self.predictions).values[0]))


@dataclass(frozen=True)
class Wanted:
    """What is to be predicted: N image files by a blend of a run. given: the predictions of its foreign members.
    preprocesses: by member, of those that ens trained."""

    run: Path
    blend: Blend
    files: Sequence[Path]
    given: Given
    preprocesses: dict[str, Preprocess]
    folds: int
    batch_size: int
    on_bad: str


@dataclass(frozen=True)
class Job:
    """Images of one shard that lack the same columns. rows: int64 (n,), of all. columns: their numbers."""

    rows: np.ndarray
    columns: tuple[int, ...]


def tta_predict(
    run: Path,
    images: Path,
    output: Path,
    show: Show,
    blend_name: str | None = None,
    views: Sequence[str] | None = None,
    sample_submission: Path | None = None,
    form: str | None = None,
    say: Callable[[str], None] = print,
    on_bad: str = "error",
    shard_rows: int | None = None,
    keep_bytes: int = kept_logits.LIMIT,
) -> Predicted:
    """Predict every image (or those that the sample submission names) by the run's blend, and write both files.

    The blend is applied to each fold's set of members, which is what it was fitted on, and the K probability vectors
    are averaged. Rows are predicted and kept in shards of `shard_rows` (None: as many as memory is meant for), so the
    same call goes on after a kill, and ends with the same bytes. on_bad: what to do with an image that can't be read:
    "error" raises UserError that names it; "skip" leaves its prediction empty. keep_bytes: how many bytes of logits the
    run may keep, of these and other images, so that another blend of them needs no network; 0 keeps none.

    Raises UserError for anything else that doesn't fit, before the first image is decoded, and OSError that names a
    file which can't be written.
    """
    name, blend = find_blend(run, blend_name, views)
    ids, files = read_images(images, say)
    layout, ids, rows = follow(sample_submission, ids, blend.classes, form, say)  # a wrong form fails now
    files = [files[row] for row in rows]
    check_sources(run, name)
    given = foreign_predictions(run, name, blend, ids)
    require_output(output, [images, sample_submission, *inputs_of(Run(run))])
    images_name = images.stem if images.is_file() else images.resolve().name
    saved = rundir.predictions_file(run, images_name, name)
    own = {member: used for member, used in zip(blend.members, blend.views, strict=True) if used != GIVEN}
    preprocesses = {member: load_preprocess(rundir.preprocess_json(run, member)) for member in own}
    folds = fold_count(Run(run))
    batch_size = load_run_config(rundir.config_toml(run)).tta.batch_size
    wanted = Wanted(run, blend, files, given, preprocesses, folds, batch_size, on_bad)
    logits_dir = rundir.logits_dir(run, images_name)
    with shards.only_one(saved), kept_logits.adding(logits_dir.parent) as may_add:
        flattered = [member for member in own if rundir.is_optimistic(run, member)]
        if flattered:
            say(f"the scores of {', '.join(flattered)}, and so the blend's, are optimistic: the best epochs were kept")
        device = device_type()
        columns = kept_logits.columns(run, blend, folds, batch_size, device)
        kept = kept_logits.find(logits_dir, files, columns, (folds, len(blend.classes)))
        say(
            f"{len(ids)} images, {len(own)} members x {folds} folds, {len(columns)} views in all; "
            f"{_where(kept, device)}"
        )
        if kept.damaged:
            say(f"{logits_dir}: {kept.damaged} damaged files of kept logits are removed; they are computed again")
        keeps = kept.nbytes() > 0 and may_add and kept_logits.make_room(kept, keep_bytes)
        if kept.nbytes():
            say(_keeping(kept, keeps, may_add, keep_bytes))

        plan = shards.plan_digest(run, name, columns)
        rows_each = shard_rows or shards.chunk_rows(
            list(preprocesses.values()), networks(run, list(own), folds), batch_size, device
        )
        parts = shards.divide(saved, plan, ids, files, rows_each, given)
        dropped = shards.keep_only(saved, parts)
        if dropped:
            say(f"{dropped} shards of a prediction that was stopped, of other images or settings, are dropped")
        unreadable = fill(parts, wanted, kept, keeps, show, say)
        if unreadable:
            say(f"{len(unreadable)} of {len(ids)} images could not be read and have no prediction:")
            for line in shards.images_of(ids, unreadable):
                say(line)
        if len(unreadable) == len(ids):
            shards.remove(saved)
            raise UserError(f"{images}: not one of its {len(ids)} images could be read")

        # The shards go last: whoever is killed before finds them, and writes the same bytes again.
        meta = {"blend": name, "images": str(images)}
        shape = (1, len(ids), len(blend.classes))
        write_logits(saved, ids, ("blend",), blend.classes, shape, map(_logs, parts), meta)
        said = write_submission(output, layout, ids, map(shards.read, parts))
        shards.remove(saved)
    said += f"; {len(unreadable)} images have empty cells" if unreadable else ""
    return Predicted(np.array(ids), blend.classes, saved, output, said, len(unreadable))


def fill(parts: Sequence[Shard], wanted: Wanted, kept: Kept, keeps: bool, show: Show, say: Say) -> dict[int, str]:
    """Predict the shards that are not there yet, and write each as soon as it is done.

    keeps: whether logits that `kept` lacks are added to it. Returns row -> why, for the images that could not be read.
    Raises UserError that names such a one if they are not to be skipped.
    """
    unreadable: dict[int, str] = {}
    missing = []
    for part in parts:
        found = shards.unreadable_rows(part, len(wanted.blend.classes))
        if found is None and part.path.is_file():
            say(f"{part.path}: damaged; its rows are predicted again")
        if found is None or (found and wanted.on_bad == "error"):  # left out by a call that was told to skip
            missing.append(part)
        else:
            unreadable |= found
    done = len(parts) - len(missing)
    if done:
        say(f"goes on: {done} of {len(parts)} shards are there")
    failed = _still_unreadable(missing, wanted, kept)
    jobs = {part: _jobs(part, kept, failed) for part in missing}
    stream = _computed([job for part in missing for job in jobs[part]], wanted, kept, parts, show)
    try:
        with safe_points(
            lambda: f"shard {done + 1} of {len(parts)}", lambda: f"{done} of {len(parts)} shards"
        ) as asked:
            for part in missing:
                values = kept.read(slice(part.start, part.stop))
                reasons = {row: why for row, why in failed.items() if part.start <= row < part.stop}
                for job in jobs[part]:
                    new, bad = next(stream)
                    reasons |= {
                        int(job.rows[row]): _reason(why, wanted.files[job.rows[row]]) for row, why in bad.items()
                    }
                    for column, own in zip(job.columns, new, strict=True):
                        values[column][:, job.rows - part.start] = own
                    keeps = keeps and _kept(kept, job, new, bad, say)
                shards.write(part, *_blended(wanted, kept, part, values, reasons))
                unreadable |= reasons
                done += 1
                if asked():
                    raise KeyboardInterrupt
    except UserError as error:
        raise UserError(
            f"{error}; {done} of {len(parts)} shards are kept, and the same command then goes on (with --on-bad skip "
            "it leaves such images without a prediction)"
        ) from None
    return unreadable


def _jobs(part: Shard, kept: Kept, failed: dict[int, str]) -> list[Job]:
    """What has to be computed of a shard: usually nothing, or all columns of all its rows."""
    lacking = kept.lacking(slice(part.start, part.stop))
    if not lacking.any():
        return []
    lacking[[row - part.start for row in failed if part.start <= row < part.stop]] = False
    patterns, which = np.unique(lacking, axis=0, return_inverse=True)
    return [
        Job(part.start + np.flatnonzero(which.reshape(-1) == number), tuple(np.flatnonzero(pattern).tolist()))
        for number, pattern in enumerate(patterns)
        if pattern.any()
    ]


def _computed(
    jobs: Sequence[Job], wanted: Wanted, kept: Kept, parts: Sequence[Shard], show: Show
) -> Iterator[tuple[list[np.ndarray], dict[int, str]]]:
    """Of each job what `column_logits` gives. Networks are loaded at once, for all jobs."""
    if not jobs:
        return iter(())
    from ensemble.device import keep_freed_memory
    from ensemble.tta.predictor import column_logits, load_members

    keep_freed_memory()
    numbers = {number for job in jobs for number in job.columns}
    names = list(dict.fromkeys(column.member for q, column in enumerate(kept.columns) if q in numbers))
    members = load_members(wanted.run, names, len(wanted.blend.classes), wanted.folds, show)
    total = parts[-1].stop
    advance = paced(show, "predicting", total - sum(len(job.rows) for job in jobs), total)
    chunks = (
        ([wanted.files[row] for row in job.rows], tuple(kept.columns[number] for number in job.columns)) for job in jobs
    )
    return column_logits(members, chunks, wanted.batch_size, wanted.on_bad, advance)


def _still_unreadable(parts: Sequence[Shard], wanted: Wanted, kept: Kept) -> dict[int, str]:
    """Row -> why, of the images that could not be read before and, being tried again, still can't: to know that of the
    few that a set may have takes no network."""
    found = {}
    if wanted.on_bad == "skip" and wanted.preprocesses and kept.failed.any():
        decoding = next(iter(wanted.preprocesses.values())).decoding
        for row in (row for part in parts for row in range(part.start, part.stop) if kept.failed[kept.image[row]]):
            try:
                decode(wanted.files[row], decoding)
            except UserError as error:
                found[row] = _reason(str(error), wanted.files[row])
    return found


def _kept(kept: Kept, job: Job, values: list[np.ndarray], unreadable: dict[int, str], say: Say) -> bool:
    """Keep what was computed. False, and a line, where that fails: predictions need it not."""
    try:
        kept_logits.keep(kept, job.rows, job.columns, values, unreadable)
    except OSError as error:
        say(f"{kept.folder}: further logits are not kept for other blends ({error.strerror})")
        return False
    return True


def _blended(
    wanted: Wanted, kept: Kept, part: Shard, values: list[np.ndarray], reasons: dict[int, str]
) -> tuple[np.ndarray, dict[int, str]]:
    """Probabilities of a shard's rows, float32 (n, C), and why some have none, by their rows in it."""
    members = [
        np.stack([own for own, column in zip(values, kept.columns, strict=True) if column.member == member], axis=1)
        for member in wanted.preprocesses
    ]
    own_reasons = {row - part.start: why for row, why in reasons.items()}
    given = wanted.given(part.start, part.stop)
    return blend_chunk(wanted.blend, members, own_reasons, given, len(part)), own_reasons


def networks(run: Path, members: Sequence[str], folds: int) -> int:
    """How many there are to load: the folds of a linear probe share theirs."""
    settings = [rundir.read_settings(run, member) for member in members]
    return sum(1 if own.get("strategy") == "probe" else folds for own in settings)


def _where(kept: Kept, device: str) -> str:
    """Where networks will run, and on how many cores, or that none will."""
    lacking = kept.file < 0
    if not lacking.any() and lacking.size:
        return "all their logits are kept from before: no network is run"
    there = "" if lacking.all() else f"; {1 - lacking.mean():.0%} of their logits are kept from before"
    threads = threads_allowed()
    if device == "cpu" and threads is not None and threads < cores():
        return f"on cpu, {threads} of {cores()} cores (OMP_NUM_THREADS={threads}){there}"
    return f"on {device}{there}"


def _keeping(kept: Kept, keeps: bool, may_add: bool, limit: int) -> str:
    """Whether what is computed will be kept, and where."""
    new = size(kept.nbytes())
    if keeps:
        return (
            f"their logits ({new}) are kept in {kept.folder}, so that another blend of these images runs no network; "
            "delete that folder to free the space"
        )
    if not may_add:
        return "their logits are not kept for other blends: another ens tta-predict of this run is keeping its own"
    return (
        f"their logits are not kept for other blends: they would take {new}, and the run may keep {size(limit)} in all "
        "(--keep-gb sets that)"
    )


def _logs(part: Shard) -> np.ndarray:
    """The logarithms of probabilities are logits like any other, so one file format serves."""
    return np.asarray(np.log(np.maximum(shards.read(part), np.finfo(np.float32).tiny)))


def _reason(why: str, file: Path) -> str:
    """What is wrong with an image, without its name and what to do."""
    return why.removeprefix(f"{file}: ").removesuffix("; replace it or remove it")
