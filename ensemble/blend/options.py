"""The options of `ens blend`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.blend.external.external_files import ExternalFiles


@dataclass(frozen=True)
class BlendOptions:
    """The options of a blend.

    method, metric, calibration: as in `Recipe`.
    name: what to save it as; None for the method's name, with "-<metric>" for another metric than log_loss and
        "-<calibration>" for another calibration than the temperature.
    views, members: those to use; None for all.
    external: predictions of others, to blend as further members.
    priors: "uniform" or a file, see `read_priors`; None for the class shares of the rows.
    prune: look for what can be left out without loss.
    costs: a file, see `read_costs`, for a metric that needs what mistakes cost.
    with_runs: directories of further runs whose members are blended too, see `read_runs`.
    """

    method: str = "auto"
    metric: str = "log_loss"
    name: str | None = None
    views: Sequence[str] | None = None
    members: Sequence[str] | None = None
    external: Sequence[ExternalFiles] = ()
    priors: str | None = None
    prune: bool = False
    costs: Path | None = None
    with_runs: Sequence[Path] = ()
    calibration: str = "temperature"
