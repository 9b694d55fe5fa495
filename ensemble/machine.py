"""The machine that the work runs on, as far as it can be known without torch, whose import takes 2 seconds."""

import math
import os
import sys
from pathlib import Path

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
SCHEDULED = Path("/proc/thread-self/schedstat")
# What the drivers of NVIDIA, AMD, WSL and Jetson make. Without any of them torch finds no GPU on Linux.
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/nvmap")


def user_cache() -> Path:
    """What ens keeps on this machine: $ENS_CACHE, else $XDG_CACHE_HOME/ens, else ~/.cache/ens."""
    if os.environ.get("ENS_CACHE"):
        return Path(os.environ["ENS_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ens"


def cores() -> int:
    """How many cores this process may use: those that it may be scheduled on, and no more than its container is given
    time for (half a core counts as one)."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(there, _quota())))


def threads_allowed() -> int | None:
    """OMP_NUM_THREADS, of the outermost of nested loops ("4,2"); None where it is not set."""
    allowed = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(allowed) if allowed.isdecimal() and int(allowed) > 0 else None


def device_type() -> str:
    """The type of what `device.choose_device` chooses: cpu, cuda or mps. Torch is asked only where a GPU may be."""
    from importlib.metadata import version

    if sys.platform == "linux" and (version("torch").endswith("+cpu") or not any(map(os.path.exists, DRIVERS))):
        return "cpu"
    from ensemble.device import choose_device

    return choose_device().type


def waited() -> tuple[float, float]:
    """Seconds that the calling thread has computed, and that it was ready to and had to wait for a core. (0, 0) where
    the system doesn't count them (it is Linux that does)."""
    try:
        computed, delayed, _ = SCHEDULED.read_text().split()
        return int(computed) / 1e9, int(delayed) / 1e9
    except (OSError, ValueError):
        return 0.0, 0.0


def was_busy(before: tuple[float, float]) -> bool:
    """Whether other work took cores from the calling thread since it asked for `waited`: more than a tenth of the time.
    On an idle machine it is a thousandth."""
    computed, delayed = (now - then for now, then in zip(waited(), before, strict=True))
    return delayed > 0.1 * (computed + delayed)


def _quota() -> float:
    """Cores' worth of time that the control groups of this process allow it, the least of them; inf without a limit."""
    quotas = [math.inf]
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return math.inf
    for line in lines:
        _, controllers, own = [*line.split(":", 2), "", ""][:3]
        if controllers == "":  # version 2
            folder = CGROUPS / own.lstrip("/")
            for place in (folder, *folder.parents):
                if place.is_relative_to(CGROUPS):
                    quotas.append(_share(place / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for place in (CGROUPS / "cpu" / own.lstrip("/"), CGROUPS / "cpu"):
                quotas.append(_share(place / "cpu.cfs_quota_us", place / "cpu.cfs_period_us"))
    return min(quotas)


def _share(*files: Path) -> float:
    """Quota by period: both in one file (version 2: "max 100000") or in two (version 1: -1 is no limit)."""
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        return int(quota) / int(period) if quota not in ("max", "-1") else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
