"""The last lines of the run's logs, without the paths of the machine."""

import os
import re
from pathlib import Path

from ensemble.escape import escaped
from ensemble.run import Run

MOST = 60  # lines
LAST_BYTES = 2**16  # of a log that are read
_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) \d+ (.*)")
# An absolute path of two parts or more: a drive or not, not part of a word, a URL or a relative path.
_PATH = re.compile(r"(?<![\w.~:/\\-])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\,;:'\"()]+[/\\])+(?=[^\s/\\,;:'\"()])")


def last_messages(run: Run) -> list[dict[str, str]]:
    """The last messages of commands on the run, with their time (UTC): {"time": ..., "text": ...}, the newest last. A
    run on an object store has a log of each machine. What follows a line (a traceback) is left out."""
    found = []
    for path in run.path.glob("ens*.log"):
        found += [match for line in _tail(path) if (match := _LINE.fullmatch(line))]
    found.sort(key=lambda match: match[1])
    return [{"time": match[1], "text": without_paths(match[2], run)} for match in found[-MOST:]]


def without_paths(text: str, run: Run) -> str:
    """`text` on one line, in which the run's folder is its name, and of other absolute paths only the last part is
    left."""
    for folder in {str(run.path.absolute()), str(run.path.resolve())}:
        text = text.replace(folder + os.sep, f"{run.path.name}/").replace(folder, run.path.name)
    return escaped(_PATH.sub("…/", text.replace(str(Path.home()) + os.sep, "~/")))


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LAST_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
