"""Tables and arrays of predictions, as other tools write them: their ids, columns and numbers, found and checked.

Every cell of a CSV is read as text, so that the id "007" stays "007"; a Parquet file keeps its types until asked.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_float_dtype, is_integer_dtype, is_numeric_dtype

from ensemble.blend.external.scale import SLACK
from ensemble.data.classes import class_columns, listed, reader
from ensemble.data.names import refuse_address
from ensemble.data.samples import nfc, read_table
from ensemble.errors import UserError
from ensemble.files.arrays import require_arrays
from ensemble.files.limits import require_parquet

ARRAYS = ("values", "logits", "probs", "probabilities", "oof", "test", "predictions")  # preferred names in an npz
NO_CLASS = ("label", "target", "y", "y_true", "fold", "group", "index", "unnamed: 0")  # never taken by their order
PICKLED = "holds Python objects, which ens does not unpickle; save it as text: array.astype(str)"


# ---- tables --------------------------------------------------------------------------------------------------------


def read_columns(path: Path) -> pd.DataFrame:
    """A CSV with every cell as text, or a Parquet file with its types, its row names put first.

    Row names 0, 1, ... are left out, and so are numbers that a selection left behind (unnamed, beside a column of ids).
    Raises UserError if it is unreadable, has no rows, or has a column twice.
    """
    refuse_address(path)
    table = _read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else read_table(path)
    table = table.rename(columns=lambda name: nfc(str(name).strip()))
    _refuse_repeats(table.columns, f"{path}: column")
    return table


def _read_parquet(path: Path) -> pd.DataFrame:
    require_parquet(path)
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file or folder") from None
    except Exception as error:  # pyarrow raises whatever a broken file leads it to
        raise UserError(f"{path}: not a readable Parquet file ({_first_line(error)})") from None
    if table.empty:
        raise UserError(f"{path}: has no rows")
    index, first = table.index, table.iloc[:, 0]
    counted = index.equals(pd.RangeIndex(len(table)))
    left_over = index.name is None and is_integer_dtype(index) and not is_float_dtype(first) and first.is_unique
    return table.reset_index(drop=counted or left_over or index.name in table.columns)


def find_id_column(table: pd.DataFrame) -> str:
    """The column "id", else the first."""
    return "id" if "id" in table.columns else str(table.columns[0])


def checked_ids(texts: Iterable[str], path: Path) -> np.ndarray:
    """Ids str (N,) in composed Unicode. Raises UserError if there are none, if one is empty or is there twice."""
    ids = [text if text.isascii() else nfc(text) for text in texts]
    if not ids:
        raise UserError(f"{path}: has no rows")
    if "" in ids:
        raise UserError(f"{path}: the id of row {ids.index('') + 1} is empty")
    _refuse_repeats(ids, f"{path}: id")
    return np.array(ids, dtype=np.str_)


def cell_texts(column: pd.Series) -> np.ndarray:
    """Cells as str objects (N,), "" where there is nothing."""
    cells = column.to_numpy(dtype=object, copy=True)
    cells[column.isna().to_numpy()] = ""
    return np.array([str(cell) for cell in cells], dtype=object)


def cell_numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Cells as float64 (N,), NaN where there is no number; and bool (N,), True where there is other text instead."""
    if is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan), np.zeros(len(column), dtype=np.bool_)
    texts = cell_texts(column)
    try:
        return texts.astype(np.float64), np.zeros(len(column), dtype=np.bool_)
    except ValueError:
        numbers = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(np.float64)
        none = np.flatnonzero(np.isnan(numbers))
        other = np.zeros(len(column), dtype=np.bool_)
        other[none] = [text.strip().lower() not in ("", "nan") for text in texts[none]]
        return numbers, other


