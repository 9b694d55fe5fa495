"""One line that says how far the work is and how long the rest takes: live on a terminal and in a notebook, else a line
a minute."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from ensemble.escape import escaped
from ensemble.progress import ProgressCallback, duration

QUIET_SECONDS = 60.0
NOTEBOOK_SECONDS = 0.2  # between two updates, each of which is a message to the browser
WIDE = 100  # columns of a terminal with room for a longer bar
DELAY_SECONDS = 2.0  # a bar for less work than that would only flicker


@contextmanager
def progress_bar() -> Iterator[ProgressCallback]:
    """Yield `progress(text, done, total)`, to be called as often as one likes, from any thread. Writes to stderr.

    The time left is added where `text` does not end in "left" already, since a caller may know better. A step is over
    when `done` falls or `total` changes. The bar is there from DELAY_SECONDS after the first call until the end of the
    `with`; what is printed meanwhile stands above it.
    """
    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:  # TERM=dumb, as in Emacs: no line is written over
        with _live(console) as draw:
            yield timed(draw)
    elif console.is_jupyter:
        with _in_notebook() as draw:
            yield timed(draw)
    else:
        yield timed(_line_a_minute())


@contextmanager
def _live(console: Console) -> Iterator[ProgressCallback]:
    # rich would take what is printed to stdout to the terminal of stderr, also if stdout is a file
    to_terminal = sys.stdout.isatty()
    width = 24 if console.width >= WIDE else 12
    columns = BarColumn(width), TextColumn("{task.percentage:3.0f}% {task.description}")
    room = console.width - width - len(" 100% ")
    bar = Progress(*columns, console=console, transient=True, redirect_stdout=to_terminal)
    task = bar.add_task("")
    lock = threading.Lock()
    is_over = False

    def start() -> None:
        with lock:
            if not is_over:
                bar.start()

    timer = threading.Timer(DELAY_SECONDS, start)
    timer.daemon = True

    def draw(text: str, done: float, total: float) -> None:
        with lock:
            if not timer.ident:
                timer.start()
        bar.update(task, description=escape(shortened(escaped(text), room)), completed=done, total=total)

    try:
        yield draw
    finally:
        timer.cancel()
        with lock:
            is_over = True
            if bar.live.is_started:
                bar.stop()


@contextmanager
def _in_notebook() -> Iterator[ProgressCallback]:
    """A line of the cell's output that is written again and again. (rich's own bar needs ipywidgets.)"""
    from IPython.display import DisplayHandle

    lock = threading.Lock()
    handle: DisplayHandle | None = None
    latest = time.monotonic() + DELAY_SECONDS - NOTEBOOK_SECONDS

    def draw(text: str, done: float, total: float) -> None:
        nonlocal handle, latest
        with lock:
            if time.monotonic() - latest < NOTEBOOK_SECONDS:
                return
            latest = time.monotonic()
            line = {"text/plain": f"{100 * done / max(total, 1):3.0f}% {escaped(text)}"}
            if handle is None:
                handle = DisplayHandle()
                handle.display(line, raw=True)
            else:
                handle.update(line, raw=True)

    try:
        yield draw
    finally:
        if handle is not None:
            handle.update({"text/plain": ""}, raw=True)


def _line_a_minute() -> ProgressCallback:
    last = time.monotonic()

    def write(text: str, done: float, total: float) -> None:
        nonlocal last
        if time.monotonic() - last >= QUIET_SECONDS:
            last = time.monotonic()
            with suppress(OSError):  # whoever read it is gone: the work goes on
                print(f"{100 * done / max(total, 1):3.0f}% {escaped(text)}", file=sys.stderr, flush=True)

    return write


def shortened(text: str, width: int) -> str:
    """`text` in so many columns: what is left out is in its middle, since how long it takes stands at its end."""
    if cell_len(text) <= width:
        return text
    head, tail = max(width // 3, 1), text
    while cell_len(tail) > width - head - 1 and tail:
        tail = tail[1:]
    return f"{set_cell_size(text, head)}…{tail}"


def timed(progress: ProgressCallback, now: Callable[[], float] = time.monotonic) -> ProgressCallback:
    """`progress`, with the time left added to its text from the pace since the step began. now: a clock in seconds."""
    lock = threading.Lock()
    begun, first, before, whole = now(), 0.0, 0.0, -1.0

    def timed_progress(text: str, done: float, total: float) -> None:
        nonlocal begun, first, before, whole
        with lock:
            if done < before or total != whole:  # another step
                begun, first, whole = now(), done, total
            before = done
            seconds = now() - begun
            if seconds >= DELAY_SECONDS and first < done < total and not text.endswith("left"):
                text = f"{text}: {duration((total - done) * seconds / (done - first))} left"
            progress(text, done, total)

    return timed_progress
