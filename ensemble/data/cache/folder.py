"""Where the cache is."""

from pathlib import Path

from ensemble.machine import user_cache


def cache_folder(setting: str) -> Path:
    """The folder that `data.cache` names; "auto" is the user's."""
    return user_cache() if setting == "auto" else Path(setting).expanduser()
