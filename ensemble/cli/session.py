"""What all commands share: `--json`, the log of the run, progress, and how they end.

A command is written so:

    @click.command()
    @click.argument("run", type=FOLDER_OR_FILE)
    @JSON
    def prune(run: Path, as_json: bool) -> None:
        with session(as_json, run) as events:
            result = work(run, events)
            show_result(result)                  # on stderr with --json, like all that is printed
            events.answer(plain(result))
            events.message(f"saved {result.path}")

A message is printed and logged, progress goes to the live bar; `answer` takes the result that --json prints, before or
after the tables, and also where the command fails later. All that can fail stands inside. A command that learns only
later which run it works on calls `events.in_run(run)`. To end with a status of its own: sys.exit(1), after the `with`
or in it.

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import click

from ensemble import __version__
from ensemble.cli.signals import listening
from ensemble.data.unpacked.source_names import with_source_names
from ensemble.errors import RunFailure, UserError
from ensemble.escape import escaped
from ensemble.progress import ProgressCallback
from ensemble.run import Run
from ensemble.run.log import Log, open_log, upload_log
from ensemble.run.shapes import Epoch
from ensemble.stop import Stopped
from ensemble.terminal import print_line


@dataclass
class Session:
    """A command that runs: the `Events` of its work.

    progress: the live bar, as `Events.progress`
    messages: the lines so far
    result: what --json prints
    """

    progress: ProgressCallback
    messages: list[str] = field(default_factory=list)
    result: Any = None
    _run: Run | None = None
    _log: Log | None = None
    _unlogged: list[str] = field(default_factory=list)  # until the run is known

    def message(self, line: str) -> None:
        """Print a line at once, and log it."""
        line = with_source_names(line)
        # Not click.echo: that writes past rich, into the middle of a live bar.
        print_line(escaped(line))
        self.messages.append(line)
        self.log(line)

    def epoch_finished(self, member: str, fold: int, epoch: Epoch) -> None:
        pass

    def job_finished(self, member: str, fold: int, seconds: float, error: str | None) -> None:
        pass

    def answer(self, result: Any) -> None:
        """Take the result, as `plain` gives it."""
        self.result = result

    def in_run(self, path: Path) -> None:
        """Name the run whose log it goes to."""
        self._run = Run(path)
        self._log = open_log(self._run)
        for text in self._unlogged:
            self._log(text)
        self._unlogged.clear()
        if not self._run.is_vouched():
            self.message(f"{self._run}: was begun before digests were kept, so damage in it cannot be detected")

    def upload_log(self) -> None:
        """Write the log to the object store that the run lies on, if it does."""
        if self._run is not None:
            upload_log(self._run)

    def log(self, text: str) -> Path | None:
        """Append to the run's log. Returns the log if the text is in it."""
        if self._run is None or self._log is None:
            self._unlogged.append(text)
            return None
        return self._run.ens_log if self._log(text) else None


@contextmanager
def session(as_json: bool, run: Path | None = None, is_server: bool = False) -> Iterator[Session]:
    """A command from its beginning to its end; see above. is_server: it waits for requests, so that no bar says that it
    starts."""
    from ensemble.bar import progress_bar

    command = click.get_current_context().info_name or ""
    begun = time.monotonic()
    stdout = sys.stdout
    with ExitStack() as stack:
        if as_json:
            stack.enter_context(redirect_stdout(sys.stderr))
        bar = stack.enter_context(ExitStack())
        events = Session(bar.enter_context(progress_bar()))
        if not is_server:
            events.progress("starting", 0, 1)  # imports alone may take seconds
        events.log(f"begins: ens {__version__}: {command_line()}")
        stack.enter_context(listening(command_line(), events.log))
        stack.enter_context(_logged_warnings(events.log))

        def end(error: str | None, status: int) -> None:
            bar.close()  # before anything is printed past it
            events.log(f"ends with status {status} after {time.monotonic() - begun:.1f} s")
            events.upload_log()
            if as_json:
                document = {"command": command, "ens": __version__, "result": events.result, "said": events.messages}
                print_document(document, error, stdout)

        try:
            if run is not None:
                events.in_run(run)
            yield events
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            end(None, status)
            raise
        except (Exception, KeyboardInterrupt) as error:
            known = ending(error)
            line, status = known or (f"{type(error).__name__}: {error}", 1)
            file = events.log(f"error: {line}" if known else "".join(traceback.format_exception(error)))
            if known is None and file:
                error.add_note(f"ens: this should not happen; what led to it is in {file}")
            end(line, status)
            if isinstance(error, KeyboardInterrupt):  # click would print an empty line
                raise click.Abort from error
            raise
        end(None, 0)


def ending(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit status of what a command may end with; None for a mistake of ens itself."""
    if isinstance(error, UserError):
        return with_source_names(str(error)), 2
    if isinstance(error, RunFailure):
        return with_source_names(str(error)), 1
    if isinstance(error, OSError):
        return with_source_names(f"{error.filename}: {error.strerror}" if error.filename else str(error)), 1
    if isinstance(error, click.Abort | KeyboardInterrupt):
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        kept = f"kept: {cause}; " if isinstance(cause, Stopped) else ""
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
def _logged_warnings(log: Callable[[str], object]) -> Iterator[None]:
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        log(f"warning: {category.__name__}: {message}")
        before(escaped(str(message)), category, *where, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
