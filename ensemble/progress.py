"""One line that says how far the work is: live on a terminal, else a line a minute."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

QUIET_SECONDS = 60.0

Show = Callable[[str, float, float], None]


@contextmanager
def progress() -> Iterator[Show]:
    """Yield `show(text, done, total)`, to be called as often as one likes. Writes to stderr."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(BarColumn(24), TextColumn("{task.percentage:3.0f}% {task.description}"), console=console) as bar:
            task = bar.add_task("")
            yield lambda text, done, total: bar.update(task, description=text, completed=done, total=total)
    else:
        last = time.monotonic()

        def show(text: str, done: float, total: float) -> None:
            nonlocal last
            if time.monotonic() - last >= QUIET_SECONDS:
                last = time.monotonic()
                print(f"{100 * done / max(total, 1):3.0f}% {text}", file=sys.stderr, flush=True)

        yield show


def paced(
    show: Show, text: str, done: float, total: float, now: Callable[[], float] = time.monotonic
) -> Callable[[float], None]:
    """`advance(images)`, which adds images to those done and shows how many there are a second and how long the others
    take. It may be called from several threads.

    done: images that were there before: they count in what is done, not in the speed. now: a clock in seconds.
    """
    lock = threading.Lock()
    begun, before = now(), done
    show(text, done, total)

    def advance(images: float) -> None:
        nonlocal done
        with lock:
            done += images
            seconds = now() - begun
            if seconds > 0 and done > before:
                rate = (done - before) / seconds
                speed = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
                left = duration(max(total - done, 0) / rate)
                show(f"{text}: {speed} images/s, {left} left", done, total)

    return advance


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
