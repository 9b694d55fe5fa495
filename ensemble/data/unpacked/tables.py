"""Tables that hold images as bytes: Parquet and Arrow files, as Hugging Face's `datasets` writes them above all.

An image is a struct of its bytes and its path there, and the names of a ClassLabel stand in the schema's metadata.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ensemble.data.names import nfc
from ensemble.data.pixels.formats import signed
from ensemble.data.pixels.open_image import open_image
from ensemble.data.table.column_names import ID_NAMES, PATH_NAMES, rank
from ensemble.data.unpacked.made_table import made_table
from ensemble.data.unpacked.member import TABLE_NAME, Member, Packed, is_picture, some, unpacking
from ensemble.errors import UserError
from ensemble.plural import pluralize

PARQUET, ARROW = (".parquet", ".pq"), (".arrow",)
AT_ONCE = 64  # images in memory
ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "BMP": ".bmp", "WEBP": ".webp", "TIFF": ".tif"}


@dataclass(frozen=True)
class _Columns:
    """Of a table of images.

    image: the column of images.
    in_struct: whether that holds structs of bytes and path, and not the bytes alone.
    others: the columns of text and numbers.
    left_out: all other columns.
    class_names: of those that hold a class's number, the names.
    """

    image: str
    in_struct: bool
    others: tuple[str, ...]
    left_out: tuple[str, ...]
    class_names: dict[str, list[str]]


def holds_images(file: Path) -> bool:
    """Whether a Parquet or Arrow file holds images as bytes. False for one that can't be read: reading says why."""
    try:
        return bool(_image_columns(file))
    except Exception:  # pyarrow raises whatever a broken file leads it to
        return False


def require_readable(file: Path) -> bool:
    """As `holds_images`, but raises UserError for a file that can't be read."""
    with unpacking(file):
        return bool(_image_columns(file))


def read_tables(source: Path, splits: Mapping[str, Sequence[Path]], left_out: Sequence[str] = ()) -> Packed:
    """What tables of images hold.

    source: the file or folder that the user named.
    splits: the tables of each folder of the copy; "" is the copy itself.
    left_out: the names of tables beside them that hold no images.

    Raises UserError that names the file, the column or the row.
    """
    count, nbytes, notes = 0, 0, list[str]()
    if left_out:
        notes.append(f"{source.name}: {pluralize(len(left_out), 'table')} without images left out ({some(left_out)})")
    read = {}
    for name, files in splits.items():
        with unpacking(files[0]):
            columns = _columns(files[0])
        for file in files:
            with unpacking(file):
                rows, size = _measure(file)
                if _columns(file) != columns:
                    raise UserError(f"{file}: has other columns or classes than {files[0]}; make them alike")
            count, nbytes = count + rows, nbytes + size
        if columns.left_out:
            others = f"columns that are neither text nor numbers left out ({some(columns.left_out)})"
            notes.append(f"{name or source.name}: {others}")
        read[name] = columns, files
    tables = tuple(f"{name}/{TABLE_NAME}" if name else TABLE_NAME for name in splits)
    return Packed(count + len(tables), nbytes, partial(_members, read), tables, tuple(notes))


def _members(read: Mapping[str, tuple[_Columns, Sequence[Path]]]) -> Iterator[Member]:
    for folder, (columns, files) in read.items():
        below = f"{folder}/" if folder else ""
        paths, values = _rows(columns, files)
        names = _names(paths, values)
        row = 0
        for file in files:
            start = row
            for batch in _batches(file, [columns.image]):
                for image in batch.column(0).to_pylist():
                    data = image["bytes"] if columns.in_struct and image is not None else image
                    if not data:
                        path = f" (of path {paths[row]!r})" if paths[row] else ""
                        raise UserError(
                            f"{file}: row {row - start + 1} has no bytes of an image{path}; write the images into it"
                        )
                    if names[row] is None:
                        names[row] = f"{row:0{max(6, len(str(len(names))))}}{_ending(data)}"
                    yield Member(f"{below}{names[row]}", data)
                    row += 1
        yield Member(below + TABLE_NAME, made_table([str(name) for name in names], values))


def _rows(columns: _Columns, files: Sequence[Path]) -> tuple[list[str | None], dict[str, list[Any]]]:
    """What the image column calls each of the files' images, and the other columns' values."""
    from pyarrow.compute import struct_field

    paths: list[str | None] = []
    values: dict[str, list[Any]] = {name: [] for name in columns.others}
    named = [f"{columns.image}.path"] if columns.in_struct else []
    for file in files:
        for batch in _batches(file, [*named, *columns.others]):
            found = dict(zip(batch.schema.names, batch.columns, strict=True))
            if columns.image in found:
                paths += struct_field(found[columns.image], "path").to_pylist()
            else:
                paths += [None] * len(batch)
            for name in columns.others:
                cells = found[name].to_pylist()
                if name in columns.class_names:
                    cells = [_class(cell, columns.class_names[name], f"{file}: column {name!r}") for cell in cells]
                values[name] += cells
    return paths, values


def _class(number: Any, names: Sequence[str], where: str) -> str:
    """-1 is how a test set says that it has no labels."""
    if number is None or number == -1:
        return ""
    if not isinstance(number, int) or not 0 <= number < len(names):
        raise UserError(f"{where} holds {number!r}, and there are {len(names)} classes in its metadata")
    return names[number]


