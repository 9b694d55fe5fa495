"""`ens tta-predict`: from a run, a blend and images to saved predictions and a submission."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble import rundir
from ensemble.blend import GIVEN, Blend, check_sources, list_blends, load_blend
from ensemble.blend.foreign import rows_of
from ensemble.config import load_config
from ensemble.data.folds import read_folds
from ensemble.data.table import read_images
from ensemble.device import choose_device, keep_freed_memory
from ensemble.errors import UserError
from ensemble.logits import Logits, load_logits
from ensemble.progress import Show
from ensemble.tta.predict import load_member, predict_stream
from ensemble.tta.submission import arrange, match, read_sample, write_submission
from ensemble.tta.views import check_views


@dataclass(frozen=True)
class Predicted:
    """What `tta_predict` made. ids: N, in the order of the rows. probabilities: float32 (N, C)."""

    ids: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    predictions: Path
    submission: Path
    said: str


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
) -> Predicted:
    """Predict every image (or those that the sample submission names) by the run's blend, and write both files.

    The blend is applied to each fold's set of members, which is what it was fitted on, and the K probability vectors
    are averaged. Raises UserError for anything that doesn't fit, before the first image is decoded.
    """
    rundir.require_run(run)
    name = choose_blend(run, blend_name)
    blend = load_blend(run, name)
    if views is not None and set(check_views(views)) != set(blend.all_views):
        raise UserError(
            f"the blend was fitted on the views {','.join(blend.all_views)}, not {','.join(views)}: fit one on these "
            f"(ens blend {run} --views {','.join(views)}), or leave --views out"
        )
    ids, files = read_images(images)
    sample = read_sample(sample_submission) if sample_submission else None
    if sample is not None:
        rows = match(sample, ids)
        if len(rows) < len(ids):
            say(f"{len(ids) - len(rows)} images are not in {sample.path} and are left out")
        ids, files = sample.ids, [files[row] for row in rows]
    arrange(ids, np.zeros((len(ids), len(blend.classes))), blend.classes, sample, form)  # a wrong form fails now
    check_sources(run, name)
    folds = int(read_folds(run)["fold"].max()) + 1
    device = choose_device()
    keep_freed_memory()
    given = [foreign_predictions(run, name, member, ids) for member in blend.foreign]
    own = [(member, used) for member, used in zip(blend.members, blend.views, strict=True) if used != GIVEN]
    members = [load_member(run, member, len(blend.classes), folds, device) for member, _ in own]
    flattered = [member for member, _ in own if rundir.is_optimistic(run, member)]
    if flattered:
        say(f"the scores of {', '.join(flattered)}, and so the blend's, are optimistic: the best epochs were kept")
    passes = sum(len(used) for _, used in own)
    say(f"{len(ids)} images, {len(members)} members x {folds} folds, {passes} views in all; on {device}")

    batch_size = load_config(rundir.config_toml(run)).tta.batch_size
    probabilities = np.empty((len(ids), len(blend.classes)), dtype=np.float32)
    done = 0
    for values in predict_stream(members, files, [used for _, used in own], batch_size, device):
        count = min(batch_size, len(ids) - done)
        # A foreign member has one prediction: it stands beside each fold's. Foreign members come last in a blend.
        values += [np.repeat(other[None, :, done : done + count], folds, axis=0) for other in given]
        probabilities[done : done + count] = blend_folds(blend, values)
        done += count
        show("predicting", done, len(ids))

    saved = rundir.predictions_file(run, images.stem if images.is_file() else images.resolve().name, name)
    # The logarithms of probabilities are logits like any other, so one file format serves.
    log_probabilities = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))[None]
    Logits(np.array(ids), ("blend",), blend.classes, log_probabilities, {"blend": name, "images": str(images)}).save(
        saved
    )
    table, said = arrange(ids, probabilities, blend.classes, sample, form)
    write_submission(output, table)
    return Predicted(np.array(ids), probabilities, blend.classes, saved, output, said)


def blend_folds(blend: Blend, values: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities (N, C) of logits (K, V, N, C) of each member: blended per fold, then averaged over the folds."""
    folds = len(values[0])
    return np.asarray(sum(blend.apply([member[fold] for member in values]) for fold in range(folds)) / folds)


def foreign_predictions(run: Path, blend: str, member: str, ids: Sequence[str]) -> np.ndarray:
    """The kept test predictions of a foreign member for these ids, float32 (1, N, C). Raises UserError without."""
    path = rundir.foreign_file(run, blend, member)
    if not path.is_file():
        raise UserError(
            f"blend {blend!r} holds {member}, which ens did not train, without test predictions; fit it again with: "
            f"ens blend {run} --add {member}=OOF,TEST"
        )
    return rows_of(load_logits(path), ids, f"the test predictions of {member}")


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
