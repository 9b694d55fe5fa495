"""`ens relabel`: writes labels that are probably wrong into a CSV to be edited.

A row is a candidate if the cross-fitted blend gives another class ten times the probability of the label, and either
that class is as probable as it usually is for its own rows (confident learning: Northcutt, Jiang and Chuang, "Confident
learning: estimating uncertainty in dataset labels", JAIR 2021) or no member, out of fold, predicts the label; or if a
copy of the image carries another label. The least probable label comes first.

The order matters most. Labels flipped at random, average precision of the ranking, and what the list holds:

    paintings, 2 % flipped    by the probability of the label (this) 0.972, by the margin 0.942, by votes 0.941, by the
                              plain mean of the members 0.921; 49 listed, 67 % of them flipped, 97 % of the flips
    paintings, 5 % flipped    0.965, 0.929, 0.944, 0.936; 88 listed, 86 % of them flipped, 89 % of the flips
    digits, 3 % flipped       1.000, 0.993, 1.000, 1.000; 44 listed, 98 % of them flipped, all 43 flips

The digits' networks were trained on the flipped labels; the paintings' were not, only the blend was fitted on them.
cleanlab 2.9, given the same probabilities, ranks the same way by `self_confidence`; its default filter finds 82, 76
and 84 % of the flips in lists of 48, 85 and 36. If labels are sound, the list holds hard images instead: of the 22 that
it lists for the paintings as they are, none looks wrong to a person. So no label changes unless a person says so.
"""

import csv
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.data.corrections import COLUMN, read_edited, read_new_labels
from ensemble.data.table.csv_text import decoded, delimiter_of
from ensemble.data.table.read import table_bytes
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files.atomic import require_writable, write_text
from ensemble.plural import pluralize
from ensemble.report.copies import run_copies
from ensemble.report.run import RunResults, read_run
from ensemble.run import Run
from ensemble.run.outputs import require_output

RATIO = 0.1  # of the given class's probability to the suggested one's, at most
COLUMNS = ("id", "path", "label", "suggested", COLUMN, "p_label", "p_suggested", "votes", "why", "rank")


@dataclass(frozen=True)
class LabelErrors:
    """K probable label errors, the most probable first.

    rows: int64 (K,), into the N rows
    suggested: int64 (K,), the class to use instead
    votes: int64 (K,), how many members predict that class
    copy: int64 (K,), the row of a copy with another label, -1 if there is none
    """

    rows: np.ndarray
    suggested: np.ndarray
    votes: np.ndarray
    copy: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def find_label_errors(
    labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray, pairs: Sequence[tuple[int, int]] = ()
) -> LabelErrors:
    """The rows whose label is probably wrong.

    labels: int64 (N,)
    probabilities: float64 (N, C), calibrated, from fits that the row was not part of
    predicted: int64 (M, N), the class that each member predicts for each row out of fold
    pairs: rows that are copies of one image
    """
    everywhere = np.arange(len(labels))
    given = probabilities[everywhere, labels]
    likely = probabilities.argmax(axis=1)
    chance = probabilities[everywhere, likely]
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    usual = np.bincount(labels, given, minlength=probabilities.shape[1]) / np.maximum(counts, 1)
    usual[counts == 0] = np.inf
    alone = (predicted != labels).all(axis=0)
    found = (likely != labels) & (given < RATIO * chance) & ((chance >= usual[likely]) | alone)
    copy = np.full(len(labels), -1)
    for first, second in pairs:
        if labels[first] != labels[second]:
            copy[first], copy[second] = second, first
    suggested = np.where((likely == labels) & (copy >= 0), labels[copy], likely)
    rows = np.flatnonzero(found | (copy >= 0))
    rows = rows[np.argsort(given[rows], kind="stable")]
    votes = (predicted[:, rows] == suggested[rows]).sum(axis=0)
    return LabelErrors(rows, suggested[rows], votes, copy[rows])


def label_errors(results: RunResults, files: dict[str, Path]) -> LabelErrors:
    """`find_label_errors` of a run. files: id -> the image, of those that exist."""
    assert results.oof is not None
    rows = results.oof.rows
    predicted = np.stack([member.predicted for member in results.single])
    found = run_copies(results, rows.ids, files)
    pairs = [] if found is None else [(first, second) for first, second, _ in found.copies]
    return find_label_errors(rows.labels, results.probabilities, predicted, pairs)


