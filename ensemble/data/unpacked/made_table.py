"""The table that a copy gets where the packed files are rows: the images' paths, and a column of each property."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

PATH = "path"  # of the images; what the rows call so themselves is renamed
RENAMED = "original_path"


def made_table(paths: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> bytes:
    """The bytes of a Parquet file whose cells are all text.

    paths: of N images, relative to the table.
    columns: name -> N values.
    """
    import pyarrow as pa
    from pyarrow.parquet import write_table

    texts = {PATH: list(paths)}
    for name, values in columns.items():
        texts[RENAMED if name == PATH else name] = [_text(value) for value in values]
    stream = pa.BufferOutputStream()
    write_table(pa.table({name: pa.array(cells, pa.string()) for name, cells in texts.items()}), stream)
    return bytes(stream.getvalue())


def _text(value: Any) -> str:
    """As a CSV would hold it."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)
