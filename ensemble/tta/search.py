"""`ens tta-search`: which views are worth what they cost. The views are chosen by ensemble/tta/view_sets.py; their
costs are measured here."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ensemble.blend.oof import Oof, common_views, read_oof
from ensemble.config import load_run_config
from ensemble.data.pixels.preprocess import Decoding
from ensemble.device import choose_device, keep_freed_memory, streams
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files.sealed import write_json
from ensemble.inference.decode import decoded_squares
from ensemble.inference.decodings import decodings
from ensemble.inference.member import load_member
from ensemble.inference.predict import Group, batch_rows, forward_views
from ensemble.run import Run
from ensemble.tta.oof import add_views, run_samples
from ensemble.tta.view_search import ViewSearch
from ensemble.tta.view_sets import search_views

BATCHES = 2  # of a timed pass, for each thread of a CPU
ROUNDS = 3  # how often a pass is timed


def tta_search(run: Run, views: Sequence[str] | None, metric: str, events: Events) -> tuple[ViewSearch, Path]:
    """Find the smallest set of views that is worth its cost, among those that the run has out-of-fold logits of and
    `views`, which are added first. Returns what was found, and the file of the run that it was written to.

    Raises UserError as `add_views` and `search_views` do, and for a run with one view.
    """
    if views:
        add_views(run, views, events)
    oof = read_oof(run, common_views(run) or None)
    if len(oof.views[0]) < 2:
        raise UserError(f"{run}: has only the view {oof.views[0][0]}; name others with --views, as in --views d4")
    decoding_ms, pass_ms = costs(run, oof, events)
    found = search_views(oof, pass_ms, decoding_ms, metric, events)
    write_json(run.view_search_json, asdict(found))
    return found, run.view_search_json


def costs(
    run: Run, oof: Oof, events: Events, milliseconds: Callable[[Callable[[], object]], float] | None = None
) -> tuple[float, np.ndarray]:
    """Milliseconds per image on this machine: of decoding it for all members; and of each member's pass under each
    view, float64 (M, V). A pass runs all K fold models; it is timed with the first one, and multiplied.

    milliseconds: how long some work takes; None for the median by the clock on the wall.
    """
    milliseconds = milliseconds or _median_ms
    device = choose_device()
    keep_freed_memory()
    config = load_run_config(run.config_toml)
    batch = batch_rows(config.tta.batch_size, device)
    samples = run_samples(config, run)
    rows = np.linspace(0, len(samples) - 1, min(len(samples), BATCHES * batch * streams(device)))
    paths = [samples.paths[row] for row in rows.astype(int)]
    folds = len(np.unique(oof.rows.folds))
    members = []
    for number, name in enumerate(oof.members):
        events.progress("loading the networks", number, len(oof.members))
        members.append(load_member(run.member(name), oof.classes, folds, device))
    needed: list[Decoding] = []
    for member, views in zip(members, oof.views, strict=True):
        needed += [decoding for decoding in decodings(member.preprocess, views) if decoding not in needed]
    decoding_ms = milliseconds(lambda: decoded_squares(paths, needed, device)) / len(paths)
    squares = decoded_squares(paths, needed, device)[0]
    placed = {decoding: pixels.to(device) for decoding, pixels in squares.items()}
    pass_ms = np.zeros((len(members), len(oof.views[0])))
    for m, (member, views) in enumerate(zip(members, oof.views, strict=True)):
        for v, view in enumerate(views):
            events.progress("timing the views", m * len(views) + v, pass_ms.size)
            group = Group(member.preprocess, (view,), member.eval_models[:1])
            of_pass = milliseconds(lambda group=group: forward_views(group, placed, batch, device))  # type: ignore[misc]
            pass_ms[m, v] = of_pass / len(paths) * len(member.eval_models)
    return decoding_ms, pass_ms


def undisturbed_ms(work: Callable[[], object]) -> float:
    """As `_median_ms`, but on a CPU of the time that this process computes, shared by its threads: beside other work a
    pass may take many times as long by the clock on the wall, and another one not."""
    device = choose_device()
    if device.type != "cpu":
        return _median_ms(work)
    return _median_ms(work, time.process_time) / streams(device)


def _median_ms(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Milliseconds of the median of ROUNDS calls."""
    seconds = []
    for _ in range(ROUNDS):
        start = clock()
        work()
        seconds.append(clock() - start)
    return 1000 * statistics.median(seconds)