def write_relabel(run: Run, output: Path | None, events: Events) -> Path:
    """Write the probable label errors of a run to `output` (None: relabel.csv here), atomically.

    Of a file that exists already, the entries in `new_label`, columns that the user added, rows with an entry that are
    no longer among the errors, and the delimiter are kept. The file is UTF-8 with a byte order mark, without which
    Excel garbles Korean. Raises UserError as `read_run` does, if no fold is finished, or if another file is in the way.
    """
    path = output or Path("relabel.csv")
    require_output(path)  # a file that is there is read first, and refused if it is not such a table
    existing = _existing_rows(path)
    delimiter = _delimiter(path)
    results = read_run(run, events)
    for problem in results.problems:
        events.message(f"warning: {problem}")
    if results.oof is None:
        raise UserError(f"{run}: no fold is finished, so no label can be checked; to go on: ens train-folds FILE")
    if results.files_problem:
        events.message(f"warning: the column path stays empty ({results.files_problem})")
    found = label_errors(results, results.files)
    lines = [_line(results, results.files, found, at) for at in range(len(found))]
    extra = [column for column in next(iter(existing.values()), {}) if column not in COLUMNS]
    lines = [line | {key: existing.get(line["id"], {}).get(key, "") for key in (COLUMN, *extra)} for line in lines]
    listed = {line["id"] for line in lines}
    lines += [line for name, line in existing.items() if name not in listed and line[COLUMN]]
    entries = sum(bool(line[COLUMN]) for line in lines)
    text = io.StringIO()
    table = csv.DictWriter(text, [*COLUMNS, *extra], restval="", delimiter=delimiter)
    table.writeheader()
    table.writerows(lines)
    require_writable(path)
    write_text(path, "\ufeff" + text.getvalue())
    kept = f"; {pluralize(entries, 'entry', 'entries')} in {COLUMN} kept" if existing else ""
    total = len(results.oof.rows.ids)
    if not len(found):
        events.message(f"{path}: none of {pluralize(total, 'label')} is doubtful, so there is nothing to check{kept}")
        return path
    verb = "label is" if len(found) == 1 else "labels are"
    events.message(f"{path}: {len(found)} of {total:,} {verb} doubtful, the most doubtful first{kept}")
    change = shlex.quote(f"data.relabel={path}")
    events.message(
        "if the labels are sound, most of these are hard images: look at each, and write a class, keep or drop into "
        f"{COLUMN}; then train with --set {change} --set run=ANOTHER"
    )
    return path


def votes_text(found: LabelErrors, at: int, members: int, classes: Sequence[str]) -> str:
    """ "6 of 7 predict horse"."""
    return f"{found.votes[at]} of {members} predict {classes[found.suggested[at]]}"


def why_text(results: RunResults, found: LabelErrors, at: int) -> str:
    """Which copy has another label; "" if none has: then the votes are the reason."""
    assert results.oof is not None
    rows, copy = results.oof.rows, int(found.copy[at])
    return "" if copy < 0 else f"copy of {rows.ids[copy]}, labelled {rows.classes[rows.labels[copy]]}"


def _line(results: RunResults, files: dict[str, Path], found: LabelErrors, at: int) -> dict[str, str]:
    assert results.oof is not None
    rows, row = results.oof.rows, int(found.rows[at])
    name, given, suggested = str(rows.ids[row]), int(rows.labels[row]), int(found.suggested[at])
    return {
        "id": name,
        "path": str(files.get(name, "")),
        "label": rows.classes[given],
        "suggested": rows.classes[suggested],
        COLUMN: "",
        "p_label": f"{results.probabilities[row, given]:.4f}",
        "p_suggested": f"{results.probabilities[row, suggested]:.4f}",
        "votes": votes_text(found, at, len(results.oof.members), rows.classes),
        "why": why_text(results, found, at),
        "rank": str(at + 1),
    }


def _existing_rows(path: Path) -> dict[str, dict[str, str]]:
    """id -> the row of a file that exists already; empty if there is none."""
    if not path.exists():
        return {}
    try:
        new = read_new_labels(path)
    except UserError as error:
        raise UserError(f"{error}; it is in the way: name another file with -o") from None
    table = read_edited(path).rename(columns=str)
    return {
        name: {str(key): str(value) for key, value in row.items()} | {"id": name, COLUMN: new[name]}
        for name, row in zip(new, table.to_dict("records"), strict=True)
    }


def _delimiter(path: Path) -> str:
    """The delimiter of the file that was read, so that the user's spreadsheet can open it again."""
    return delimiter_of(decoded(table_bytes(path))[0]) if path.is_file() else ","
