"""How fast the work is and how long the rest takes, in words."""

import threading
import time
from collections.abc import Callable

from ensemble.events import Events

ProgressCallback = Callable[[str, float, float], None]  # as `Events.progress`


def paced(
    events: Events,
    text: str,
    done: float,
    total: float,
    now: Callable[[], float] = time.monotonic,
    unit: str = "images",
) -> Callable[[float], None]:
    """`advance(images)`, which adds images to those done and reports how many there are per second and how long the
    others take. It may be called from several threads.

    done: images that were there before: they count in what is done, not in the speed. now: a clock in seconds. unit:
    what is counted, where it is not images.
    """
    lock = threading.Lock()
    begun, before = now(), done
    events.progress(text, done, total)

    def advance(images: float) -> None:
        nonlocal done
        with lock:
            done += images
            seconds = now() - begun
            if seconds > 0 and done > before:
                rate = (done - before) / seconds
                speed = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
                left = duration(max(total - done, 0) / rate)
                events.progress(f"{text}: {speed} {unit}/s, {left} left", done, total)

    return advance


def counted(events: Events, text: str, total: int) -> Callable[[], None]:
    """`advance()`, which adds one to what is done and reports it; never more than the total."""
    done = 0
    events.progress(text, done, total)

    def advance() -> None:
        nonlocal done
        done += 1
        events.progress(text, min(done, total), total)

    return advance


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
