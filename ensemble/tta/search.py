"""`ens tta-search`: which views are worth what they cost. The choice is ensemble/tta/view_sets.py's; the costs are
measured here."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ensemble import rundir
from ensemble.blend.oof import Oof, common_views, read_oof
from ensemble.config import load_run_config
from ensemble.data.pixels.preprocess import Decoding
from ensemble.device import choose_device, keep_freed_memory, streams
from ensemble.errors import UserError
from ensemble.files.sealed import write_json
from ensemble.inference.decode import decoded_squares
from ensemble.inference.member import load_member
from ensemble.inference.predict import Group, batch_rows, decodings, forward_views
from ensemble.progress import Show
from ensemble.run import Run
from ensemble.tta.oof import add_views, run_samples
from ensemble.tta.view_sets import ViewSearch, search_views

Say = Callable[[str], None]
BATCHES, ROUNDS = 2, 3  # of a timed pass, for each thread of a CPU; how often it is timed


def tta_search(
    run: Path, views: Sequence[str] | None, metric: str, show: Show, say: Say = print
) -> tuple[ViewSearch, Path]:
    """Find the smallest set of views worth its cost, of those that the run has out-of-fold logits of and `views`, which
    are added first. Writes what it found to the run; returns it, and where.

    Raises UserError as `add_views` and `search_views` do, and for a run of one view.
    """
    if views:
        add_views(run, views, show, say)
    oof = read_oof(run, common_views(run) or None)
    if len(oof.views[0]) < 2:
        raise UserError(f"{run}: has only the view {oof.views[0][0]}; name others with --views, as in --views d4")
    once, passes = costs(run, oof, show)
    found = search_views(oof, passes, once, metric, show)
    path = rundir.view_search_json(run)
    write_json(path, asdict(found))
    return found, path


def costs(run: Path, oof: Oof, show: Show) -> tuple[float, np.ndarray]:
    """Milliseconds per image on this machine: of decoding it for all members, and of each pass, float64 (M, V), the
    passes of a member's K folds together (the first one's time for each network)."""
    device = choose_device()
    keep_freed_memory()
    config = load_run_config(rundir.config_toml(run))
    batch = batch_rows(config.tta.batch_size, device)
    samples = run_samples(config, run)
    rows = np.linspace(0, len(samples) - 1, min(len(samples), BATCHES * batch * streams(device)))
    paths = [samples.paths[row] for row in rows.astype(int)]
    folds = len(np.unique(oof.rows.folds))
    members = []
    for number, name in enumerate(oof.members):
        show("loading the networks", number, len(oof.members))
        members.append(load_member(Run(run).member(name), oof.classes, folds, device))
    hows: list[Decoding] = []
    for member, views in zip(members, oof.views, strict=True):
        hows += [how for how in decodings(member.preprocess, views) if how not in hows]
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        squares = decoded_squares(paths, hows, device)[0]
        seconds.append(time.perf_counter() - start)
    once = 1000 * statistics.median(seconds) / len(paths)
    placed = {how: own.to(device) for how, own in squares.items()}
    passes = np.zeros((len(members), len(oof.views[0])))
    for m, (member, views) in enumerate(zip(members, oof.views, strict=True)):
        for v, view in enumerate(views):
            show("timing the views", m * len(views) + v, passes.size)
            group = Group(member.preprocess, (view,), member.forwards[:1])
            seconds = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                forward_views(group, placed, batch, device)
                seconds.append(time.perf_counter() - start)
            passes[m, v] = 1000 * statistics.median(seconds) / len(paths) * len(member.forwards)
    return once, passes
