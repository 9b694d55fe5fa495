"""Where work can be stopped: its safe points. `ensemble.cli.signals` asks for it, at Ctrl-C."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Stopped(KeyboardInterrupt):
    """The work was ended by the user. Its text says what is kept of it."""


@dataclass
class _Work:
    """Work that has safe points. step: what is finished before the next one; asked: whether it is to end there."""

    step: Callable[[], str | None]
    asked: bool = False


_stack: list[_Work] = []  # the innermost last


@contextmanager
def safe_points(step: Callable[[], str | None], kept: Callable[[], str]) -> Iterator[Callable[[], bool]]:
    """Yield `asked()`, which says whether the work inside was asked to end: at a safe point it then raises
    KeyboardInterrupt, which leaves here as a `Stopped`.

    step(): in words, what will be finished first ("shard 3 of 9"), asked when the signal comes; None where that would
    take long, and the work is ended at once. kept(): what is kept, in words.
    """
    work = _Work(step)
    _stack.append(work)
    try:
        yield lambda: work.asked
    except Stopped:  # work inside of this says it more exactly
        raise
    except KeyboardInterrupt:
        raise Stopped(kept()) from None
    finally:
        _stack.remove(work)


def ask_to_stop() -> str | None:
    """Ask the innermost work to end at its next safe point. Returns what it finishes first, in words; None where there
    is no such point soon, and whoever asks has to end it."""
    step = _stack[-1].step() if _stack else None
    if step is not None:
        _stack[-1].asked = True
    return step
