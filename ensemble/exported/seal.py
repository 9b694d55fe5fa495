"""The digest and the metadata of an ONNX file, read and written without the onnx package.

A serialised ONNX model is a protobuf message: fields one after the other, of which `metadata_props` (number 14) is the
last that ens writes. Appending one more entry to the bytes of a message is how protobuf itself would add it. So the
digest is appended last, and its 16 hex digits are the last bytes of the file: XXH3-64 of all bytes, these digits taken
as zeros. No byte can change, and nothing can be cut off or added, without being noticed.
"""

from pathlib import Path
from typing import IO

import xxhash

from ensemble.errors import Damaged, UserError

DIGEST_KEY = "ens-digest"
LIMIT = 2**31 - 1  # bytes of a protobuf message
_DIGITS = 16
_METADATA = 14  # the field's number in ModelProto
_CHUNK = 2**20
_AGAIN = "copy it again, or write it again with: ens export"


def with_metadata(content: bytes, metadata: dict[str, str]) -> bytes:
    """The bytes of a serialised model with more entries of metadata, in their order."""
    return content + b"".join(_entry(key, value) for key, value in metadata.items())


def sealed(content: bytes) -> bytes:
    """The bytes of a serialised model with its digest as the last entry of the metadata."""
    blank = content + _entry(DIGEST_KEY, "0" * _DIGITS)
    return blank[:-_DIGITS] + xxhash.xxh3_64(blank).hexdigest().encode()


def digest_in(content: bytes) -> str:
    """The digest in what `sealed` gave."""
    return content[-_DIGITS:].decode()


def digest_of(path: Path) -> str:
    """The digest at the end of a file that `sealed` made, as it stands there: `check` compares it."""
    with _opened(path) as file:
        file.seek(-_DIGITS, 2)
        return file.read().decode()


def check(path: Path) -> str:
    """The digest of a file that `sealed` made. Raises UserError if it is none, Damaged if its bytes have changed."""
    mark = _entry(DIGEST_KEY, "0" * _DIGITS)[:-_DIGITS]
    state = xxhash.xxh3_64()
    with _opened(path) as file:
        size = file.seek(0, 2)
        rest = size - _DIGITS
        file.seek(max(0, rest - len(mark)))
        tail = file.read()
        if tail[:-_DIGITS] != mark:
            file.seek(0)
            if _is_model(file, size):
                raise UserError(
                    f"{path}: an ONNX file without the digest of ens at its end: ens did not write it, or its end is "
                    f"lost; {_AGAIN}"
                )
            raise UserError(f"{path}: not an ONNX file; {_AGAIN}")
        file.seek(0)
        while rest > 0:
            chunk = file.read(min(_CHUNK, rest))
            state.update(chunk)
            rest -= len(chunk)
    state.update(b"0" * _DIGITS)
    if state.hexdigest().encode() != tail[-_DIGITS:]:
        raise Damaged(f"{path}: damaged: its bytes are not those that ens wrote; {_AGAIN}")
    return state.hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file; the graph is passed over. Raises UserError for a file that is none."""
    found = {}
    with _opened(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            while file.tell() < size:
                field, length = _field(file)
                end = file.tell() + length
                if end > size:
                    raise ValueError
                if field != _METADATA:
                    file.seek(end)
                    continue
                pair = {1: "", 2: ""}
                while file.tell() < end:
                    part, length = _field(file)
                    pair[part] = file.read(length).decode()
                found[pair[1]] = pair[2]
            if file.tell() != size:
                raise ValueError
        except ValueError:  # UnicodeDecodeError too
            raise UserError(f"{path}: not a whole ONNX file; {_AGAIN}") from None
    return found


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, and no cascade that ens export wrote; name a file") from None


def _is_model(file: IO[bytes], size: int) -> bool:
    """Whether the file begins as a serialised model: with its version of ONNX, a whole number below 1,000."""
    try:
        return size > 2 and file.read(1) == b"\x08" and _varint(file) < 1000
    except ValueError:
        return False


def _entry(key: str, value: str) -> bytes:
    """An entry of `metadata_props`: field 14 of the model, with its key as field 1 and its value as field 2."""
    pair = b"".join(bytes([number << 3 | 2]) + _sized(text.encode()) for number, text in ((1, key), (2, value)))
    return bytes([_METADATA << 3 | 2]) + _sized(pair)


def _sized(data: bytes) -> bytes:
    length, out = len(data), bytearray()
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*out, length]) + data


def _field(file: IO[bytes]) -> tuple[int, int]:
    """The number of the field that begins here, and how many bytes of it follow. Raises ValueError where none does."""
    tag = _varint(file)
    kind = tag & 7
    if kind == 0:
        _varint(file)
        return tag >> 3, 0
    if kind == 2:
        return tag >> 3, _varint(file)
    if kind in (1, 5):
        return tag >> 3, 8 if kind == 1 else 4
    raise ValueError


def _varint(file: IO[bytes]) -> int:
    """A whole number of 1 to 10 bytes. Raises ValueError if there is none."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError
