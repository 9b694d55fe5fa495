"""`ens tta-predict`: from a run, a blend and images to saved predictions and a submission."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ensemble import rundir
from ensemble.blend import GIVEN, Blend, check_sources, list_blends, load_blend
from ensemble.config import load_run_config
from ensemble.data.folds import read_folds
from ensemble.data.table import nfc, read_images
from ensemble.device import choose_device, keep_freed_memory
from ensemble.errors import UserError
from ensemble.logits import load_logits, write_logits
from ensemble.outputs import inputs_of, require_output
from ensemble.progress import Show, paced
from ensemble.stop import safe_points
from ensemble.tta import shards
from ensemble.tta.member import Member, load_member
from ensemble.tta.predict import Chunk, chunk_rows, predict_stream
from ensemble.tta.shards import Shard
from ensemble.tta.submission import follow, write_submission
from ensemble.tta.views import expand

Given = Callable[[int, int], Sequence[np.ndarray]]  # of rows start to stop: float32 (1, n, C) of each foreign member


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
class Predictor:
    """A blend of a run, loaded. members: those that ens trained, on the device. views: those of each of them."""

    blend: Blend
    members: tuple[Member, ...]
    views: tuple[tuple[str, ...], ...]
    folds: int
    batch_size: int
    device: torch.device


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
) -> Predicted:
    """Predict every image (or those that the sample submission names) by the run's blend, and write both files.

    The blend is applied to each fold's set of members, which is what it was fitted on, and the K probability vectors
    are averaged. Rows are predicted and kept in shards of `shard_rows` (None: as many as memory is meant for), so the
    same call goes on after a kill, and ends with the same bytes. on_bad: what to do with an image that can't be read:
    "error" raises UserError that names it; "skip" leaves its prediction empty.

    Raises UserError for anything else that doesn't fit, before the first image is decoded, and OSError that names a
    file which can't be written.
    """
    name, blend = find_blend(run, blend_name, views)
    ids, files = read_images(images, say)
    layout, ids, rows = follow(sample_submission, ids, blend.classes, form, say)  # a wrong form fails now
    files = [files[row] for row in rows]
    check_sources(run, name)
    given = foreign_predictions(run, name, blend, ids)
    require_output(output, [images, sample_submission, *inputs_of(run)])
    saved = rundir.predictions_file(run, images.stem if images.is_file() else images.resolve().name, name)
    keep_freed_memory()
    with shards.only_one(saved):
        predictor = load_predictor(run, blend, show)
        flattered = [member.name for member in predictor.members if rundir.is_optimistic(run, member.name)]
        if flattered:
            say(f"the scores of {', '.join(flattered)}, and so the blend's, are optimistic: the best epochs were kept")
        counted = (
            f"{len(predictor.members)} members x {predictor.folds} folds, {sum(map(len, predictor.views))} views in all"
        )
        say(f"{len(ids)} images, {counted}; on {predictor.device}")

        plan = shards.plan_digest(run, name, predictor.members, predictor.folds, predictor.batch_size, predictor.device)
        size = shard_rows or chunk_rows(predictor.members, predictor.batch_size)
        parts = shards.divide(saved, plan, ids, files, size, given)
        dropped = shards.keep_only(saved, parts)
        if dropped:
            say(f"{dropped} shards of a prediction that was stopped, of other images or settings, are dropped")
        unreadable = fill(parts, predictor, files, given, on_bad, show, say)
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


def fill(
    parts: Sequence[Shard],
    predictor: Predictor,
    files: Sequence[Path],
    given: Given,
    on_bad: str,
    show: Show,
    say: Callable[[str], None],
) -> dict[int, str]:
    """Predict the shards that are not there yet, and write each as soon as it is done.

    files: of all rows. Returns row -> why, for the images that could not be read. Raises UserError that names such a
    one if `on_bad` is "error".
    """
    unreadable: dict[int, str] = {}
    missing = []
    for part in parts:
        found = shards.unreadable_rows(part, len(predictor.blend.classes))
        if found is None and part.path.is_file():
            say(f"{part.path}: damaged; its rows are predicted again")
        if found is None or (found and on_bad == "error"):  # left out by a call that was told to skip
            missing.append(part)
        else:
            unreadable |= found
    kept = len(parts) - len(missing)
    if kept:
        say(f"goes on: {kept} of {len(parts)} shards are there")
    if not missing:
        return unreadable
    total = parts[-1].stop
    advance = paced(show, "predicting", total - sum(map(len, missing)), total)
    chunks = (files[part.start : part.stop] for part in missing)
    stream = predict_stream(
        predictor.members, chunks, predictor.views, predictor.batch_size, predictor.device, on_bad, advance
    )
    try:
        with safe_points(
            lambda: f"shard {kept + 1} of {len(parts)}", lambda: f"{kept} of {len(parts)} shards"
        ) as asked:
            for part, chunk in zip(missing, stream, strict=True):
                reasons = {row: _reason(why, files[part.start + row]) for row, why in chunk.unreadable.items()}
                probabilities = blend_chunk(predictor.blend, chunk, given(part.start, part.stop), len(part))
                shards.write(part, probabilities, reasons)
                unreadable |= {part.start + row: why for row, why in reasons.items()}
                kept += 1
                if asked():
                    raise KeyboardInterrupt
    except UserError as error:
        raise UserError(
            f"{error}; {kept} of {len(parts)} shards are kept, and the same command then goes on (with --on-bad skip "
            "it leaves such images without a prediction)"
        ) from None
    return unreadable


def find_blend(run: Path, name: str | None, views: Sequence[str] | None) -> tuple[str, Blend]:
    """The blend of this name, or the run's only one. Raises UserError if `views` are not those it was fitted on."""
    rundir.require_run(run)
    name = choose_blend(run, name)
    blend = load_blend(run, name)
    if views is not None and set(expand(views)) != set(blend.all_views):
        raise UserError(
            f"the blend was fitted on the views {','.join(blend.all_views)}, not {','.join(views)}: fit one on these "
            f"(ens blend {run} --views {','.join(views)}), or leave --views out"
        )
    return name, blend


def load_predictor(run: Path, blend: Blend, show: Show = lambda text, done, total: None) -> Predictor:
    """The blend's own members, on the device. Raises UserError that names a fold that is missing or not whole."""
    own = [(member, used) for member, used in zip(blend.members, blend.views, strict=True) if used != GIVEN]
    folds = int(read_folds(run)["fold"].max()) + 1
    device = choose_device()
    members = []
    for number, (member, _) in enumerate(own):
        show("loading the networks", number, len(own))
        members.append(load_member(run, member, len(blend.classes), folds, device))
    batch_size = load_run_config(rundir.config_toml(run)).tta.batch_size
    return Predictor(blend, tuple(members), tuple(used for _, used in own), folds, batch_size, device)


def blend_chunk(blend: Blend, chunk: Chunk, given: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Probabilities float32 (n, C) of a chunk of n = `count` images, NaN in the rows that could not be read.

    given: of each foreign member float32 (1, n, C).
    """
    probabilities = np.full((count, len(blend.classes)), np.nan, dtype=np.float32)
    rows = np.setdiff1d(np.arange(count), list(chunk.unreadable))
    if len(rows):
        folds = len(chunk.values[0]) if chunk.values else 1
        # A foreign member has one prediction: it stands beside each fold's. Foreign members come last in a blend.
        values = [*chunk.values, *(np.repeat(other[None], folds, axis=0) for other in given)]
        probabilities[rows] = blend_folds(blend, [member[:, :, rows] for member in values])
    return probabilities


def blend_folds(blend: Blend, values: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities (N, C) of logits (K, V, N, C) of each member: blended per fold, then averaged over the folds."""
    folds = len(values[0])
    return np.asarray(sum(blend.apply([member[fold] for member in values]) for fold in range(folds)) / folds)


def foreign_predictions(run: Path, blend_name: str, blend: Blend, ids: Sequence[str]) -> Given:
    """The kept test predictions of the foreign members for these N ids, by rows. Raises UserError without."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for member in blend.foreign:
        path = rundir.foreign_file(run, blend_name, member)
        if not path.is_file():
            raise UserError(
                f"blend {blend_name!r} holds {member}, which ens did not train, without test predictions; fit it again "
                f"with: ens blend {run} --add {member}=OOF,TEST"
            )
        test = load_logits(path, mapped=True)
        wanted = np.array([nfc(str(name)) for name in ids])
        found.append((test.values, test.find(wanted, f"the test predictions of {member}")))
    return lambda start, stop: [np.asarray(values[:, rows[start:stop]]) for values, rows in found]


def choose_blend(run: Path, name: str | None) -> str:
    """`name`, or the only blend there is. Raises UserError rather than guess between several."""
    there = list_blends(run)
    if name is not None:
        return name
    if len(there) != 1:
        found = (
            f"holds {len(there)} blends ({', '.join(there)}); choose one with --blend" if there else "holds no blend"
        )
        raise UserError(f"{run}: {found}" + ("" if there else f"; fit one with: ens blend {run} --method stack"))
    return there[0]


def _logs(part: Shard) -> np.ndarray:
    """The logarithms of probabilities are logits like any other, so one file format serves."""
    return np.asarray(np.log(np.maximum(shards.read(part), np.finfo(np.float32).tiny)))


def _reason(why: str, file: Path) -> str:
    """What is wrong with an image, without its name and what to do."""
    return why.removeprefix(f"{file}: ").removesuffix("; replace it or remove it")
