"""`ens submissions`: a ledger of what was submitted, with its out-of-fold score and, once the user enters it, the
board's. It is a CSV in the run, submissions.csv, which the user may edit: columns of their own and the order stay."""

import csv
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ensemble.blend.result import read_scores
from ensemble.data.table.csv_text import NO_DELIMITER, delimiter_of
from ensemble.errors import UserError
from ensemble.files.atomic import write_text
from ensemble.files.claims import Claim, claimed_when_free
from ensemble.files.limits import require_text_table
from ensemble.files.mirror import display_name, local
from ensemble.overview.runs import find_runs
from ensemble.overview.selection_bias import SelectionBias, System, selection_bias
from ensemble.run import Run
from ensemble.scoring.bootstrap import Score
from ensemble.scoring.metrics import computed

FIELDS = ("written", "file", "sha256", "run", "blend", "views", "members", "images", "rows")
NONE = "no submission is recorded; ens tta-predict records those that it writes"
LEAST_DIGITS = 7  # of a digest that stands for a file


@dataclass(frozen=True)
class LedgerTable:
    """A CSV as it is on disk.

    columns: the header
    lines: cells by column; a line may have fewer cells than there are columns
    delimiter, newline: as the file has them
    mark: the byte order mark that Excel writes, and needs to read UTF-8; "" if there is none
    """

    columns: tuple[str, ...]
    lines: tuple[dict[str, str], ...]
    delimiter: str = ","
    newline: str = "\n"
    mark: str = ""


@dataclass(frozen=True)
class Entry:
    """One submission.

    ledger, line: where it is entered
    values: its cells by column
    state: "changed" or "gone" if the file is not what was written, else ""
    fingerprint: of the data of the ledger's run; "" if it is not known
    """

    ledger: Path
    line: int
    values: Mapping[str, str]
    state: str
    fingerprint: str = ""


def record(ledger: Path, submission: Path, fields: Mapping[str, Any], scores: Mapping[str, Score]) -> None:
    """Append a submission that was written.

    ledger: the CSV, which is created if there is none
    submission: the file that was written
    fields: values of some of the columns FIELDS
    scores: by metric; there are columns for each of them and for the metrics that are always computed

    Two processes may append at once. Raises OSError if it can't be written, UserError if it can't be read.
    """
    row = {key: str(value) for key, value in fields.items()}
    row["written"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S+00:00}"
    row["file"], row["sha256"] = str(submission.resolve()), digest(submission)
    for metric, score in scores.items():
        numbers = {"": score.value, "_low": score.low, "_high": score.high}
        row |= {metric + end: f"{number:.6g}" for end, number in numbers.items()}
    wanted = columns_of(computed(*scores))
    with _changing(ledger):
        table = read_table(ledger) if ledger.is_file() else LedgerTable(wanted, ())
        columns = (*table.columns, *(name for name in wanted if name not in table.columns))
        _write(ledger, LedgerTable(columns, (*table.lines, row), table.delimiter, table.newline, table.mark))


def columns_of(metrics: Sequence[str]) -> tuple[str, ...]:
    """Those of a ledger with scores by these metrics."""
    return (*FIELDS, *(metric + end for metric in metrics for end in ("", "_low", "_high")), "board", "note")


def entries(place: Path) -> list[Entry]:
    """The submissions of a run, or of all runs below a folder and of the folder itself, the newest last. An entry
    of two ledgers (of a copied run) is listed once: from the ledger with its board's score, else from the first.

    Raises UserError if `place` is no folder, or a ledger can't be read.
    """
    place = local(place)
    if not place.is_dir():
        raise UserError(f"{display_name(place)}: no such folder; name a run, or a folder of runs")
    ledgers = dict.fromkeys(Run(folder).submissions_csv for folder in [place, *find_runs(place)])
    found: list[Entry] = []
    for ledger in filter(Path.is_file, ledgers):
        data = _fingerprint(ledger.parent)
        lines = enumerate(read_table(ledger).lines)
        found += [Entry(ledger, line, values, _state(values), data) for line, values in lines]
    first: dict[tuple[str, ...], Path] = {}
    for entry in sorted(found, key=lambda entry: not entry.values.get("board")):
        first.setdefault(_written(entry), entry.ledger)
    found = [entry for entry in found if first[_written(entry)] == entry.ledger]
    return sorted(found, key=lambda entry: entry.values.get("written", ""))


def bias_of_best_blends(found: Sequence[Entry], metric: str) -> tuple[SelectionBias, ...]:
    """How much better the best of several submitted blends looks than it is, on each data set with several; only by
    metrics that are always computed."""
    if metric not in computed():
        return ()
    metrics = tuple(dict.fromkeys((metric, "log_loss")))
    data: dict[str, dict[tuple[str, str], System]] = {}
    for entry in found:
        run, blend = entry.values.get("run", ""), entry.values.get("blend", "")
        known = [entry.values.get(name, "") for name in metrics]
        if entry.fingerprint and run and blend and all(map(is_number, known)):
            values = dict(zip(metrics, map(float, known), strict=True))
            data.setdefault(entry.fingerprint, {})[run, blend] = System(entry.ledger.parent, blend, "", values)
    of_data = (selection_bias(list(systems.values()), metrics) for systems in data.values() if len(systems) > 1)
    return tuple(each for each in of_data if each is not None)


