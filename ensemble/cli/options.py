"""Options that commands share, and reading them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ensemble.run.networks import KINDS

Command = TypeVar("Command", bound=Callable[..., Any])


class OneOf(click.ParamType[str]):
    """One of the names that `names` gives, which is asked when the option is read or its help is shown: their table
    imports numpy, which `ens --help` does without."""

    name = "choice"

    def __init__(self, names: Callable[[], Sequence[str]]) -> None:
        self.names = names

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return click.Choice(self.names()).get_metavar(param, ctx)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return click.Choice(self.names()).convert(value, param, ctx)


def metric_names() -> Sequence[str]:
    from ensemble.scoring.metrics import METRICS

    return list(METRICS)


def searchable_metrics() -> Sequence[str]:
    from ensemble.scoring.metrics import searchable

    return searchable()


FOLDER_OR_FILE = click.Path(path_type=Path)
METRIC = click.option(
    "--metric",
    type=OneOf(metric_names),
    default="log_loss",
    show_default=True,
    help="The metric that the blend is optimised for. roc_auc and average_precision score each class against the rest, "
    "or, of two classes, the second one; quadratic_kappa takes the classes in their order, numbers by value.",
)
NETWORKS = click.option(
    "--networks",
    type=click.Choice(KINDS),
    default="folds",
    show_default=True,
    help="Which of the members' networks: all folds', their soup (ens soup) or refits on all rows (ens refit).",
)
ENGINE = click.option(
    "--engine",
    type=click.Choice(["auto", "openvino", "onnxruntime"]),
    default="auto",
    show_default=True,
    help="What computes an exported file. Auto takes OpenVINO if that is installed, but not for a few pictures.",
)
ON = click.option(
    "--on",
    metavar="ENGINE",
    default="local",
    show_default=True,
    help="Where the jobs run: local, in processes of this machine; ray or ray=ADDRESS, on a Ray cluster; slurm, in "
    "workers that SLURM starts.",
)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON document; everything else goes to stderr."
)


def submission_options(command: Command) -> Command:
    """What to write of predictions, and where."""
    options = (
        click.option("--sample-submission", type=FOLDER_OR_FILE, help="CSV whose ids, order and header to follow."),
        click.option(
            "--form",
            type=click.Choice(["label", "index", "probability"]),
            help="Class names, their numbers or probabilities. [default: as in the sample]",
        ),
        click.option(
            "--on-bad",
            type=click.Choice(["error", "skip"]),
            default="error",
            show_default=True,
            help="At an image that can't be read: stop, or leave its prediction empty.",
        ),
        click.option(
            "-o",
            "--output",
            type=FOLDER_OR_FILE,
            help="The CSV to write. [default: submission.csv; none for pictures that are named one by one]",
        ),
    )
    for option in reversed(options):  # as decorators, of which the last one is applied first
        command = option(command)
    return command


CERTAINTY = ("sets", "sets_by", "abstain", "unknown")  # the names of `certainty_options`


def certainty_options(command: Command) -> Command:
    """What to say of each image beside its class; `ensemble.tta.certainty.CertaintyRequest` takes them."""
    options = (
        click.option(
            "--sets",
            type=float,
            metavar="LEVEL",
            help="Of each image a set of classes too: such sets hold the true class of this share of images, as 0.9.",
        ),
        click.option(
            "--sets-by",
            metavar="class|group",
            help="With --sets: keep the promise in each class, or count the images of a group (a person) as one.",
        ),
        click.option(
            "--abstain",
            type=float,
            metavar="RATE",
            help="Mark the images that are left unanswered, so that at most this share of the answered ones is wrong.",
        ),
        click.option(
            "--unknown",
            type=float,
            metavar="RATE",
            help="Mark the images that are probably none of the classes; of those like the training images, this share "
            "is marked by mistake, as 0.01 (see ens unknown).",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


_SLURM = (
    click.option(
        "--slurm",
        multiple=True,
        metavar="KEY=VALUE",
        help="An option of sbatch, such as time=8:00:00, gpus=2, cpus-per-task=8, mem=32G, partition=gpu; "
        "setup=LINE is run by the shell before the worker.",
    ),
    click.option("--print", "prints", is_flag=True, help="Print the batch script, and submit nothing."),
    click.option("--detach", "detaches", is_flag=True, help="Return when the workers are submitted."),
)


def slurm_options(command: Command) -> Command:
    """What `--on slurm` submits; `ensemble.launch.slurm.read_request` takes them."""
    jobs = click.option("--jobs", "most", type=click.IntRange(min=1), help="Workers of SLURM at most.")
    for option in reversed((_SLURM[0], jobs, *_SLURM[1:])):
        command = option(command)
    return command


CLUSTER = ("on", "workers", "slurm", "prints", "detaches")  # the names of `cluster_options`


def cluster_options(command: Command) -> Command:
    """Where the workers of a prediction run, and how many there are."""
    workers = click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Workers on the cluster at most. [default: on Ray one for each GPU, or each machine without any; on SLURM "
        "as many as the work is worth]",
    )
    for option in reversed((ON, workers, *_SLURM)):
        command = option(command)
    return command


def names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]
