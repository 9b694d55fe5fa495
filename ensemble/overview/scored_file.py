"""Predictions as they were written: a submission, a table of probabilities, or what a run keeps of a prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.data.classes import in_order, is_number, listed, reader
from ensemble.data.logits import load_logits
from ensemble.data.names import match_names, nfc, why_not
from ensemble.data.submission.answers import Answer
from ensemble.data.submission.columns import read_columns
from ensemble.data.submission.match import find_ids
from ensemble.data.submission.sample import Asked, SampleSubmission, read_sample
from ensemble.errors import UserError

ROUNDED = 0.02  # what the probabilities of a row may lack of 1


@dataclass(frozen=True)
class PredictedRows:
    """Predictions of N wanted ids.

    predicted: int64 (N,), numbers of `classes`.
    probabilities: float64 (N, C), rows sum to 1; None where the file holds classes alone.
    classes: C names.
    others: how many predictions the file has of other ids.
    notes: lines on how the file was read.
    blend: the name of the blend that a run's own file is of; None for others.
    """

    predicted: np.ndarray
    probabilities: np.ndarray | None
    classes: tuple[str, ...]
    others: int
    notes: tuple[str, ...]
    blend: str | None = None


def read_predicted(path: Path, wanted: Sequence[str], labels: Sequence[str], classes: Sequence[str]) -> PredictedRows:
    """Read a file's predictions of the ids `wanted`, each of which it has to have.

    labels: the classes that the truth has. classes: those of the run; () where no run is known: then they are the
    columns of probabilities if these are named so that all labels are among them, else the labels. Raises UserError
    that names the file, and the id that it lacks or the cell that is no answer.
    """
    if path.suffix == ".safetensors":
        return _of_run(path, wanted)
    sample = read_sample(path)
    column = find_ids(sample, wanted)
    rows, notes = _rows_of(sample.columns[column].tolist(), wanted, path)
    names = tuple(classes) or _classes(sample, column, labels)
    places = [place for place in range(len(sample.header)) if place != column and not sample.is_counter(place)]
    if not places:
        raise UserError(f"{path}: has no column beside the ids in {sample.header[column]!r}")
    answer, columns = read_columns(Asked(sample, [], rows, (column,)), places, names, None)
    notes += (f"{path.name} holds {answer.description}",)
    others = len(sample) - len(rows)
    held = dict(zip(places, columns, strict=True))
    shares = {each.number: place for place, each in held.items() if each.holds == "probability"}
    if not shares:
        place = next(place for place, each in held.items() if each.holds == "answer" and each.number == 0)
        return PredictedRows(_answers(sample, place, rows, answer, wanted), None, names, others, notes)
    found = np.full((len(rows), len(names)), np.nan)
    for number, place in shares.items():
        found[:, number] = _numbers(sample, place, rows, wanted)
    if len(shares) == 1:  # of two classes
        found[:, 1 - next(iter(shares))] = 1 - found[:, next(iter(shares))]
    total = found.sum(axis=1)
    odd = np.flatnonzero((found < 0).any(axis=1) | (np.abs(total - 1) > ROUNDED))
    if len(odd):
        row, cells = int(odd[0]), ", ".join(f"{value:g}" for value in found[odd[0]][:5])
        raise UserError(f"{path}: the probabilities of {wanted[row]!r} are {cells}; want a row that sums to 1")
    found /= total[:, None]
    return PredictedRows(found.argmax(axis=1), found, names, others, notes)


def _of_run(path: Path, wanted: Sequence[str]) -> PredictedRows:
    """What `ens tta-predict` keeps in the run: log-probabilities of the blend."""
    logits = load_logits(path)
    if logits.views != ("blend",) or logits.values.ndim != 3:
        raise UserError(f"{path}: not the predictions of a blend; name a file of RUN/predictions")
    rows, notes = _rows_of([str(name) for name in logits.ids], wanted, path)
    probabilities = np.exp(logits.values[0, rows].astype(np.float64))
    empty = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(empty):
        raise UserError(f"{path}: has no prediction of {wanted[int(empty[0])]!r} ({len(empty)} have none)")
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    others = len(logits.ids) - len(rows)
    best = probabilities.argmax(axis=1)
    return PredictedRows(best, probabilities, logits.classes, others, notes, logits.meta.get("blend"))


def _rows_of(ids: list[str], wanted: Sequence[str], path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The row of each wanted id, int64 (N,), and lines on how ids are written."""
    cells = [nfc(cell.strip()) for cell in ids]
    seen: set[str] = set()
    for cell in cells:
        if cell in seen:
            raise UserError(f"{path}: id {cell!r} is there twice; a file to score has one row for each image")
        seen.add(cell)
    matched = match_names(list(wanted), cells)
    lost = np.flatnonzero(matched.rows < 0)
    if len(lost):
        row = int(lost[0])
        why = why_not(wanted[row], row, matched, cells)
        raise UserError(f"{path}: no prediction for an id of the truth: {why} ({len(lost)} of {len(wanted)} lack one)")
    return matched.rows, matched.notes


def _classes(sample: SampleSubmission, ids: int, labels: Sequence[str]) -> tuple[str, ...]:
    """Those of columns of numbers among whose names all labels are; else the labels, and what one column of answers
    holds beside them."""
    names = [
        nfc(sample.header[place].strip())
        for place in range(len(sample.header))
        if place != ids and all(map(is_number, sample.texts(place)))
    ]
    if len(names) > 1 and set(labels) <= set(names):
        return in_order(names)
    known = reader(labels)
    answers = [place for place in range(len(sample.header)) if place != ids and not sample.is_counter(place)]
    texts = sample.texts(answers[0]) if len(answers) == 1 else []
    others = [text for text in texts if known(text) is None]
    are_numbers = all(map(is_number, others)) and not all(map(is_number, labels))
    return in_order([*labels, *(() if are_numbers else others)])


def _answers(
    sample: SampleSubmission, place: int, rows: np.ndarray, answer: Answer, wanted: Sequence[str]
) -> np.ndarray:
    number = {text: label for label, text in enumerate(answer.written)}
    found = np.empty(len(rows), dtype=np.int64)
    for row, cell in enumerate(sample.columns[place][rows].tolist()):
        text = nfc(cell.strip())
        first = text.split(answer.separator)[0].strip() if answer.count > 1 else text
        if first not in number:
            what = f"is {cell!r}, which is no class" if first else "has no prediction"
            raise UserError(f"{sample.path}: {wanted[row]!r} {what}; the classes are: {listed(answer.written)}")
        found[row] = number[first]
    return found


def _numbers(sample: SampleSubmission, place: int, rows: np.ndarray, wanted: Sequence[str]) -> np.ndarray:
    cells = sample.columns[place][rows]
    odd = [row for row, cell in enumerate(cells) if not is_number(str(cell).strip())]
    if odd:
        cell, header = str(cells[odd[0]]), sample.header[place]
        raise UserError(f"{sample.path}: {wanted[odd[0]]!r} has {cell!r} in {header!r}; want a number")
    return np.array([float(cell) for cell in cells])