def table_predictions(
    path: Path, classes: tuple[str, ...], warn: Callable[[str], None], total: float = 1.0
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Ids str (N,), values float64 (N, C), NaN for an empty cell, and the C columns that they were read from. total:
    what the two values of a row sum to where only one is given."""
    table = read_columns(path)
    ids_in = find_id_column(table)
    if ids_in in classes:
        raise UserError(f"{path}: no ids: its first column is the class {ids_in!r}; write them in a column 'id'")
    ids = checked_ids(cell_texts(table[ids_in]), path)
    others = [str(name) for name in table.columns if name != ids_in]
    places = class_columns(classes, others, path)
    if places is not None:
        columns = [others[place] for place in places]
    else:
        columns = [name for name in others if name.lower() not in NO_CLASS and _is_numeric(table[name])]
        if len(columns) == 1 and len(classes) == 2:
            label, values = _both_from_one(_column(table, columns[0], ids, path), columns[0], classes, ids, path, total)
            warn(f"its one column, {columns[0]!r}, was taken for the probability of {label!r}")
            return ids, values, columns * 2
        if len(columns) != len(classes):
            raise UserError(
                f"{path}: want one column per class, named after it ({listed(classes)}); beside the ids in column "
                f"{ids_in!r} it has: {listed(others) or 'nothing'}"
            )
        pairs = listed(f"{name!r} for {label!r}" for name, label in zip(columns, classes, strict=True))
        warn(f"its columns are not named after the classes and were taken in their order: {pairs}")
    return ids, np.stack([_column(table, name, ids, path) for name in columns], axis=1), columns


def _is_numeric(column: pd.Series) -> bool:
    numbers, other = cell_numbers(column)
    return not is_bool_dtype(column) and not other.any() and not np.isnan(numbers).all()


def _column(table: pd.DataFrame, name: str, ids: np.ndarray, path: Path) -> np.ndarray:
    numbers, other = cell_numbers(table[name])
    if other.any():
        row = int(other.argmax())
        raise UserError(f"{path}: id {str(ids[row])!r}, column {name!r}: {table[name].iloc[row]!r} is not a number")
    return numbers


def _both_from_one(
    p: np.ndarray, name: str, classes: tuple[str, ...], ids: np.ndarray, path: Path, total: float
) -> tuple[str, np.ndarray]:
    """The class whose probability p (N,) is, the one in the column's name or else the second, and float64 (N, 2)."""
    words = (name, *re.split(r"[\W_]+|(?<=\D)(?=\d)", name))
    named = [label for label in classes if label in words]
    label = named[0] if len(named) == 1 else classes[1]
    outside = (p < -SLACK) | (p > total + SLACK)
    if outside.any():
        row = int(outside.argmax())
        raise UserError(
            f"{path}: id {str(ids[row])!r}, column {name!r}: {p[row]:g} is not in [0, {total:g}]; a column by itself "
            f"must hold the probability of {label!r}"
        )
    return label, np.stack([p, total - p] if label == classes[0] else [total - p, p], axis=1)


# ---- arrays --------------------------------------------------------------------------------------------------------


def array_predictions(path: Path, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Ids str (N,) and values float32 or float64 (N, C) of an npz or npy, columns in the order of `classes`.

    Raises UserError, with both shapes where they don't fit.
    """
    arrays = _load(path)
    if "" in arrays:
        values, names, order = arrays[""], _ids_beside(path), None
    else:
        ids = next((arrays[key] for key in ("ids", "id") if key in arrays), None)
        if ids is None:
            raise UserError(f"{path}: no array 'ids'; it has: {listed(arrays)}")
        values, names = arrays[_only_values(arrays, path)], _texts(ids, path, "ids")
        order = _texts(arrays["classes"], path, "classes") if "classes" in arrays else None
    if values.shape != (len(names), len(classes)) or values.dtype.kind != "f":
        raise UserError(
            f"{path}: holds {values.dtype} {values.shape}, want floats {(len(names), len(classes))} for its "
            f"{len(names)} ids and the {len(classes)} classes"
        )
    if order is not None:
        known = reader(classes)
        numbers = [known(label) for label in order]
        if sorted(-1 if number is None else number for number in numbers) != list(range(len(classes))):
            raise UserError(f"{path}: its classes are {listed(order)}; want {listed(classes)}")
        values = values[:, [numbers.index(number) for number in range(len(classes))]]
    dtype = np.float32 if values.dtype.itemsize <= 4 else np.float64
    return checked_ids(names, path), values.astype(dtype, copy=False)


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz by name, or that of an npy by the name ""; arrays of Python objects are left aside."""
    try:
        with path.open("rb") as file:
            require_arrays(path, file)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            read = {name: _unless_objects(loaded, name, path) for name in loaded.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UserError:
        raise
    except Exception as error:  # zipfile and NumPy raise whatever a broken file leads them to
        if "Object arrays" in str(error):
            raise UserError(f"{path}: {PICKLED}") from None
        raise UserError(f"{path}: not a whole npy or npz file ({_first_line(error)})") from None
    return {name: array for name, array in read.items() if array is not None}


def _unless_objects(loaded: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray | None:
    try:
        return loaded[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        if name in ("ids", "id", "classes"):
            raise UserError(f"{path}: {name} {PICKLED}") from None
        return None


def _only_values(arrays: dict[str, np.ndarray], path: Path) -> str:
    """The name of the one array that can hold the values."""
    fit = [name for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind == "f"]
    preferred = [name for name in fit if name in ARRAYS]
    if len(fit) == 1 or len(preferred) == 1:
        return fit[0] if len(fit) == 1 else preferred[0]
    held = listed(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
    raise UserError(f"{path}: want one 2-D array of floats, has {len(fit)} ({held}); keep one, called 'values'")


def _ids_beside(path: Path) -> list[str]:
    beside = [path.with_name(path.stem + ending) for ending in (".ids.txt", "_ids.txt", ".ids.npy", "_ids.npy")]
    source = next((file for file in beside if file.is_file()), None)
    if source is None:
        raise UserError(
            f"{path}: holds no ids, and there is no {beside[0].name} beside it; write one id a line there, in the "
            f"order of its rows, or: np.save({beside[2].name!r}, np.array(ids, dtype=str))"
        )
    if source.suffix == ".npy":
        return _texts(_load(source).get("", np.empty(())), source, "ids")
    try:
        lines = source.read_text(encoding="utf-8-sig").split("\n")
    except ValueError as error:
        raise UserError(f"{source}: not UTF-8 text ({_first_line(error)})") from None
    return lines[:-1] if lines[-1] == "" else lines


def _texts(array: np.ndarray, path: Path, name: str) -> list[str]:
    if array.ndim != 1:
        raise UserError(f"{path}: {name} are {array.dtype} {array.shape}, want one dimension")
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    return [str(text) for text in array.tolist()]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _refuse_repeats(values: Iterable[str], what: str) -> None:
    index = pd.Index(list(values), dtype=object)
    repeated = index[index.duplicated()]
    if len(repeated):
        raise UserError(f"{what} {str(repeated[0])!r} is there twice")
