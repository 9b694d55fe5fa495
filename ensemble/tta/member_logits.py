"""Each fold's logits of images by one member, for what learns from them: read where the run stores them, else computed
and stored, as `ens tta-predict` does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ensemble.config import load_run_config
from ensemble.data.folds import fold_count
from ensemble.data.pixels.preprocess import load_preprocess
from ensemble.device import keep_freed_memory
from ensemble.events import Events
from ensemble.machine import device_type
from ensemble.progress import paced
from ensemble.run import Run
from ensemble.tta import stored_logits
from ensemble.tta.chunks import chunk_rows
from ensemble.tta.member_views import member_views
from ensemble.tta.predictor import compute_logits, load_members


def member_logits(
    run: Run, member: str, views: Sequence[str], files: Sequence[Path], images: str, events: Events
) -> np.ndarray:
    """The logits of U image files by each fold's network of a finished member, the mean over its views: float32
    (K, U, C). images: the name of the set. Raises UserError that names an image, or a fold that is missing or not
    whole."""
    folds, classes = fold_count(run), run.read_classes()
    batch_size, device = load_run_config(run.config_toml).tta.batch_size, device_type()
    asked = member_views(run, {member: views}, classes, folds, batch_size, device)
    folder = run.logits_dir(images)
    stored = stored_logits.find(folder, files, asked, len(classes))
    values = np.asarray(np.mean(stored.read(slice(None)), axis=0))
    missing = np.flatnonzero(stored.missing(slice(None)).any(axis=1))
    if not len(missing):
        return values
    may_store = stored_logits.make_room(stored, stored_logits.LIMIT)
    keep_freed_memory()
    loaded = load_members(run, [member], len(classes), folds, events)
    size = chunk_rows([load_preprocess(run.member(member).preprocess_json)], folds, batch_size, device)
    parts = [missing[start : start + size] for start in range(0, len(missing), size)]
    chunks = (([files[row] for row in part], asked) for part in parts)
    advance = paced(events, f"{member}: its answers", len(files) - len(missing), len(files))
    computed = compute_logits(loaded, chunks, batch_size, "error", advance)
    for part, (logits, _) in zip(parts, computed, strict=True):
        values[:, part] = np.mean(logits, axis=0)
        if may_store:
            stored_logits.add(stored, part, range(len(asked)), logits, ())
    return values
