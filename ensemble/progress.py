"""One line that says how far the work is and how long the rest takes: live on a terminal, else a line a minute."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from ensemble.escape import escaped

QUIET_SECONDS = 60.0
DELAY_SECONDS = 2.0  # a bar for less work than that would only flicker

Show = Callable[[str, float, float], None]


@contextmanager
def progress() -> Iterator[Show]:
    """Yield `show(text, done, total)`, to be called as often as one likes, from any thread. Writes to stderr.

    The time left is added where `text` does not end in "left" already, since a caller may know better. A step is over
    when `done` falls or `total` changes. Nothing is shown of steps that take less than DELAY_SECONDS.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        # rich would take what is printed to stdout to the terminal of stderr, also if stdout is a file
        to_terminal = sys.stdout.isatty()
        columns = BarColumn(24), TextColumn("{task.percentage:3.0f}% {task.description}")
        with Progress(*columns, console=console, transient=True, redirect_stdout=to_terminal) as bar:
            task = bar.add_task("", visible=False)
            timers: list[threading.Timer] = []

            def draw(text: str, done: float, total: float) -> None:
                if not timers:
                    timers.append(threading.Timer(DELAY_SECONDS, lambda: bar.update(task, visible=True)))
                    timers[0].daemon = True
                    timers[0].start()
                bar.update(task, description=escape(escaped(text)), completed=done, total=total)

            try:
                yield timed(draw)
            finally:
                for timer in timers:
                    timer.cancel()
    else:
        last = time.monotonic()

        def write(text: str, done: float, total: float) -> None:
            nonlocal last
            if time.monotonic() - last >= QUIET_SECONDS:
                last = time.monotonic()
                with suppress(OSError):  # whoever read it is gone: the work goes on
                    print(f"{100 * done / max(total, 1):3.0f}% {escaped(text)}", file=sys.stderr, flush=True)

        yield timed(write)


def timed(show: Show, now: Callable[[], float] = time.monotonic) -> Show:
    """`show`, with the time left added to its text from the pace since the step began. now: a clock in seconds."""
    lock = threading.Lock()
    begun, first, before, whole = now(), 0.0, 0.0, -1.0

    def show_timed(text: str, done: float, total: float) -> None:
        nonlocal begun, first, before, whole
        with lock:
            if done < before or total != whole:  # another step
                begun, first, whole = now(), done, total
            before = done
            seconds = now() - begun
            if seconds >= DELAY_SECONDS and first < done < total and not text.endswith("left"):
                text = f"{text}: {duration((total - done) * seconds / (done - first))} left"
            show(text, done, total)

    return show_timed


def paced(
    show: Show,
    text: str,
    done: float,
    total: float,
    now: Callable[[], float] = time.monotonic,
    unit: str = "images",
) -> Callable[[float], None]:
    """`advance(images)`, which adds images to those done and shows how many there are a second and how long the others
    take. It may be called from several threads.

    done: images that were there before: they count in what is done, not in the speed. now: a clock in seconds. unit:
    what is counted, where it is not images.
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
                show(f"{text}: {speed} {unit}/s, {left} left", done, total)

    return advance


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
