"""Predictions in the sample submission's ids, order, header and form."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble import rundir
from ensemble.data.classes import class_columns, is_number, listed, reader
from ensemble.errors import UserError
from ensemble.tta.answers import Answer, read_answer
from ensemble.tta.sample import Asked, SampleSubmission, match, read_sample

FORMS = ("label", "index", "probability")
CONFIDENCE = re.compile(r"conf|prob|score|certain|likelihood", re.IGNORECASE)
WRITES = (
    "ens writes one column of class names or numbers (several in a cell if the sample shows them), the same beside a "
    "column named like 'confidence', one column a class that is named after it, a column for each of the likeliest "
    "classes (label1, label2, ...), or one row an image and class"
)


@dataclass(frozen=True)
class Column:
    """holds: "id", "copied" (the sample's own cells), "answer", "probability" or "confidence" (of the answer). number:
    the class of a probability, or the rank of an answer."""

    name: str
    holds: str
    number: int = 0


@dataclass(frozen=True)
class Layout:
    """How a submission's rows are written.

    columns: in order. form: "label", "index" or "probability". said: this in words. answer: what an answer's cells
    are. asked: of the sample that is followed, if there is one. notes: lines on that.
    """

    columns: tuple[Column, ...]
    classes: tuple[str, ...]
    form: str
    said: str
    answer: Answer
    asked: Asked | None = None
    notes: tuple[str, ...] = ()

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
        best = np.argsort(-np.where(known[:, None], probabilities, 0), axis=1, kind="stable")
        cells: dict[int, Sequence[object] | np.ndarray] = {}
        for place, column in enumerate(self.columns):
            if column.holds == "id" and row_class is None:
                cells[place] = ids[start:stop]
            elif column.holds in ("id", "copied"):
                assert self.asked is not None
                own = self.asked.sample.columns[place]
                cells[place] = own if row_class is not None else own[start:stop]
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
        """Cells of class names or numbers, str objects (n,). best: int64 (n, C), the likeliest first."""
        written = np.array([*self.answer.written, ""], dtype=object)
        columns = [written[np.where(known, best[:, rank + k], len(written) - 1)] for k in range(self.answer.count)]
        joined = columns[0]
        for own in columns[1:]:
            joined = np.where(known, joined + self.answer.separator + own, "")
        return np.asarray(joined)


def follow(
    sample_submission: Path | None,
    images: Sequence[str],
    classes: tuple[str, ...],
    form: str | None,
    say: Callable[[str], None],
) -> tuple[Layout, list[str], np.ndarray]:
    """How to write a submission for these images (relative paths), the ids to write, and the images' rows, int64 (N,):
    those that the sample asks for in its order, or all. Says what will be written. Raises UserError as `read_sample`,
    `match` and `lay_out` do."""
    asked = None if sample_submission is None else match(read_sample(sample_submission), images, classes)
    layout = lay_out(classes, asked, form)
    for line in (*layout.notes, f"writes {layout.said}"):
        say(line)
    if asked is None:
        return layout, list(images), np.arange(len(images))
    if len(asked.ids) < len(images):
        say(f"{len(images) - len(asked.ids)} images are not in {sample_submission} and are left out")
    return layout, asked.ids, asked.images


def lay_out(classes: tuple[str, ...], asked: Asked | None = None, form: str | None = None) -> Layout:
    """How the submission of a classifier of these classes is written.

    form: "label" (class names), "index" (their numbers), "probability" (one column a class, or with a single column
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
    answer, columns = _answers_of(asked, open_places, classes, form)
    roles |= dict(zip(open_places, columns, strict=True))
    notes = (*asked.said, *answer.notes)
    ordered = tuple(roles[place] for place in range(len(sample.header)))
    return Layout(ordered, classes, answer.form, answer.said, answer, asked, notes)


def _answers_of(
    asked: Asked, places: list[int], classes: tuple[str, ...], form: str | None
) -> tuple[Answer, list[Column]]:
    """What the columns at `places` hold. Raises UserError if that can't be told or is not the `form`."""
    sample, path = asked.sample, asked.sample.path
    headers = [sample.header[place] for place in places]
    names = [header.strip() for header in headers]
    if asked.row_image is not None:
        if len(names) != 1 or form in ("label", "index"):
            raise UserError(
                f"{path}: has one row an image and class, which takes one column of probabilities; {WRITES}"
            )
        return Answer("probability", said="one probability a row, of its image and class"), [
            Column(headers[0], "probability")
        ]

    found = class_columns(classes, names, path) or _by_place(sample, places, names, classes)
    if found is not None and len(found) == len(names) and form in (None, "probability"):
        columns = {place: Column(headers[place], "probability", number) for number, place in enumerate(found)}
        pairs = listed(f"{names[place]} = {name}" for place, name in zip(found, classes, strict=True))
        exact = all(names[place] == name for place, name in zip(found, classes, strict=True))
        said = "one probability a class" + ("" if exact else f" ({pairs})")
        return Answer("probability", said=said), [columns[place] for place in range(len(names))]

    sure = [place for place, name in enumerate(names) if CONFIDENCE.search(name)]
    if len(names) == 2 and len(sure) == 1 and form != "probability":
        other = 1 - sure[0]
        answer = read_answer(sample.texts(places[other]), classes, form, f"{path}: {names[other]!r}")
        if answer.form != "probability" and answer.count == 1:
            columns = {other: Column(headers[other], "answer"), sure[0]: Column(headers[sure[0]], "confidence")}
            what, _, which = answer.said.partition(":")
            said = f"{what} with their probabilities in {names[sure[0]]!r}:{which}"
            return replace(answer, said=said), [columns[0], columns[1]]

    if len(names) == 1:
        answer = read_answer(sample.texts(places[0]), classes, form, f"{path}: {names[0]!r}")
        shares = answer.form == "probability"
        return answer, [Column(headers[0], "probability" if shares else "answer", 1 if shares else 0)]

    if form in (None, "label") and _are_ranks(sample, places, names, classes):
        texts = list(dict.fromkeys(text for place in places for text in sample.texts(place)))
        answer = read_answer(texts, classes, form, f"{path}: {names[0]!r} to {names[-1]!r}")
        said = f"the {len(names)} likeliest {answer.said}"
        return replace(answer, said=said), [Column(header, "answer", rank) for rank, header in enumerate(headers)]
    if form in ("label", "index"):
        raise UserError(f"a {form} needs one column beside the id; the header has: {', '.join(names)}")
    raise UserError(_not_understood(sample, names, classes))


def _plain(classes: tuple[str, ...], form: str) -> Layout:
    """Without a sample: id and label, or id and a column a class."""
    if form == "probability":
        columns = [Column(name, "probability", number) for number, name in enumerate(classes)]
        answer = Answer("probability", said="one probability a class")
    else:
        columns = [Column("label", "answer")]
        answer = read_answer([], classes, form, "")
    return Layout((Column("id", "id"), *columns), classes, form, answer.said, answer)


def _by_place(
    sample: SampleSubmission, places: list[int], names: list[str], classes: tuple[str, ...]
) -> list[int] | None:
    """Columns that are numbered as the classes are, from 0 or from 1, perhaps with a common text before the number;
    None where classes are numbers themselves, or a column's cells are none."""
    if len(names) != len(classes) or any(map(is_number, classes)):
        return None
    found = [re.fullmatch(r"(.*?)0*(\d+)", name) for name in names]
    if not all(found) or len({own[1] for own in found if own}) > 1:
        return None
    numbers = [int(own[2]) for own in found if own]
    filled = all(is_number(text) for place in places for text in sample.texts(place))
    if not filled or sorted(numbers) not in (list(range(len(names))), list(range(1, len(names) + 1))):
        return None
    return [numbers.index(number) for number in sorted(numbers)]


def _are_ranks(sample: SampleSubmission, places: list[int], names: list[str], classes: tuple[str, ...]) -> bool:
    """label1, label2, ...: numbered in their order, fewer than the classes or as many, and every cell names a class."""
    found = [re.fullmatch(r"(.*?)0*(\d+)(.*)", name) for name in names]
    stems = {(own[1], own[3]) for own in found if own}
    numbers = [int(own[2]) for own in found if own]
    known = reader(classes)
    return (
        len(numbers) == len(names)
        and len(stems) == 1
        and len(names) <= len(classes)
        and numbers in (list(range(len(names))), list(range(1, len(names) + 1)))
        and all(known(text) is not None for place in places for text in sample.texts(place))
    )


def _not_understood(sample: SampleSubmission, names: list[str], classes: tuple[str, ...]) -> str:
    known = reader(classes)
    read = {known(name) for name in names}
    lacking = [name for number, name in enumerate(classes) if number not in read]
    odd = [name for name in names if known(name) is None]
    why = ""
    if len(lacking) < len(classes):
        others = (
            f"; {listed(map(repr, odd))} is no class"
            if len(odd) == 1
            else f"; no classes: {listed(odd)}"
            if odd
            else ""
        )
        why = f" (without a column: {listed(lacking)}{others})" if lacking else f" ({others[2:]})"
    return (
        f"{sample.path}: its {len(names)} answer columns are not the {len(classes)} classes: {listed(names)}{why}; "
        f"{WRITES}"
    )


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
    with rundir.replacing(path) as temporary, temporary.open("w", encoding=encoding, newline="") as file:
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
    return f"{rows} rows of {layout.said}; the first: {' and '.join(shown)}"


def _has_decimal_commas(layout: Layout, sample: SampleSubmission) -> bool:
    numbers = [place for place, column in enumerate(layout.columns) if column.holds in ("probability", "confidence")]
    return any(re.fullmatch(r"\d+,\d+", text) for place in numbers for text in sample.texts(place))