def _names(paths: Sequence[str | None], values: Mapping[str, Sequence[Any]]) -> list[str | None]:
    """What each image is called: as the image column, or else a column of names or ids, calls them; None where neither
    does, for its row."""
    written = [_within(path) for path in paths]
    last = [None if name is None else name.rpartition("/")[2] for name in written]
    known = PATH_NAMES + ID_NAMES
    columns = sorted((name for name in values if rank(name, known) < len(known)), key=lambda name: rank(name, known))
    for names in (written, last, *([_within(str(cell)) for cell in values[name]] for name in columns)):
        if None not in names and len({nfc(str(name)) for name in names}) == len(names):
            return list(names)
    return [None] * len(paths)


def _within(path: str | None) -> str | None:
    """A path that stays in the copy; the last part of one that doesn't ("/data/1.jpg", "zip://1.jpg::https://...")."""
    parts = (path or "").partition("::")[0].replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or ":" in parts[0]:
        parts = parts[-1:]
    kept = "/".join(part for part in parts if part not in ("", "."))
    return kept if kept and "\0" not in kept and is_picture(kept) else None


def _ending(data: bytes) -> str:
    try:
        with open_image(io.BytesIO(data), signed()) as image:
            return ENDINGS.get(image.format or "", "")
    except Exception:  # Pillow's plugins raise whatever broken bytes lead them to
        return ""


def _columns(file: Path) -> _Columns:
    """Raises UserError for several columns of images."""
    import pyarrow as pa

    schema, found = _schema(file), _image_columns(file)
    if not found:
        raise UserError(f"{file}: no column holds images; it has: {', '.join(schema.names)}")
    named = [name for name in found if rank(name, PATH_NAMES) < len(PATH_NAMES)]
    if len(found) > 1 and len(named) != 1:
        raise UserError(f"{file}: several columns hold images ({some(found)}); drop all but one")
    image = named[0] if named else found[0]
    others, left_out = list[str](), list[str]()
    for one in schema:
        nested = pa.types.is_nested(one.type) or pa.types.is_binary(one.type) or pa.types.is_large_binary(one.type)
        if one.name != image:
            (left_out if nested or isinstance(one.type, pa.BaseExtensionType) else others).append(one.name)
    features = _features(file, schema)
    names = {name: classes for name in others if (classes := _class_names(features.get(name))) is not None}
    return _Columns(image, pa.types.is_struct(schema.field(image).type), tuple(others), tuple(left_out), names)


def _class_names(feature: object) -> list[str] | None:
    """Of a ClassLabel; None for another kind of column."""
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _features(file: Path, schema: Any) -> dict[str, Any]:
    """What `datasets` says of the columns, in the schema or beside the file."""
    with suppress(KeyError, TypeError, ValueError):
        return dict(json.loads(schema.metadata[b"huggingface"])["info"]["features"])
    with suppress(OSError, KeyError, TypeError, ValueError):
        return dict(json.loads(file.with_name("dataset_info.json").read_text(encoding="utf-8"))["features"])
    return {}


def _image_columns(file: Path) -> list[str]:
    import pyarrow as pa

    found, bare = [], []
    for one in _schema(file):
        if pa.types.is_struct(one.type):
            if {"bytes", "path"} <= {inner.name for inner in one.type}:
                found.append(one.name)
        elif pa.types.is_binary(one.type) or pa.types.is_large_binary(one.type):
            bare.append(one.name)
    return found or [name for name in bare if _begins_with_picture(file, name)]


def _begins_with_picture(file: Path, column: str) -> bool:
    for batch in _batches(file, [column]):
        return len(batch) > 0 and bool(_ending(batch.column(0)[0].as_py() or b""))
    return False


def _schema(file: Path) -> Any:
    if file.suffix.lower() in PARQUET:
        from pyarrow.parquet import read_schema

        return read_schema(file)
    return _open_arrow(file).schema


def _measure(file: Path) -> tuple[int, int]:
    """Rows, and bytes unpacked."""
    if file.suffix.lower() in PARQUET:
        from pyarrow.parquet import read_metadata

        about = read_metadata(file)
        groups = range(about.num_row_groups)
        return about.num_rows, sum(about.row_group(group).total_byte_size for group in groups)
    return sum(len(batch) for batch in _open_arrow(file)), file.stat().st_size


def _batches(file: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Some rows at a time of these columns; "image.path" is a part of one."""
    if file.suffix.lower() in PARQUET:
        from pyarrow.parquet import ParquetFile

        with ParquetFile(file) as opened:
            yield from opened.iter_batches(AT_ONCE, columns=list(columns))
        return
    top = [name.removesuffix(".path") for name in columns]
    for batch in _open_arrow(file):
        batch.validate(full=True)  # places in a damaged file may lie outside of it
        for start in range(0, len(batch), AT_ONCE):
            yield batch.slice(start, AT_ONCE).select(top)


def _open_arrow(file: Path) -> Any:
    """The batches of an Arrow file, a stream as `datasets` writes it or a file with a footer."""
    import pyarrow as pa

    source = pa.memory_map(str(file))
    if bytes(source.read(6)) == b"ARROW1":
        opened = pa.ipc.open_file(source)
        return _OpenedFile(opened.schema, opened)
    source.seek(0)
    return pa.ipc.open_stream(source)


@dataclass(frozen=True)
class _OpenedFile:
    """An Arrow file with a footer, as a stream is read: its schema and, one by one, its batches."""

    schema: Any
    reader: Any

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.reader.num_record_batches):
            yield self.reader.get_batch(number)