def enter(place: Path, file: str, column: str, text: str) -> Entry:
    """Write `text` into the column ("board" or "note") of the submission `file` means, the newest one of it; returns
    that one, as it was. Raises UserError as `find` and `entries` do, and for a score that is no number."""
    if column == "board" and not is_number(text):
        raise UserError(f"--board {file}={text}: the score must be a number")
    entry = find(entries(place), file)
    with _changing(entry.ledger):
        table = read_table(entry.ledger)
        same = [n for n, line in enumerate(table.lines) if line == entry.values]
        if not same:
            raise UserError(f"{entry.ledger}: was changed meanwhile; try again")
        columns = table.columns if column in table.columns else (*table.columns, column)
        lines = [line | ({column: text} if n == same[-1] else {}) for n, line in enumerate(table.lines)]
        _write(entry.ledger, LedgerTable(columns, tuple(lines), table.delimiter, table.newline, table.mark))
    return entry


def find(found: Sequence[Entry], file: str) -> Entry:
    """The newest entry that `file` means: a path, a name, or the first digits of a digest.

    A file that was overwritten since its newest entry is found by its digest. Raises UserError if there is none, or if
    files of several folders have that name.
    """
    path = Path(file)
    matches = [entry for entry in found if entry.values.get("file") == str(path.resolve())]
    if not matches:
        matches = [entry for entry in found if Path(entry.values.get("file", "").replace("\\", "/")).name == file]
        folders = sorted({entry.values.get("file", "") for entry in matches})
        if len(folders) > 1:
            raise UserError(f"{file}: {len(folders)} files have that name ({', '.join(folders)}); write the whole path")
    if not matches and len(file) >= LEAST_DIGITS:
        matches = [entry for entry in found if entry.values.get("sha256", "").startswith(file.lower())]
        if len({entry.values["sha256"] for entry in matches}) > 1:
            raise UserError(f"{file}: the digests of several submissions begin with that; write more digits")
    there = Path(matches[-1].values.get("file", "")) if matches else path
    if there.is_file() and (not matches or matches[-1].state == "changed"):
        now = digest(there)
        matches = [entry for entry in found if entry.values.get("sha256") == now] or matches
    if not found:
        raise UserError(f"{file}: {NONE}")
    if not matches:
        names = ", ".join(dict.fromkeys(Path(entry.values.get("file", "")).name for entry in reversed(found)))
        raise UserError(f"{file}: no such submission; there are: {names}")
    return matches[-1]


def scores_of(run: Path, blend: str) -> dict[str, Score]:
    """The cross-fitted scores of a run's blend; empty if it was saved without any."""
    return read_scores(Run(run), blend)


def read_table(path: Path) -> LedgerTable:
    """Read a ledger, as ens or a spreadsheet wrote it. Raises UserError."""
    require_text_table(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; in the spreadsheet, save it as CSV UTF-8") from None
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    text = text.removeprefix(mark)
    head = text.partition("\n")[0]
    delimiter = delimiter_of(head)
    delimiter = "," if delimiter == NO_DELIMITER else delimiter
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        cells = list(reader)
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is not readable as CSV ({error}); correct it") from None
    columns = cells[0] if cells else []
    if "file" not in columns or len(set(columns)) < len(columns):
        raise UserError(f"{path}: not a ledger of submissions (a column named file, no name twice); move it away")
    lines = []
    for number, row in enumerate(cells[1:], start=2):
        if len(row) > len(columns):
            raise UserError(f"{path}: line {number} has {len(row)} cells, the header {len(columns)}; correct it")
        if any(row):
            lines.append(dict(zip(columns, row, strict=False)))
    return LedgerTable(tuple(columns), tuple(lines), delimiter, "\r\n" if head.endswith("\r") else "\n", mark)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, table: LedgerTable) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=table.delimiter, lineterminator=table.newline)
    writer.writerow(table.columns)
    writer.writerows([line.get(name, "") for name in table.columns] for line in table.lines)
    write_text(path, table.mark + text.getvalue())


def _changing(ledger: Path) -> AbstractContextManager[Claim]:
    """While one process changes the ledger, another one waits."""
    return claimed_when_free(ledger.with_name(f".{ledger.name}.claim"))


def _fingerprint(run: Path) -> str:
    """Of the run's data; "" if it has none or is not a run."""
    try:
        return str(Run(run).read_provenance()["facts"]["data fingerprint"])
    except (UserError, OSError, KeyError, TypeError):
        return ""


def _written(entry: Entry) -> tuple[str, ...]:
    """What is the same in copies of one line, whatever the user wrote beside it."""
    named = tuple(entry.values.get(column, "") for column in ("sha256", "written", "file"))
    return named if all(named) else (str(entry.ledger), str(entry.line))


def _state(values: Mapping[str, str]) -> str:
    path = Path(values.get("file", ""))
    with suppress(OSError):
        if not path.is_file():
            return "gone"
        return "" if digest(path) == values.get("sha256", "") else "changed"
    return "gone"


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
