"""JSON that may hold anything (a damaged disk, another version, a hostile hand), held to a type before it is used.

A type is written as Python has it: a TypedDict (its other keys stay as they are), a frozen dataclass (it has no
others), list[str]. Values are not converted: "3" is no number, 3.0 no whole one and true neither. Whatever is wrong is
one UserError that names the file and the key.
"""

import dataclasses
import json
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

from annotated_types import Ge, Lt
from typing_extensions import is_typeddict

from ensemble.errors import Damaged, UserError
from ensemble.escape import shortened
from ensemble.files import sealed
from ensemble.files.damage import loss_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

Count = Annotated[int, Ge(0), Lt(2**63)]  # what fits NumPy's int64
Finite = Annotated[float, Ge(-1e100), Lt(1e100)]  # neither NaN nor infinite

T = TypeVar("T")


class Unread:
    """Marks a dataclass's field that JSON says nothing of, as Annotated[..., Unread()]: it may be of any type."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.any_schema()


def read_text(path: Path) -> str:
    """UTF-8 text, with or without the mark that Windows writes. Raises UserError that names the file."""
    return _decoded(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Raises UserError that names the file if it is missing."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file") from None


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Damaged(f"{path}: not UTF-8 text (byte {error.start} is {error.object[error.start]:#04x})") from None


def read_json(path: Path, kind: type[T] = Any, advice: str = "") -> T:  # type: ignore[assignment]
    """The file's JSON as a `kind`, an object without its checksum. advice: what to do where it is none, the end of the
    line (else what is lost with a file of this name, and how it is made again).

    Raises UserError that names the file and the key, Damaged if the file holds a checksum of other bytes.
    """
    data = read_bytes(path)
    lost, again = loss_of(path)
    advice = advice or (f"lost: {lost}; {again}" if lost else "")
    sealed.require_sound(data, path)
    return parse_json(sealed.without_checksum(_decoded(data, path)), kind, str(path), advice)


def parse_json(text: str, kind: type[T], source: str, advice: str = "") -> T:
    """As `read_json`, of a text that came from `source`."""
    end = f"; {advice}" if advice else ""
    try:
        value = json.loads(text, object_pairs_hook=_each_key_once)  # says where an error is, and what is there twice
    except RecursionError:
        raise Damaged(f"{source}: not valid JSON that ens reads (nested too deeply){end}") from None
    except ValueError as error:
        raise Damaged(f"{source}: not valid JSON ({error}){end}") from None
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        known = [field.name for field in dataclasses.fields(kind)]
        for key in value:
            if key not in known:  # of a later version perhaps, which means something by it
                raise UserError(f"{source}: has the unknown key {key!r}; known are: {', '.join(known)}{end}")
    from pydantic import ValidationError

    try:
        found: T = _adapter(kind).validate_json(text, strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        _refuse(error, source, end)
    return value if is_typeddict(kind) else found  # pydantic drops the keys that a TypedDict doesn't name


def _refuse(error: "ValidationError", source: str, end: str) -> NoReturn:
    """The first fault in words."""
    fault = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "json_invalid":  # half of a Unicode pair, or deeper than 200: json takes these
        raise Damaged(f"{source}: not valid JSON ({fault['ctx']['error']}){end}") from None
    if fault["type"] == "missing":
        raise UserError(f"{source}: has no key {key!r}{end}") from None
    value = shortened(json.dumps(fault["input"], ensure_ascii=False, default=str))
    should = fault["msg"].removeprefix("Input ").replace("dictionary", "object")
    if isinstance(fault["input"], float) and not math.isfinite(fault["input"]):
        should = "should be a finite number"
    where = f"key {key!r} " if key else ""
    raise UserError(f"{source}: {where}{should[:1].lower()}{should[1:]}, but is {value}{end}") from None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated!r} is there twice")
    return found


@cache
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
