"""`ens launch`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON
from ensemble.cli.session import session
from ensemble.errors import UserError
from ensemble.run import Run

if TYPE_CHECKING:
    from ensemble.config import Config


@click.command()
@click.argument("file", type=FOLDER_OR_FILE)
@click.option(
    "--print",
    "target",
    type=click.Choice(["k8s", "sky"]),
    required=True,
    help="Kubernetes (an Indexed Job) or SkyPilot (a managed job).",
)
@click.option("--workers", type=click.IntRange(min=1), help="How many at most. [default: as many as the jobs can use]")
@click.option(
    "--gpus", default="1", show_default=True, metavar="[NAME:]N", help="Of each worker: 1, or A100:1; 0: none."
)
@click.option("--image", default="ens:latest", show_default=True, help="Container image with ens, for Kubernetes.")
@click.option(
    "--storage",
    required=True,
    metavar="NAME|URL",
    help="The volume (PersistentVolumeClaim) of Kubernetes, or the bucket (s3://..., gs://...) for SkyPilot, that has "
    "the images and takes the run, under the paths of the experiment.",
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key: --set train.epochs=3")
@JSON
def launch(
    file: Path,
    target: str,
    workers: int | None,
    gpus: str,
    image: str,
    storage: str,
    changes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print what starts workers of an experiment FILE on Kubernetes or SkyPilot. Nothing is started.

    Each worker runs `ens train-folds FILE --wait`, and shares the run with the others.

    Example: ens launch art.toml --print k8s --image me/ens --storage ens-volume > art.yaml
    """
    from ensemble.config import load_config
    from ensemble.files.mirror import as_url
    from ensemble.launch import kubernetes, sky
    from ensemble.launch.manifests import Workers
    from ensemble.launch.planned import count_workers, jobs_left, side_by_side

    with session(as_json) as events:
        config = load_config(file, changes)
        accelerator, number = _accelerator(gpus)
        jobs = len(jobs_left(config))
        if not jobs:
            raise UserError(f"{Run(config.run)}: every fold is done; nothing is left to train")
        most = count_workers(jobs, side_by_side(config, number, 2))
        name = f"ens-{re.sub('[^a-z0-9]+', '-', file.stem.lower())}"[:50].strip("-")
        count = min(most, workers or most)
        text = file.read_text(encoding="utf-8-sig")
        if target == "k8s":
            is_on_store = as_url(config.run) is not None
            workers_there = Workers(name, count, number, file.name, text, changes, is_on_store)
            printed = kubernetes.manifest(workers_there, image, storage)
        else:
            bucket = _bucket(storage)
            if as_url(config.run) is None:
                changes = (*changes, f"run={bucket}/{str(config.run).lstrip('/')}")
            images = {path: f"{bucket}/{path.lstrip('/')}" for path in _paths(config)}
            printed = sky.task(Workers(name, count, number, file.name, text, changes), accelerator or "L4", images)
        events.answer({"target": target, "workers": count, "text": printed})
        print(printed, end="")


def _accelerator(gpus: str) -> tuple[str, int]:
    """The name of the GPUs, which may be "", and how many of them."""
    name, _, number = gpus.rpartition(":")
    if not number.isdecimal():
        raise UserError(f"--gpus {gpus}: want a number, or NAME:NUMBER, as in A100:1")
    return name, int(number)


def _bucket(storage: str) -> str:
    if "://" not in storage:
        raise UserError(f"--storage {storage}: SkyPilot's workers share a bucket: name it, as in s3://my-bucket")
    return storage.rstrip("/")


def _paths(config: "Config") -> list[str]:
    """The files and folders that the experiment reads here; of a table its folder, where its images are."""
    from ensemble.files.mirror import as_url

    train = config.data.train
    paths = [train.parent if train.suffix and config.data.images is None else train, config.data.images]
    paths += [config.data.relabel, *(backbone.weights for backbone in config.backbone)]
    return list(dict.fromkeys(str(path) for path in paths if path is not None and as_url(path) is None))
