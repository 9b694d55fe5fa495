"""The engine that runs the jobs: the processes of this machine, or a cluster's, as `--on` names it."""

from dataclasses import dataclass
from importlib.util import find_spec

from ensemble.errors import UserError

# What each engine needs to be installed: a package, and the extra of ens that brings it has the engine's name.
PACKAGES: dict[str, str | None] = {"local": None, "ray": "ray", "slurm": "submitit"}
WITH_ADDRESS = ("ray",)


@dataclass(frozen=True)
class Engine:
    """Where jobs run.

    name: "local": in processes of this machine; "ray": on a Ray cluster; "slurm": in workers that SLURM starts.
    address: of the engine's cluster, as the engine itself reads it; None: the usual one.
    """

    name: str = "local"
    address: str | None = None


LOCAL = Engine()


def parse_engine(text: str) -> Engine:
    """The engine that `--on` names: NAME or NAME=ADDRESS. Raises UserError for what is none, and for one that is not
    installed."""
    name, has_address, address = text.partition("=")
    if name not in PACKAGES:
        raise UserError(f"--on {text}: there is no engine {name!r}; choose {forms()}")
    if has_address and not (name in WITH_ADDRESS and address):
        raise UserError(f"--on {text}: give {name if name not in WITH_ADDRESS else f'{name}=ADDRESS, or {name}'} alone")
    package = PACKAGES[name]
    if package is not None and find_spec(package) is None:
        raise UserError(
            f'--on {name} needs the package {package}, which is not installed: pip install "ens-vision[{name}]"'
        )
    return Engine(name, address or None)


def forms() -> str:
    """How the engines are written."""
    return " or ".join(f"{name}[=ADDRESS]" if name in WITH_ADDRESS else name for name in PACKAGES)
