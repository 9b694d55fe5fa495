"""Predictions in the sample submission's ids, order, header and form."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.data.submission.answers import Answer, read_answer
from ensemble.data.submission.columns import Column, read_columns
from ensemble.data.submission.match import match
from ensemble.data.submission.sample import Asked, SampleSubmission, read_sample
from ensemble.files.atomic import replacing
from ensemble.plural import pluralize


@dataclass(frozen=True)
class Layout:
    """How a submission's rows are written.

    columns: in order.
    classes: C names.
    form: "label", "index" or "probability".
    description: the form in words.
    answer: what the cells of an answer are.
    asked: what the sample that is followed asks for, if there is one.
    notes: lines on that.
    costs: float64 (C, C), what it costs to predict the column's class for an image of the row's: answers then are the
        classes of least expected cost, not the most probable ones. None without costs.
    """

    columns: tuple[Column, ...]
    classes: tuple[str, ...]
    form: str
    description: str
    answer: Answer
    asked: Asked | None = None
    notes: tuple[str, ...] = ()
    costs: np.ndarray | None = None

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def tables(self, ids: Sequence[str], blocks: Iterable[np.ndarray]) -> Iterator[pd.DataFrame]:
        """The rows in pieces. ids: of N images, where there is a sample its own in its order. blocks: their
        probabilities, float (n, C), one block after the other; an image of NaN has no prediction, and empty cells."""
        if self.asked is not None and list(ids) != self.asked.ids:
            raise ValueError(
                f"{len(ids)} ids are not the {len(self.asked.ids)} of {self.asked.sample.path}, in its order"
            )
        if self.asked is not None and self.asked.row_image is not None:
            blocks = [np.concatenate(list(blocks))]  # fewer numbers than the sample, which is in memory, has rows
        start = 0
        for block in blocks:
            stop = start + len(block)
            if stop > len(ids):
                raise ValueError(f"{len(ids)} ids for {stop} rows of probabilities")
            yield self._table(ids, block, start)
            start = stop
        if start != len(ids):
            raise ValueError(f"{len(ids)} ids for {start} rows of probabilities")

    def _table(self, ids: Sequence[str], probabilities: np.ndarray, start: int) -> pd.DataFrame:
        """The rows of the images from `start` on."""
        stop = start + len(probabilities)
        row_class = None
        if self.asked is not None and self.asked.row_image is not None:
            probabilities, row_class = probabilities[self.asked.row_image], self.asked.row_class
        known = ~np.isnan(probabilities).any(axis=1)
        # Of many classes most submissions want the likeliest alone, which needs no sorting.
        deep = self.answer.count > 1 or any(column.number for column in self.columns if column.holds == "answer")
        filled = np.where(known[:, None], probabilities, 0)
        ranked = filled if self.costs is None else -(filled @ self.costs)
        best = np.argsort(-ranked, axis=1, kind="stable") if deep else ranked.argmax(axis=1)[:, None]
        cells: dict[int, Sequence[object] | np.ndarray] = {}
        for place, column in enumerate(self.columns):
            if column.holds == "id" and row_class is None:
                cells[place] = ids[start:stop]
            elif column.holds in ("id", "copied"):
                assert self.asked is not None
                copied = self.asked.sample.columns[place]
                cells[place] = copied if row_class is not None else copied[start:stop]
            elif column.holds == "answer":
                cells[place] = self._answers(best, known, column.number)
            elif column.holds == "confidence":
                cells[place] = probabilities[np.arange(len(best)), best[:, 0]]
            elif row_class is not None:
                cells[place] = probabilities[np.arange(len(best)), row_class]
            else:
                cells[place] = probabilities[:, column.number]
        return pd.DataFrame(cells)

    def _answers(self, best: np.ndarray, known: np.ndarray, rank: int) -> np.ndarray:
        """Cells of class names or numbers, str objects (n,). best: int64 (n, C or 1), the likeliest first."""
        written = np.array([*self.answer.written, ""], dtype=object)
        columns = [written[np.where(known, best[:, rank + k], len(written) - 1)] for k in range(self.answer.count)]
        joined = columns[0]
        for column in columns[1:]:
            joined = np.where(known, joined + self.answer.separator + column, "")
        return np.asarray(joined)


def follow(
    sample_submission: Path | None,
    images: Sequence[str],
    classes: tuple[str, ...],
    form: str | None,
    costs: np.ndarray | None = None,
) -> tuple[Layout, list[str], np.ndarray]:
    """How to write a submission for these images (relative paths), the ids to write, and the images' rows, int64 (N,):
    those that the sample asks for in its order, or all. The notes of the layout say what will be written. costs: see
    `Layout`. Raises UserError as `read_sample`, `match` and `lay_out` do."""
    asked = None if sample_submission is None else match(read_sample(sample_submission), images, classes)
    layout = lay_out(classes, asked, form)
    notes = [*layout.notes, f"writes {layout.description}"]
    if costs is not None and any(column.holds == "answer" for column in layout.columns):
        notes.append("each answer is the class of the least expected cost, which may not be the most probable one")
    if asked is not None and len(asked.ids) < len(images):
        rows = set(asked.images.tolist())
        rest = [name for row, name in enumerate(images) if row not in rows]
        names = ", ".join(rest[:3]) + (", ..." if len(rest) > 3 else "")
        left_out = pluralize(len(rest), "image is", "images are")
        notes.append(f"{left_out} not in {sample_submission} and left out ({names})")
    layout = replace(layout, costs=costs, notes=tuple(notes))
    if asked is None:
        return layout, list(images), np.arange(len(images))
    return layout, asked.ids, asked.images


def lay_out(classes: tuple[str, ...], asked: Asked | None = None, form: str | None = None) -> Layout:
    """How the submission of a classifier of these classes is written.

    form: "label" (class names), "index" (their numbers), "probability" (one column per class, or with a single column
    beside the id the second of two classes), or None to follow the sample. Raises UserError if the sample's columns
    can't hold that form, or if what they ask for can't be told.
    """
    if asked is None:
        return _plain(classes, form or "label")
    sample = asked.sample
    roles: dict[int, Column] = {place: Column(sample.header[place], "copied") for place in asked.used}
    roles[asked.used[0]] = Column(sample.header[asked.used[0]], "id")
    open_places = [place for place in range(len(sample.header)) if place not in roles]
    counters = [place for place in open_places if sample.is_counter(place)]
    if len(counters) < len(open_places):
        roles |= {place: Column(sample.header[place], "copied") for place in counters}
        open_places = [place for place in open_places if place not in counters]
    answer, columns = read_columns(asked, open_places, classes, form)
    roles |= dict(zip(open_places, columns, strict=True))
    notes = (*asked.notes, *answer.notes)
    ordered = tuple(roles[place] for place in range(len(sample.header)))
    return Layout(ordered, classes, answer.form, answer.description, answer, asked, notes)


def _plain(classes: tuple[str, ...], form: str) -> Layout:
    """Without a sample: id and label, or id and a column per class."""
    if form == "probability":
        columns = [Column(name, "probability", number) for number, name in enumerate(classes)]
        answer = Answer("probability", description="one probability per class")
    else:
        columns = [Column("label", "answer")]
        answer = read_answer([], classes, form, "")
    return Layout((Column("id", "id"), *columns), classes, form, answer.description, answer)


def write_submission(path: Path, layout: Layout, ids: Sequence[str], blocks: Iterable[np.ndarray]) -> str:
    """Write the rows of `Layout.tables` as one CSV, atomically. Returns in words what they are, and the first two."""
    sample = None if layout.asked is None else layout.asked.sample
    delimiter, encoding = (sample.delimiter, sample.encoding) if sample else (",", "utf-8")
    try:
        "".join(layout.answer.written).encode(encoding)
    except UnicodeEncodeError:
        encoding = "utf-8"
    # A spreadsheet that divides columns by semicolons may write 0,5.
    comma = sample is not None and delimiter != "," and _has_decimal_commas(layout, sample)
    shown: list[str] = []
    rows = 0
    with replacing(path) as temporary, temporary.open("w", encoding=encoding, newline="") as file:
        if sample is None or sample.headed:
            csv.writer(file, delimiter=delimiter, lineterminator="\n").writerow(layout.header)
        for table in layout.tables(ids, blocks):
            text = table.to_csv(
                index=False, header=False, sep=delimiter, float_format="%.7g", decimal="," if comma else ".",
                lineterminator="\n",
            )  # fmt: skip
            file.write(text)
            rows += len(table)
            if len(shown) < 2:
                shown += text.splitlines()[: 2 - len(shown)]
    what = layout.description.partition(":")[0] if layout.answer.written else layout.description  # `follow` lists them
    return f"{pluralize(rows, 'row')} of {what}; the first: {' and '.join(shown)}"


def _has_decimal_commas(layout: Layout, sample: SampleSubmission) -> bool:
    numbers = [place for place, column in enumerate(layout.columns) if column.holds in ("probability", "confidence")]
    return any(re.fullmatch(r"\d+,\d+", text) for place in numbers for text in sample.texts(place))
