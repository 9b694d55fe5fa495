"""The processes of the tests' own Ray cluster, which other clusters may run beside."""

import os
from contextlib import suppress
from pathlib import Path


def ray_processes(title):
    """The ids of those that Ray has given this title, such as "ray::run_task"."""
    cache, found = f"ENS_CACHE={os.environ['ENS_CACHE']}".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            words, environment = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
            if words.strip(b"\0 ") == title.encode() and cache in environment.split(b"\0"):
                found.append(int(place.name))
    return found
