"""Where `ens tta-predict` and `ens tta-oof` run, as `--on` and its options say: here, or by workers on a cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble.cli.session import Session
from ensemble.errors import UserError
from ensemble.launch.engine import LOCAL, Engine, parse_engine
from ensemble.run import Run

if TYPE_CHECKING:
    from ensemble.launch.slurm import Request
    from ensemble.tta.predict import SavedPrediction
    from ensemble.tta.prepare import PredictionRequest


@dataclass(frozen=True)
class Place:
    """Where a prediction runs.

    engine: "local", "ray" or "slurm"
    workers: on a cluster at most; None: as many as it has room for
    slurm: what is asked of SLURM; None on another engine
    """

    engine: Engine
    workers: int | None
    slurm: "Request | None"


def read_place(on: str, workers: int | None, **slurm: Any) -> Place:
    """The options of `cluster_options`. Raises UserError."""
    from ensemble.launch.slurm import read_request

    engine = parse_engine(on)
    if workers is not None and engine == LOCAL:
        raise UserError("--workers goes with --on ray or slurm; on one machine, start the same command several times")
    most = workers if engine.name == "slurm" else None
    return Place(engine, workers, read_request(engine.name, most=most, **slurm))


def worker_command(name: str, arguments: Sequence[Path], options: Mapping[str, object]) -> tuple[str, ...]:
    """The words after `ens` of a command that does a worker's part. options: those that are None are left out."""
    given = [str(word) for option, value in options.items() if value is not None for word in (option, value)]
    return (name, *map(str, arguments), *given, "--json")


def predicted(
    request: "PredictionRequest", place: Place, command: tuple[str, ...], events: Session
) -> "SavedPrediction | None":
    """Predict there; None where a script is only printed, or nobody waits for the workers. command: of a worker."""
    if place.slurm is not None:
        from ensemble.launch.slurm import require_folder
        from ensemble.tta import on_slurm

        require_folder(request.run.path)
        if place.slurm.prints:
            _print_script(on_slurm.prediction_script(request, place.slurm, command), events)
            return None
        if place.slurm.detaches:
            on_slurm.submit_prediction(request, place.slurm, command, events)
            return None
        return on_slurm.tta_predict_on_slurm(request, place.slurm, command, events)
    if place.engine.name == "ray":
        from ensemble.tta.on_ray import tta_predict_on_ray

        return tta_predict_on_ray(request, place.engine, place.workers, events)
    from ensemble.tta.predict import tta_predict

    return tta_predict(request, events)


def views_added(
    run: Run, views: Sequence[str], place: Place, command: tuple[str, ...], events: Session
) -> list[str] | None:
    """Add views there: the names of the members. None, command: as of `predicted`."""
    if place.slurm is not None:
        from ensemble.launch.slurm import require_folder
        from ensemble.tta import on_slurm

        require_folder(run.path)
        if place.slurm.prints:
            _print_script(on_slurm.views_script(run, place.slurm, command), events)
            return None
        members = on_slurm.add_views_on_slurm(run, views, place.slurm, command, events)
        return None if place.slurm.detaches else members
    if place.engine.name == "ray":
        from ensemble.tta.on_ray import add_views_on_ray

        return add_views_on_ray(run, views, place.engine, place.workers, events)
    from ensemble.tta.oof import add_views

    return add_views(run, views, events)


def _print_script(text: str, events: Session) -> None:
    events.answer({"script": text})
    print(text, end="")
