"""What all commands share: `--json`, the log of the run, and how they end.

A command is written so:

    @click.command()
    @click.argument("run", type=FOLDER_OR_FILE)
    @JSON
    def prune(run: Path, as_json: bool) -> None:
        with session(as_json, run) as told:
            with progress() as show:
                result = work(run, show, told.say)
            tables.show_result(result)           # on stderr with --json, like all that is printed
            told.answer(plain(result))
            told.say(f"saved {result.path}")

`say` prints a line and logs it; `answer` takes the result that --json prints, before or after the tables, and also
where the command fails later. All that can fail stands inside. A command that learns only later which run it works on
calls `told.in_run(run)`. To end with a status of its own: sys.exit(1), after the `with` or in it.

With --json stdout holds one document and nothing else:

    {"command": "blend", "ens": "0.1.0", "result": {...}, "said": ["..."]}

with "error": the line, where it failed (the exit status is the same as without --json), and "result": null where there
was none yet. `ensemble.cli.main` prints the error itself on stderr.
"""

import json
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import click

from ensemble import __version__, rundir, stop
from ensemble.errors import RunFailure, UserError
from ensemble.escape import escaped
from ensemble.run import Run
from ensemble.run.log import Log, open_log


@dataclass(frozen=True)
class Session:
    """say: print a line at once, and log it. answer: take the result, as `plain` gives it. in_run: name the run whose
    log it goes to."""

    say: Callable[[str], None]
    answer: Callable[[Any], None]
    in_run: Callable[[Path], None]


@contextmanager
def session(as_json: bool, run: Path | None = None) -> Iterator[Session]:
    """A command from its beginning to its end; see above."""
    command = click.get_current_context().info_name or ""
    said: list[str] = []
    results: list[Any] = []
    logs: dict[Path, Log] = {}  # one, as soon as the run is known
    waiting: list[str] = []
    begun = time.monotonic()

    def log(text: str) -> bool:
        if not logs:
            waiting.append(text)
        return any(own(text) for own in logs.values())

    def in_run(run: Path) -> None:
        logs[run] = open_log(Run(run))
        for text in waiting:
            logs[run](text)
        waiting.clear()

    def note(run: Path) -> None:
        if not rundir.is_vouched(run):
            say(f"{run}: was begun before digests were kept, so that damage in it can't be told")

    def enter(run: Path) -> None:
        in_run(run)
        note(run)

    def say(line: str) -> None:
        # Not click.echo: that writes past rich, into the middle of a live progress bar.
        print(escaped(line), flush=True)
        said.append(line)
        log(line)

    def end(error: str | None, status: int) -> None:
        log(f"ends with status {status} after {time.monotonic() - begun:.1f} s")
        if as_json:
            result = results[-1] if results else None
            print_document({"command": command, "ens": __version__, "result": result, "said": said}, error, stdout)

    if run is not None:
        in_run(run)
    stdout = sys.stdout
    log(f"begins: ens {__version__}: {command_line()}")
    with ExitStack() as stack:
        stack.enter_context(stop.listening(command_line(), log))
        stack.enter_context(_logged_warnings(log))
        if as_json:
            stack.enter_context(redirect_stdout(sys.stderr))
        if run is not None:
            note(run)
        try:
            yield Session(say, results.append, enter)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            end(None, status)
            raise
        except (Exception, KeyboardInterrupt) as error:
            known = ending(error)
            line, status = known or (f"{type(error).__name__}: {error}", 1)
            there = log(f"error: {line}" if known else "".join(traceback.format_exception(error)))
            if known is None and there:
                error.add_note(f"ens: this should not happen; what led to it is in {rundir.ens_log(next(iter(logs)))}")
            end(line, status)
            if isinstance(error, KeyboardInterrupt):  # click would print an empty line
                raise click.Abort from error
            raise
        end(None, 0)


def ending(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit status of what a command may end with; None for a mistake of ens itself."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, RunFailure):
        return str(error), 1
    if isinstance(error, OSError):
        return (f"{error.filename}: {error.strerror}" if error.filename else str(error)), 1
    if isinstance(error, click.Abort | KeyboardInterrupt):
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        kept = f"kept: {cause}; " if isinstance(cause, stop.Stopped) else ""
        return f"stopped; {kept}go on with: {command_line()}", 130
    return None


def command_line() -> str:
    """The words that the command was called with, as a shell takes them."""
    return shlex.join(["ens", *sys.argv[1:]])


def print_document(document: dict[str, Any], error: str | None, stdout: TextIO) -> None:
    """Strict JSON, in ASCII: a pipe may have any encoding."""
    document = document | ({} if error is None else {"error": error})
    print(json.dumps(document, indent=2, allow_nan=False), file=stdout, flush=True)


@contextmanager
def _logged_warnings(log: Log) -> Iterator[None]:
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        log(f"warning: {category.__name__}: {message}")
        before(escaped(str(message)), category, *where, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
