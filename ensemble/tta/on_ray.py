"""`ens tta-predict` and `ens tta-oof` with `--on ray`: workers on a Ray cluster share the shards, or the folds."""

import math
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ensemble.config import load_run_config
from ensemble.errors import UserError
from ensemble.events import SILENT, Events
from ensemble.files import shared
from ensemble.launch.engine import Engine
from ensemble.launch.ray.cluster import Cluster, Needs, job_needs, open_cluster, seen_everywhere
from ensemble.launch.ray.worker import Expected, versions
from ensemble.launch.ray.workers import Crew, run_workers
from ensemble.launch.slots import Slot
from ensemble.machine import threads_allowed
from ensemble.plural import pluralize
from ensemble.predictions import sharing
from ensemble.predictions.shards import file_state
from ensemble.predictions.sharing import Rest
from ensemble.progress import paced
from ensemble.run import Fold, Run
from ensemble.run.run import shards_dir
from ensemble.stop import safe_points
from ensemble.tta.fill import fill
from ensemble.tta.oof import add_views
from ensemble.tta.predict import SavedPrediction, tta_predict
from ensemble.tta.prepare import PredictionRequest, PreparedPrediction, prepare


def tta_predict_on_ray(
    request: PredictionRequest, engine: Engine, workers: int | None, events: Events
) -> SavedPrediction:
    """As `tta_predict`, by workers on a Ray cluster.

    workers: how many at most; None: as many as it has room for

    Raises UserError as well, before anything is computed, if a machine has other versions, or doesn't see the run or
    its images; RunFailure if the cluster is lost.
    """
    with open_cluster(engine.address) as cluster:
        needs = _needs(request.run, cluster, workers)
        cluster.require(Expected(versions(), str(Path.cwd())))
        filler = partial(_fill, cluster, request, needs, workers)
        return tta_predict(request, events, filler, "cuda" if needs.gpus else "cpu")


def _needs(run: Run, cluster: Cluster, workers: int | None) -> Needs:
    """What each worker gets: on a machine without GPUs all its cores, or its share where there are to be several."""
    share = load_run_config(run.config_toml).gpus_per_job
    gpus = share if str(share).startswith("1/") else "auto"  # a prediction uses one, where there are any
    on_each = 1 if workers is None else math.ceil(workers / len(cluster.nodes))
    return job_needs(cluster.nodes, gpus, on_each, threads_allowed())


def _fill(
    cluster: Cluster,
    request: PredictionRequest,
    needs: Needs,
    workers: int | None,
    rest: Rest,
    prediction: PreparedPrediction,
    events: Events,
) -> np.ndarray:
    """A `Filler`."""
    plan, stages = prediction.plan, len(prediction.plan.blend.stage_blends)
    count = min(len(rest.left), needs.together, workers or needs.together)
    if not count:
        return np.zeros(stages, dtype=np.int64)
    events.message(_described(pluralize(len(rest.left), "shard"), count, cluster))
    images = len(plan.files)
    advance = paced(events, "predicting", images - sum(map(len, rest.left)), images)
    rest.found = lambda part: advance(len(part))
    stop = f".stop-{secrets.token_hex(8)}"
    stop_file = shards_dir(prediction.saved) / stop

    def kept() -> str:
        return f"{rest.done} of {rest.total} shards"

    with (
        seen_everywhere(request.run.path, plan.files) as expected,
        safe_points(lambda: f"the shards of {pluralize(count, 'worker')}", kept) as asked,
    ):
        cluster.require(expected)

        def look() -> tuple[int, bool]:
            rest.look()
            if asked():
                shared.write(stop_file, b"")
            return rest.done, not rest.left

        work = partial(fill_there, request, prediction.digest, prediction.key, stop)
        exits = run_workers(cluster, Crew(work, count, needs, expected), look, events)
        if asked():
            raise KeyboardInterrupt
    return np.asarray(np.sum([np.zeros(stages, dtype=np.int64), *exits], axis=0))


def fill_there(request: PredictionRequest, digest: str, key: str, stop: str, slot: Slot) -> np.ndarray:
    """In a worker: predict shards until none is left, or the file `stop` is beside them. digest, key: of what the
    process that the user started has prepared. Returns how many images exited at each stage of the blend here. Raises
    UserError if this machine would predict other numbers."""
    prediction = prepare(request, SILENT)
    if prediction.digest != digest:
        raise UserError(
            "a worker of the Ray cluster would predict other numbers: it has another kind of device, another Pillow or "
            "engine, or sees other files of the run"
        )
    if prediction.key != key:
        raise UserError(
            "a worker of the Ray cluster sees other images, or with other times of change: share their folder (or copy "
            "them with their times, as rsync -t does)"
        )
    plan = prediction.plan
    rest = sharing.rest_of(prediction.parts, len(plan.blend.classes), plan.on_bad, SILENT)
    rest.is_stopped = lambda: shared.read(shards_dir(prediction.saved) / stop) is not None
    try:
        with sharing.taking_part(shards_dir(prediction.saved), digest):
            return fill(rest, plan, prediction.stored, prediction.may_store, SILENT)
    except KeyboardInterrupt:
        return np.zeros(len(plan.blend.stage_blends), dtype=np.int64)


def add_views_on_ray(run: Run, views: Sequence[str], engine: Engine, workers: int | None, events: Events) -> list[str]:
    """As `add_views`, by workers on a Ray cluster. workers, errors: as of `tta_predict_on_ray`."""
    with open_cluster(engine.address) as cluster:
        needs = _needs(run, cluster, workers)
        cluster.require(Expected(versions(), str(Path.cwd())))

        def elsewhere(folds: list[Fold], images: list[Path]) -> None:
            before = {fold: file_state(fold.added_views_file) for fold in folds}
            count = min(len(folds), needs.together, workers or needs.together)
            events.message(_described(pluralize(len(folds), "fold"), count, cluster))

            def look() -> tuple[int, bool]:
                run.refresh()
                added = sum(file_state(fold.added_views_file) != state for fold, state in before.items())
                events.progress("folds with out-of-fold logits of new views", added, len(folds))
                return added, added == len(folds)

            with seen_everywhere(run.path, images) as expected:
                cluster.require(expected)
                run_workers(cluster, Crew(partial(add_there, run, views), count, needs, expected), look, events)

        return add_views(run, views, events, elsewhere)


def add_there(run: Run, views: Sequence[str], slot: Slot) -> None:
    """In a worker: add views to folds until none lacks them."""
    add_views(run, views, SILENT)


def _described(work: str, workers: int, cluster: Cluster) -> str:
    machines = pluralize(len(cluster.nodes), "machine")
    return f"{work} by {pluralize(workers, 'worker')} on the {machines} of the Ray cluster"
