"""What `ens launch` writes for Kubernetes and SkyPilot: workers that run one command, which joins the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

EXPERIMENT = "experiment.toml"  # its name there
GRACE_SECONDS = 120  # between SIGTERM and SIGKILL
STOP_SECONDS = 60  # an epoch that ends within so many is finished


@dataclass(frozen=True)
class Workers:
    """Workers on machines that a cluster or a cloud gives.

    name: of what is made there
    count: how many there are
    gpus: of each
    file: name of the experiment file here
    experiment: its text
    changes: KEY=VALUE, as --set takes them
    needs_keys: whether the run lies on an object store
    """

    name: str
    count: int
    gpus: int
    file: str
    experiment: str
    changes: tuple[str, ...] = ()
    needs_keys: bool = False

    def command(self, file: str) -> list[str]:
        """What each runs. file: the experiment there."""
        changes = [word for change in self.changes for word in ("--set", change)]
        return ["ens", "train-folds", file, *changes, "--wait"]


def to_yaml(documents: Sequence[dict[str, Any]], comment: str) -> str:
    """The documents, below a comment of any number of lines."""
    import yaml

    Dumper: Any = type("Dumper", (yaml.SafeDumper,), {})  # its representers are not those of all users of yaml

    def represent(dumper: Any, text: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    Dumper.add_representer(str, represent)
    header = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    text: str = yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    return header + text
