"""Intervals as strips in a column of a table, with an axis in its heading."""

from collections.abc import Callable
from typing import Any

from matplotlib.ticker import MaxNLocator

SIDES = 6  # share of a strip, in percent, that is left free at either end


def strip(low: float, value: float, high: float, least: float, most: float) -> dict[str, float]:
    """The position of an interval and its value between `least` and `most`, in percent of a strip's width."""
    a, at, b = (_place(x, least, most) for x in (low, value, high))
    return {"left": a, "width": b - a, "at": at}


def axis(least: float, most: float, text: Callable[[float], str]) -> list[dict[str, Any]]:
    """Two to four round values between `least` and `most`: their positions in percent, and their `text`."""
    if most <= least:
        return []
    edge = (most - least) * 1e-6  # what a tick may miss an end by, computed
    found = map(float, MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]).tick_values(least, most))
    ticks = [tick for tick in found if least - edge <= tick <= most + edge]
    return [{"at": _place(tick, least, most), "text": text(tick)} for tick in ticks]


def _place(x: float, least: float, most: float) -> float:
    return SIDES + (100 - 2 * SIDES) * (x - least) / ((most - least) or 1.0)
