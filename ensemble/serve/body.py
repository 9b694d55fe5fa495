"""The images in a request: its body, read in pieces under limits, and what it holds."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from ensemble.serve.options import ServeOptions

HELD = 16  # bodies of the largest size that are held at a time, all requests together
RETRY = {"Retry-After": "1"}  # seconds
MEDIA = "multipart/form-data with files, application/json with base64, or an image's bytes as image/..."
HEADERS = 4096  # bytes of the headers of one part


@dataclass
class Load:
    """What the server holds at the moment, and has done. Changed on the event loop alone.

    images: accepted and not answered
    bytes: of bodies, read and not answered
    accepted, answered: requests since the beginning
    """

    images: int = 0
    bytes: int = 0
    accepted: int = 0
    answered: int = 0


class JsonImages(BaseModel):
    """The body of a request as JSON.

    images: each file's bytes in base64, or as a data: URL of base64
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[str]


@asynccontextmanager
async def read_body(request: Request, options: ServeOptions, load: Load) -> AsyncIterator[bytes]:
    """The whole body, which counts as held within the `with`. Raises HTTPException: 413 for a body that is too large,
    408 for one that comes too slowly, 503 where too many are held already."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > options.max_bytes:
        raise HTTPException(413, _too_large(options))
    held = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal held
        async for piece in request.stream():
            held += len(piece)
            load.bytes += len(piece)
            if held > options.max_bytes:
                raise HTTPException(413, _too_large(options))
            if load.bytes > HELD * options.max_bytes:
                raise HTTPException(503, "the server holds too many requests; try again", RETRY)
            yield piece

    try:
        yield await _joined(pieces(), options.max_seconds)
    finally:
        load.bytes -= held


async def _joined(pieces: AsyncIterator[bytes], seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return b"".join([piece async for piece in pieces])
    except TimeoutError:
        text = f"the body did not arrive within {seconds:g} seconds"
        raise HTTPException(408, text, {"Connection": "close"}) from None
    except ClientDisconnect:  # nobody reads the answer
        raise HTTPException(400, "the connection ended before the body did") from None


def require_media_type(content_type: str) -> None:
    """Raise HTTPException 415 for a body of another kind than `images_in` reads."""
    kind = _kind(content_type)
    if kind not in ("multipart/form-data", "application/json") and not kind.startswith("image/"):
        raise HTTPException(415, f"{f'content type {kind!r}' if kind else 'no content type'}: send {MEDIA}")


def images_in(content_type: str, body: bytes, most: int) -> list[tuple[str, bytes]]:
    """The name and the bytes of each image in a body, at least one. Raises HTTPException: 400 for what can't be read,
    413 for more than `most`."""
    kind = _kind(content_type)
    if kind == "multipart/form-data":
        images = _in_form(content_type, body, most)
    elif kind == "application/json":
        images = _in_json(body, most)
    else:
        images = [("image 1", body)]
    if not images:
        raise HTTPException(400, "the request holds no image")
    return images


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _too_large(options: ServeOptions) -> str:
    return f"the body is larger than the {options.max_bytes:,} bytes that are accepted"


def _too_many(most: int) -> HTTPException:
    return HTTPException(413, f"the request holds more than the {most} images that are accepted at a time")


def _in_json(body: bytes, most: int) -> list[tuple[str, bytes]]:
    # One comma lies between two images, and one in a data: URL. Of more, each number or key in a body would become an
    # error of some 400 bytes.
    if body.count(b",") > 2 * most:
        text = f"more commas than in {most} images of base64, which are accepted at a time"
        raise HTTPException(413, f'{text}; want {{"images": ["<base64>", ...]}}')
    try:
        texts = JsonImages.model_validate_json(body).images
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, found["loc"])) or "the body"
        raise HTTPException(400, f'{where}: {found["msg"]}; want {{"images": ["<base64>", ...]}}') from None
    if len(texts) > most:
        raise _too_many(most)
    images = []
    for number, text in enumerate(texts):
        start, _, rest = text.partition(";base64,")
        try:
            data = base64.b64decode(rest if start.startswith("data:") else text, validate=True)
        except (binascii.Error, ValueError):
            raise HTTPException(400, f"images.{number}: not base64") from None
        images.append((f"image {number + 1}", data))
    return images


def _in_form(content_type: str, body: bytes, most: int) -> list[tuple[str, bytes]]:
    """The files of a form. A field that is no file is an error: it would be left out without a word."""
    images: list[tuple[str, bytes]] = []
    header, headers, data = bytearray(), bytearray(), bytearray()
    name = ""
    is_whole = False

    def begin() -> None:
        headers.clear()
        data.clear()

    def end_of_headers() -> None:
        nonlocal name
        name = _file_name(bytes(headers))
        if len(images) == most:
            raise _too_many(most)

    def end_of_header() -> None:
        headers.extend(header + b"\n")
        header.clear()

    def end_of_part() -> None:
        images.append((name or f"image {len(images) + 1}", bytes(data)))

    def end() -> None:
        nonlocal is_whole
        is_whole = True

    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise HTTPException(400, "multipart/form-data without a boundary")
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_field": lambda piece, start, stop: header.extend(piece[start:stop]),
                "on_header_value": lambda piece, start, stop: header.extend(b":" + piece[start:stop]),
                "on_header_end": end_of_header,
                "on_headers_finished": end_of_headers,
                "on_part_data": lambda piece, start, stop: data.extend(piece[start:stop]),
                "on_part_end": end_of_part,
                "on_end": end,
            },
            max_header_size=HEADERS,
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise HTTPException(400, f"not a readable form ({error})") from None
    if not is_whole:
        raise HTTPException(400, "the form ends before its last boundary")
    return images


def _file_name(headers: bytes) -> str:
    """The file name in the headers of a part. Raises HTTPException 400 where it is no file."""
    for line in headers.splitlines():
        field, _, value = line.partition(b":")
        if field.strip().lower() == b"content-disposition":
            _, parameters = parse_options_header(value.strip())
            if b"filename" in parameters:
                return parameters[b"filename"].decode(errors="replace")
            field_name = parameters.get(b"name", b"").decode(errors="replace")
            raise HTTPException(400, f"form field {field_name!r} is no file; send images as files")
    raise HTTPException(400, "a part of the form says nothing of its content; send images as files")
