"""Predictions in the sample submission's ids, order and header."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ensemble import rundir
from ensemble.data.classes import is_number, listed
from ensemble.data.table import nfc, read_table
from ensemble.errors import UserError

FORMS = ("label", "index", "probability")


@dataclass(frozen=True)
class SampleSubmission:
    """What a submission has to look like. table: the sample as text; its first column holds the ids."""

    path: Path
    table: pd.DataFrame

    @property
    def ids(self) -> list[str]:
        return [str(text) for text in self.table.iloc[:, 0]]


def read_sample(path: Path) -> SampleSubmission:
    """Read a sample submission. Raises UserError if it is unreadable, has one column only, or repeats an id."""
    table = read_table(path)
    if table.shape[1] < 2:
        raise UserError(f"{path}: has one column, {table.columns[0]!r}; a submission needs an id and a label column")
    repeated = table.iloc[:, 0][table.iloc[:, 0].duplicated()]
    if len(repeated):
        raise UserError(f"{path}: id {repeated.iloc[0]!r} is there twice")
    return SampleSubmission(path, table)


def match(sample: SampleSubmission, image_ids: Sequence[str]) -> np.ndarray:
    """For each id of the sample the row of its image, int64 (N,).

    image_ids: relative paths. A sample may name images by that path, by file name, or by file name without ending;
    the first form that fits all its ids is taken. Raises UserError that names the first id without an image, or the
    first that means two.
    """
    wanted = [nfc(text) for text in sample.ids]
    fewest: list[str] = wanted
    for form, names in id_forms(image_ids).items():
        rows = {name: row for row, name in enumerate(names)}
        missing = [name for name in wanted if name not in rows]
        if not missing:
            counts = Counter(names)
            repeated = [name for name in wanted if counts[name] > 1]
            if repeated:
                raise UserError(f"{sample.path}: id {repeated[0]!r} is the {form} of two images; use their paths")
            return np.array([rows[name] for name in wanted], dtype=np.int64)
        fewest = min(fewest, missing, key=len)
    raise UserError(
        f"{sample.path}: no image for id {fewest[0]!r} ({len(fewest)} of {len(wanted)} ids have none; "
        f"the images are named like {image_ids[0]!r})"
    )


def id_forms(image_ids: Sequence[str]) -> dict[str, list[str]]:
    """The ways in which a sample may write the ids of images (relative paths), the most exact first."""
    return {
        "path": list(image_ids),
        "file name": [PurePosixPath(name).name for name in image_ids],
        "file name without ending": [PurePosixPath(name).stem for name in image_ids],
    }


@dataclass(frozen=True)
class Layout:
    """How a submission's rows are written.

    header: its columns, the ids' first. classes: C names. form: "label", "index" or "probability". columns: the class,
    by its number, whose probability each column beside the ids holds; none for the other forms. said: this in words.
    """

    header: tuple[str, ...]
    classes: tuple[str, ...]
    form: str
    columns: tuple[int, ...]
    said: str

    def rows(self, ids: Sequence[str], probabilities: np.ndarray) -> pd.DataFrame:
        """The rows of these ids. probabilities: float (n, C); a row of NaN has no prediction: its cells are empty."""
        if len(ids) != len(probabilities):
            raise ValueError(f"{len(ids)} ids for {len(probabilities)} rows of probabilities")
        cells: list[Sequence[object] | np.ndarray] = [probabilities[:, column] for column in self.columns]
        if self.form != "probability":
            known = ~np.isnan(probabilities).any(axis=1)
            written = [str(number) if self.form == "index" else name for number, name in enumerate(self.classes)]
            best = np.where(known, np.where(known[:, None], probabilities, 0).argmax(axis=1), len(written))
            cells = [np.array([*written, ""], dtype=object)[best]]
        return pd.DataFrame(dict(zip(self.header, [list(ids), *cells], strict=True)))


def lay_out(classes: tuple[str, ...], sample: SampleSubmission | None = None, form: str | None = None) -> Layout:
    """How the submission of a classifier of these classes is written.

    form: "label" (class names), "index" (their numbers), "probability" (one column a class, or with a single column
    beside the id the second of two classes), or None to follow the sample. Raises UserError if the sample's columns
    can't hold that form.
    """
    if sample is None:
        form = form or "label"
        header = ["id", *classes] if form == "probability" else ["id", "label"]
    else:
        form = form or form_of(sample, classes)
        header = list(sample.table.columns)
    others = header[1:]
    columns: list[int] = []
    if form == "probability":
        if len(others) == 1 and len(classes) == 2:
            columns = [1]
            said = f"the probability of {classes[1]!r}"
        elif {nfc(name) for name in others} == set(classes) and len(others) == len(classes):
            columns = [classes.index(nfc(name)) for name in others]
            said = "one probability a class"
        else:
            raise UserError(f"probabilities need one column a class ({', '.join(classes)}); the header has: {others}")
    elif len(others) != 1:
        raise UserError(f"a {form} needs one column beside the id; the header has: {', '.join(others)}")
    elif form == "index":
        said = f"class numbers: {listed(f'{index} = {name}' for index, name in enumerate(classes))}"
    else:
        said = f"class names as in the training labels: {listed(classes)}"
    return Layout(tuple(header), classes, form, tuple(columns), said)


def arrange(
    ids: Sequence[str],
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    sample: SampleSubmission | None = None,
    form: str | None = None,
) -> tuple[pd.DataFrame, str]:
    """The submission as a table, and one line that says in which form it is.

    ids: of the N rows, in the order of `probabilities` (N, C); with a sample these must be its own ids in its own
    order. form: as in `lay_out`. Raises UserError as that does, ValueError for other ids than the sample's.
    """
    if sample is not None and list(ids) != sample.ids:
        raise ValueError(f"{len(ids)} ids are not the {len(sample.ids)} of {sample.path}, in its order")
    layout = lay_out(classes, sample, form)
    table = layout.rows(ids, probabilities)
    return table, f"{len(table)} rows of {layout.said}"


def write_submission(path: Path, tables: pd.DataFrame | Iterable[pd.DataFrame]) -> None:
    """Write what `arrange` made, or the tables that `Layout.rows` made of all rows in order, as one CSV, atomically."""
    parts = [tables] if isinstance(tables, pd.DataFrame) else tables
    with rundir.replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for number, part in enumerate(parts):
            file.write(part.to_csv(index=False, header=number == 0, float_format="%.7g"))


def form_of(sample: SampleSubmission, classes: tuple[str, ...]) -> str:
    """What the sample's own cells look like."""
    others = sample.table.iloc[:, 1:]
    if others.shape[1] > 1:
        return "probability"
    cells = {nfc(text.strip()) for text in others.iloc[:, 0]}
    if cells <= set(classes):
        return "label"
    if all(map(is_number, classes)):
        # Cells full of 0 are as likely to stand for any number as for the first class: they say nothing of places.
        whole = all(is_number(text) and float(text).is_integer() for text in cells)
        shares = len(classes) == 2 and not whole and all(map(_is_share, cells))
        return "probability" if shares else "label"
    if all(text.isascii() and text.isdigit() and int(text) < len(classes) for text in cells):
        return "index"
    if len(classes) == 2 and all(_is_share(text) for text in cells):
        return "probability"
    return "label"


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False
