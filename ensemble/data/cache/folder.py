"""Where the cache is."""

import os
from pathlib import Path


def cache_folder(setting: str) -> Path:
    """The folder that `data.cache` names: "auto" is $ENS_CACHE, else $XDG_CACHE_HOME/ens, else ~/.cache/ens."""
    if setting != "auto":
        return Path(setting).expanduser()
    if os.environ.get("ENS_CACHE"):
        return Path(os.environ["ENS_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ens"
