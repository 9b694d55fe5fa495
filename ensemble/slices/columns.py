"""Columns of the user's table, joined to the run's rows by id. Never imports torch."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.config import Config
from ensemble.data.names import match_names, nfc
from ensemble.data.samples import image_names, read_image_table
from ensemble.data.table.read import number
from ensemble.data.unpacked.local import as_local
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.plural import pluralize
from ensemble.slices.rules import Candidate, of_numbers, of_values

MOST_NAMES = 0.5  # of the rows: a column of more different texts names rows, not kinds of them


@dataclass(frozen=True)
class Columns:
    """Columns of a table, for N rows.

    values: name -> str (N,), "" where the row's cell is empty or the row is not in the table.
    notes: lines on what was left out.
    """

    values: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()


def read_columns(source: Path, ids: np.ndarray, wanted: Sequence[str] | None, id_column: str | None = None) -> Columns:
    """The columns of a table, for the run's rows.

    source: the table.
    ids: str (N,), of the run's rows.
    wanted: the names of the columns; None for all but the one that names the rows.
    id_column: the column that names the rows; None: `id`, `path` or the first one.

    Raises UserError for a column that is not there, with the nearest name, an id that is there twice, and a table of
    other rows.
    """
    table, notes = read_image_table(source, source.parent, image_names)
    key = next((name for name in (id_column, "id", "path") if name in table.columns), str(table.columns[0]))
    for name in wanted or []:
        if name not in table.columns:
            near = difflib.get_close_matches(name, list(table.columns), n=3, cutoff=0.0)
            raise UserError(f"{source}: no column {name!r}; nearest: {', '.join(near)}")
    written = [nfc(text.strip()) for text in table[key]]
    rows = match_names(written, ids.tolist()).rows
    joined = rows[rows >= 0]
    if not len(joined):
        raise UserError(
            f"{source}: column {key!r} names none of the run's images; it has {written[0]!r}, the run {str(ids[0])!r}"
        )
    places, counts = np.unique(joined, return_counts=True)
    if len(places) < len(joined):
        raise UserError(f"{source}: {key} {str(ids[places[counts > 1][0]])!r} is there twice; every row needs its own")
    if len(joined) < len(ids):
        lacking = pluralize(len(ids) - len(joined), "image has", "images have")
        notes = [*notes, f"{lacking} no row in {source.name}, and {'lie' if len(ids) - len(joined) > 1 else 'lies'} in "
                 "no slice of its columns"]  # fmt: skip
    names = wanted or [str(name) for name in table.columns if name != key]
    return Columns({name: _for_rows(table[name], rows, len(ids)) for name in names}, tuple(notes))


def own_columns(config: Config, ids: np.ndarray, wanted: Sequence[str] | None, events: Events) -> Columns:
    """The columns of the experiment's own table that training has no use for; none of a folder of class folders, or
    where the table is gone. Raises UserError as `read_columns`, and for columns that are wanted of a folder."""
    data = config.data
    try:
        train = as_local(data.train, events, with_images=data.images is None)
    except UserError:
        if wanted:
            raise
        return Columns({})
    if train.is_dir() and wanted:
        raise UserError(
            f"--by {','.join(wanted)}: {data.train} is a folder, which has no columns; name a table: --columns"
        )
    if not train.is_file() and not wanted:
        return Columns({})
    found = read_columns(train, ids, wanted, data.id or data.path)
    labels = [data.label] if isinstance(data.label, str) else list(data.label)
    used = {*labels, data.path, data.id, data.group, data.weight, config.folds.fold}
    kept = {name: values for name, values in found.values.items() if wanted or name not in used}
    return Columns(kept, found.notes if kept else ())


def column_slices(columns: Columns, min_size: int) -> tuple[list[Candidate], list[str]]:
    """The candidate slices of the columns, and a line for each column that has none."""
    slices: list[Candidate] = []
    notes = []
    for name, texts in columns.values.items():
        found = _slices(name, texts, min_size)
        slices += found
        if not found:
            kinds = len(np.unique(texts[texts != ""]))
            notes.append(
                f"column {name!r} is left out: of its {pluralize(kinds, 'value')} none is that of {min_size} images, "
                "with as many of others"
            )
    return slices, notes


def column_values(texts: np.ndarray) -> np.ndarray:
    """The cells str (N,) of a column as float (N,), if all that are not empty are numbers; else as they are."""
    numbers = np.array([number(text) for text in texts.tolist()])
    filled = texts != ""
    return numbers if filled.any() and np.isfinite(numbers[filled]).all() else texts


def _slices(name: str, texts: np.ndarray, min_size: int) -> list[Candidate]:
    values = column_values(texts)
    if values.dtype.kind == "f":
        return of_numbers("column", name, values, "{:g}", min_size)
    if len(np.unique(texts)) > MOST_NAMES * len(texts):
        return []
    return of_values("column", name, values, min_size)


def _for_rows(cells: "pd.Series[str]", rows: np.ndarray, count: int) -> np.ndarray:
    texts = [""] * count
    for row, text in zip(rows.tolist(), cells.tolist(), strict=True):
        if row >= 0:
            texts[row] = nfc(str(text).strip())
    return np.array(texts, dtype=np.str_)
