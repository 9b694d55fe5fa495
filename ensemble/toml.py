"""An experiment written as TOML; `ensemble/config` reads it."""

import json
from typing import Any

from ensemble.config import Config


def to_toml(config: Config) -> str:
    """The whole config, defaults filled in, as an experiment file."""
    values = config.model_dump(mode="json", exclude_none=True)
    lines = [f"{key} = {toml_value(value)}" for key, value in values.items() if not isinstance(value, dict | list)]
    for key, value in values.items():
        for table in value if isinstance(value, list) else [value] if isinstance(value, dict) else []:
            lines += ["", f"[[{key}]]" if isinstance(value, list) else f"[{key}]"]
            lines += [f"{name} = {toml_value(item)}" for name, item in table.items() if item != {}]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A string, number, boolean, list or flat table as TOML writes it."""
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(toml_value(item) for item in value) + "]"
        case _:
            # TOML's strings, numbers and booleans are JSON's, but for DEL, which TOML wants escaped
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
