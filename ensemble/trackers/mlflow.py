"""MLflow: a run in the experiment `[log] project`, where MLFLOW_TRACKING_URI says; else where MLflow puts it."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from ensemble.trackers.opened import Opened, Start, Status

AT_ONCE = 100  # parameters that a request may hold
LONGEST = 6000  # letters of a parameter
ENDS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


def open_mlflow(start: Start) -> Opened:
    """A setting that has changed since the run began stands beside it as a tag, since parameters can't be changed."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before it is imported: ens calls nobody unasked
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # not that it made a database
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    if start.id is None:
        experiment = client.get_experiment_by_name(start.project)
        number = client.create_experiment(start.project) if experiment is None else experiment.experiment_id
        id = client.create_run(number, run_name=start.name).info.run_id
    else:
        id = start.id
        client.update_run(id, status="RUNNING")
    known = client.get_run(id).data.params
    settings = {key: value[:LONGEST] for key, value in start.settings.items()}
    params = [Param(key, value) for key, value in settings.items() if key not in known]
    for first in range(0, len(params), AT_ONCE):
        client.log_batch(id, params=params[first : first + AT_ONCE])
    for key, value in settings.items():
        if known.get(key, value) != value:
            client.set_tag(id, key, value)

    def log(series: str, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        client.log_batch(id, metrics=[Metric(f"{series}/{name}", value, now, step) for name, value in values.items()])

    def note(name: str, text: str) -> None:
        client.set_tag(id, name, text)

    def keep(file: Path) -> None:
        client.log_artifact(id, str(file))

    def close(status: Status) -> None:
        client.set_terminated(id, ENDS[status])

    return Opened(id, log, note, keep, close)
