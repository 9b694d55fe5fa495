"""What a run's config.toml says of trackers, and all that it says, for them. The model of the experiment file would
take `ens blend` longer to load."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ensemble.run import Run

PROJECT = "ens"  # the default of `[log] project`


@dataclass(frozen=True)
class Settings:
    """to: names of trackers. project: what they file the run under. values: of all keys, dotted, as text."""

    to: tuple[str, ...]
    project: str
    values: Mapping[str, str]

    @classmethod
    def of(cls, run: Run) -> "Settings":
        """Of a run; none of a run whose config.toml can't be read, which is said elsewhere."""
        try:
            text = run.config_toml.read_text(encoding="utf-8-sig")
            table = tomllib.loads(text) if "log" in text else {}
        except (OSError, ValueError):
            return cls((), PROJECT, {})
        log = table.get("log", {})
        return cls(tuple(log.get("to", ())), log.get("project", PROJECT), dict(_flat(table)))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif key == "backbone" and not prefix:
            for backbone in value:
                yield from _flat(backbone, f"backbone.{backbone.get('name')}.")
        else:
            yield f"{prefix}{key}", str(value)
