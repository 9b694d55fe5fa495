"""Clients that send pictures to a server without a pause, for the test of restarts and for benchmarks/serve.py.

A request is sent again if the connection was refused, or ended before a byte of its answer came: then the server had
not accepted it, or says so in its own count. An answer that began and did not end is lost.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Told:
    """What the clients were told. statuses: of whole answers. again: requests that were sent again. lost: answers that
    began and did not end. seconds: of each answer 200, from sending to its end."""

    statuses: Counter = field(default_factory=Counter)
    again: int = 0
    lost: int = 0
    seconds: list[float] = field(default_factory=list)


def head_of(content_type, body, path="/predict"):
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()


async def clients(port, count, message, go_on, told):
    """`count` clients on connections of their own, which send `message` while `go_on()`."""
    await asyncio.gather(*[_client(port, message, go_on, told) for _ in range(count)])


async def _client(port, message, go_on, told):
    stream = None
    while go_on():
        begun = time.perf_counter()
        started = False
        try:
            if stream is None:
                stream = await asyncio.open_connection("127.0.0.1", port)
            reader, writer = stream
            writer.write(message)
            first = await reader.readexactly(1)
            started = True
            head = first + await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await reader.readexactly(int(fields[b"content-length"]))
        except (OSError, asyncio.IncompleteReadError):
            told.lost += started
            told.again += not started
            if stream is not None:
                stream[1].close()
            stream = None
            await asyncio.sleep(0.02)
            continue
        status = int(head[9:12])
        told.statuses[status] += 1
        if status == 200:
            told.seconds.append(time.perf_counter() - begun)
        if fields.get(b"connection") == b"close":
            writer.close()
            stream = None
    if stream is not None:
        stream[1].close()
