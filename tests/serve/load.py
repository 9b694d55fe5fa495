"""Clients that send pictures to a server without a pause, for the test of restarts and for benchmarks/serve.py.

A request is sent again if the connection ended before a byte of its answer came: then the server had not accepted it,
or its own count says so. An answer that began and did not end is lost.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Told:
    """What the clients were told. statuses: of whole answers. refused: connections, while no server listened. again:
    requests that were sent again. lost: answers that began and did not end. seconds: of each answer 200, from sending
    to its end."""

    statuses: Counter = field(default_factory=Counter)
    refused: int = 0
    again: int = 0
    lost: int = 0
    seconds: list[float] = field(default_factory=list)


def head_of(content_type, body, path="/predict"):
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()


async def clients(port, count, messages, go_on, told):
    """`count` clients on connections of their own, which send the messages, each once, while `go_on()`. messages: an
    iterator, which may have no end."""
    await asyncio.gather(*[_client(port, messages, go_on, told) for _ in range(count)])


async def _client(port, messages, go_on, told):
    stream = None
    for message in messages:
        while go_on():
            try:
                stream = stream or await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                told.refused += 1
                await asyncio.sleep(0.05)
                continue
            begun = time.perf_counter()
            status, is_last = await _ask(*stream, message, told)
            if status == 200:
                told.seconds.append(time.perf_counter() - begun)
            if is_last:
                stream[1].close()
                stream = None
            if status is not None:
                told.statuses[status] += 1
                break
        else:
            break
    if stream is not None:
        stream[1].close()


async def _ask(reader, writer, message, told):
    """The status of the answer, None where none came, and whether the connection is at its end."""
    started = False
    try:
        writer.write(message)
        first = await reader.readexactly(1)
        started = True
        head = first + await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        await reader.readexactly(int(fields[b"content-length"]))
    except (OSError, asyncio.IncompleteReadError):
        told.lost += started
        told.again += not started
        return None, True
    return int(head[9:12]), fields.get(b"connection") == b"close"
