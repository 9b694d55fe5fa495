"""Workers of a run as an Indexed Job of Kubernetes (1.31 or newer), with the experiment in a ConfigMap.

Kubernetes schedules and restarts the pods; they share the run, on a volume that all of them mount, by claims.
"""

from typing import Any

from ensemble.launch.manifests import EXPERIMENT, GRACE_SECONDS, STOP_SECONDS, Workers, to_yaml

FOLDER = "/work"  # where the volume is mounted: paths of the experiment start there
WRONG_INPUT = 2  # the exit status of a command that was given it


def manifest(workers: Workers, image: str, claim: str) -> str:
    """YAML of a ConfigMap and a Job. image: of a container with ens. claim: the name of the PersistentVolumeClaim with
    the run and the images, ReadWriteMany."""
    comment = (
        f"{workers.count} workers of {workers.file}. Edit: the image, memory and cpu, the size of /dev/shm.\n"
        f"The volume {claim!r} (ReadWriteMany) has the images under the paths of the experiment, and will have the run."
        f"\nkubectl apply -f THIS_FILE\nkubectl logs -f job/{workers.name}"
    )
    if workers.needs_keys:
        comment += (
            f"\nThe secret {workers.name!r} has the keys of the object store, as AWS_ACCESS_KEY_ID=... and its like."
        )
    return to_yaml([_config_map(workers), _job(workers, image, claim)], comment)


def _config_map(workers: Workers) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": workers.name},
        "data": {EXPERIMENT: workers.experiment},
    }


def _job(workers: Workers, image: str, claim: str) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": workers.name},
        "spec": {
            "completionMode": "Indexed",
            "completions": workers.count,
            "parallelism": workers.count,
            "backoffLimitPerIndex": 1,  # a worker that failed twice at a job is not started for ever
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },  # preempted, drained
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": "ens", "operator": "In", "values": [WRONG_INPUT]},
                    },
                ]
            },
            "template": {"spec": _pod(workers, image, claim)},
        },
    }


def _pod(workers: Workers, image: str, claim: str) -> dict[str, Any]:
    mounts = {"work": FOLDER, "experiment": "/experiment", "cache": "/cache", "shm": "/dev/shm"}
    resources: dict[str, Any] = {"requests": {"cpu": str(4 * max(1, workers.gpus)), "memory": "16Gi"}}
    if workers.gpus:
        resources["limits"] = {"nvidia.com/gpu": str(workers.gpus)}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [
            {
                "name": "ens",
                "image": image,
                "workingDir": FOLDER,
                "command": workers.command(f"/experiment/{EXPERIMENT}"),
                "env": [
                    {"name": "ENS_CACHE", "value": "/cache"},
                    {"name": "ENS_STOP_SECONDS", "value": str(STOP_SECONDS)},
                ],
                **({"envFrom": [{"secretRef": {"name": workers.name}}]} if workers.needs_keys else {}),
                "resources": resources,
                "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
            }
        ],
        "volumes": [
            {"name": "work", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "experiment", "configMap": {"name": workers.name}},
            {"name": "cache", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "4Gi"}},
        ],
    }
