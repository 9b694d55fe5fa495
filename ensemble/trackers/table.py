"""The trackers by name, which is that of their package and of the extra of ens that brings it."""

from collections.abc import Callable, Iterable
from importlib.util import find_spec

from ensemble.errors import UserError
from ensemble.trackers.mlflow import open_mlflow
from ensemble.trackers.opened import Opened, Start
from ensemble.trackers.tensorboard import open_tensorboard
from ensemble.trackers.trackio import open_trackio
from ensemble.trackers.wandb import open_wandb

TRACKERS: dict[str, Callable[[Start], Opened]] = {
    "tensorboard": open_tensorboard,
    "mlflow": open_mlflow,
    "wandb": open_wandb,
    "trackio": open_trackio,
}


def require_installed(names: Iterable[str]) -> None:
    """Raise UserError that says how to install the first of these trackers that is not there."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(
                f'[log] to = ["{name}"]: {name} is not installed: pip install "ens-vision[{name}]", or leave it out'
            )
