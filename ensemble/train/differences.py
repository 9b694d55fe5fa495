"""What a run holds otherwise than the experiment says now."""

import json
from collections.abc import Mapping
from typing import Any

from ensemble.escape import shortened


def first_difference(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first key of `wanted` whose value the run holds otherwise, and both values in JSON, the run's first; None if
    there is none."""
    for key, value in wanted.items():
        if recorded.get(key) != value:
            return key, _short(recorded.get(key)), _short(value)
    return None


def _short(value: Any) -> str:
    return shortened(json.dumps(value, ensure_ascii=False))
