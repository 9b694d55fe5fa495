"""Workers of a run as a managed job of SkyPilot, which is launched once for each worker.

The workers need nothing of each other but the run, so each is a job of its own, that SkyPilot recovers by itself: the
nodes of one job, or a group of jobs, would be placed together and end together. The run lies in an object store, where
claims are safe; a mounted bucket is a copy on each machine that is written back later.
"""

import shlex
from typing import Any

from ensemble.launch.manifests import EXPERIMENT, STOP_SECONDS, Workers, to_yaml

FOLDER = "~/ens"  # where paths of the experiment start


def task(workers: Workers, accelerator: str, images: dict[str, str]) -> str:
    """YAML of the job. accelerator: SkyPilot's name of the GPU. images: the bucket that each of the experiment's paths
    to images and tables is copied from, by the path."""
    comment = (
        f"A worker of {workers.file}. Edit: the resources (sky show-gpus lists accelerators).\n"
        f"for worker in $(seq {workers.count}); do sky jobs launch -y -d -n {workers.name}-$worker THIS_FILE; done\n"
        "sky jobs queue"
    )
    return to_yaml([_task(workers, accelerator, images)], comment)


def _task(workers: Workers, accelerator: str, images: dict[str, str]) -> dict[str, Any]:
    resources: dict[str, Any] = {"cpus": f"{4 * max(1, workers.gpus)}+", "memory": "16+"}
    if workers.gpus:
        resources["accelerators"] = {accelerator: workers.gpus}
    resources |= {"use_spot": True, "job_recovery": {"max_restarts_on_errors": 1}}
    mounts: dict[str, Any] = {
        (path if path.startswith("/") else f"{FOLDER}/{path}"): {"source": bucket, "mode": "COPY"}
        for path, bucket in images.items()
    }
    return {
        "name": workers.name,
        "resources": resources,
        "envs": {"ENS_STOP_SECONDS": str(STOP_SECONDS)},
        "file_mounts": mounts,
        "setup": 'pip install "ens-vision[cloud]"\n',
        "run": f"cd {FOLDER}\ncat > {EXPERIMENT} <<'END_OF_EXPERIMENT'\n{workers.experiment.rstrip()}\n"
        f"END_OF_EXPERIMENT\n{shlex.join(workers.command(EXPERIMENT))}\n",
    }
