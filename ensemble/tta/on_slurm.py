"""`ens tta-predict` and `ens tta-oof` with `--on slurm`: workers that SLURM starts run the same command, and share the
shards, or the folds."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ensemble.errors import RunFailure
from ensemble.events import SILENT, Events
from ensemble.launch import slurm
from ensemble.launch.slurm_queue import END_SECONDS, Queue, follow
from ensemble.plural import pluralize
from ensemble.predictions import sharing
from ensemble.predictions.shards import file_state
from ensemble.predictions.sharing import Rest
from ensemble.progress import paced
from ensemble.run import Fold, Run
from ensemble.stop import safe_points
from ensemble.tta.predict import SavedPrediction, tta_predict
from ensemble.tta.prepare import PredictionRequest, PreparedPrediction, prepare

SHARDS_EACH = 4  # at least, of a worker, where nothing else is asked for: it has to load its networks


def prediction_script(request: PredictionRequest, asked: slurm.Request, command: tuple[str, ...]) -> str:
    """The batch script of a prediction. command: the words after `ens` that a worker runs."""
    rest = _rest(prepare(request, SILENT, _device(asked)), SILENT)
    return slurm.script(_submission(request.run, asked, command), max(1, _worker_count(len(rest.left), asked)))


def submit_prediction(
    request: PredictionRequest, asked: slurm.Request, command: tuple[str, ...], events: Events
) -> None:
    """Submit workers that make a prediction, which nobody follows: one of them writes its files."""
    slurm.require_slurm()
    rest = _rest(prepare(request, events, _device(asked)), events)
    _submit(Queue(_submission(request.run, asked, command), events), max(1, _worker_count(len(rest.left), asked)))


def tta_predict_on_slurm(
    request: PredictionRequest, asked: slurm.Request, command: tuple[str, ...], events: Events
) -> SavedPrediction:
    """As `tta_predict`, by workers that SLURM starts; one of them, or this process, writes the files. Raises RunFailure
    if they end before all shards are predicted."""
    slurm.require_slurm()
    return tta_predict(request, events, partial(_fill, request, asked, command), _device(asked))


def _fill(
    request: PredictionRequest,
    asked_for: slurm.Request,
    command: tuple[str, ...],
    rest: Rest,
    prediction: PreparedPrediction,
    events: Events,
) -> np.ndarray:
    """A `Filler`."""
    images = len(prediction.ids)
    exits = np.zeros(len(prediction.plan.blend.stage_blends), dtype=np.int64)
    if not rest.left:
        return exits
    advance = paced(events, "predicting", images - sum(map(len, rest.left)), images)
    rest.found = lambda part: advance(len(part))
    queue = Queue(_submission(request.run, asked_for, command), events)

    def is_left(workers: str) -> bool:
        rest.look()
        return bool(rest.left)

    def fail() -> None:
        rest.look()
        if rest.left:
            raise RunFailure(
                f"the workers ended, and {pluralize(len(rest.left), 'shard is', 'shards are')} not predicted; if they "
                "did predict, their versions or their kind of device differ from what this command expects (a GPU with "
                "--slurm gpus=1); the same command submits new ones"
            )

    with safe_points(partial(_step, queue), lambda: f"{rest.done} of {rest.total} shards") as asked:
        _submit(queue, _worker_count(len(rest.left), asked_for))
        follow(queue, asked, is_left, fail)
        # One that begins later would find no shards, and make the whole prediction again.
        queue.wait_for_end(END_SECONDS)
    return exits


def add_views_on_slurm(
    run: Run, views: Sequence[str], asked_for: slurm.Request, command: tuple[str, ...], events: Events
) -> list[str]:
    """As `add_views`, by workers that SLURM starts. Raises RunFailure if they end before all views are there."""
    from ensemble.tta.oof import add_views

    slurm.require_slurm()

    def elsewhere(folds: list[Fold], images: list[Path]) -> None:
        before = {fold: file_state(fold.added_views_file) for fold in folds}
        queue = Queue(_submission(run, asked_for, command), events)

        def left() -> list[Fold]:
            return [fold for fold, state in before.items() if file_state(fold.added_views_file) == state]

        def is_left(workers: str) -> bool:
            added = len(folds) - len(left())
            events.progress(f"folds with out-of-fold logits of new views; {workers}", added, len(folds))
            return added < len(folds)

        def fail() -> None:
            if left():
                lacking = pluralize(len(left()), "fold lacks", "folds lack")
                raise RunFailure(f"the workers ended, and {lacking} the new views; the same command submits new ones")

        def kept() -> str:
            return f"the new views of {len(folds) - len(left())} of {len(folds)} folds"

        with safe_points(partial(_step, queue), kept) as asked:
            _submit(queue, min(len(folds), asked_for.most or len(folds)))
            if not asked_for.detaches:
                follow(queue, asked, is_left, fail)

    return add_views(run, views, events, elsewhere)


def views_script(run: Run, asked: slurm.Request, command: tuple[str, ...]) -> str:
    """The batch script of workers that add views."""
    folds = sum(len(run.member(name).folds()) for name in run.member_names())
    return slurm.script(_submission(run, asked, command), min(folds, asked.most or folds))


def _rest(prediction: PreparedPrediction, events: Events) -> Rest:
    plan = prediction.plan
    return sharing.rest_of(prediction.parts, len(plan.blend.classes), plan.on_bad, events)


def _device(asked: slurm.Request) -> str:
    """The type of the workers' device."""
    return "cuda" if slurm.gpus(asked.options) else "cpu"


def _submission(run: Run, asked: slurm.Request, command: tuple[str, ...]) -> slurm.Submission:
    return slurm.Submission(command, run.path, asked.options, asked.options.get("time", slurm.MINUTES))


def _worker_count(shards: int, asked: slurm.Request) -> int:
    return min(math.ceil(shards / SHARDS_EACH), shards) if asked.most is None else min(asked.most, shards)


def _submit(queue: Queue, count: int) -> None:
    """Submit what so many workers lack."""
    queue.look()
    if count > len(queue.states):
        queue.submit(count - len(queue.states))
    else:
        queue.events.message(f"no worker submitted: {queue.describe()}")


def _step(queue: Queue) -> str:
    return f"the safe points of {pluralize(len(queue.submitted), 'worker')}"
