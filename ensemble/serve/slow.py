"""Connections that nothing comes or goes on are cut off: uvicorn itself waits without end for the head of a request,
and for a client to take an answer."""

import asyncio
import time
from typing import Any

from uvicorn import Server

TICK = 0.5  # seconds between two looks


async def cut_off_slow(server: Server, seconds: float) -> None:
    """Until it is cancelled, cut off connections on which no request is in progress for longer than `seconds`, but
    for those that wait for a next one, which have a limit of their own. A request's own time is limited elsewhere."""
    idle: dict[Any, tuple[Any, float]] = {}  # connection -> its last request, and since when there is no other
    while True:
        now = time.monotonic()
        connections: set[Any] = {each for each in server.server_state.connections if _is_stuck(each)}
        idle = {each: found for each, found in idle.items() if each in connections and found[0] is each.cycle}
        for each in connections:
            _, since = idle.setdefault(each, (each.cycle, now))
            if now - since > seconds:
                each.transport.abort()
        await asyncio.sleep(TICK)


def _is_stuck(connection: Any) -> bool:
    """Whether a request's head is lacking or incomplete, its answer is not taken, or a body comes that nobody reads."""
    if connection.cycle is not None and not connection.cycle.response_complete:
        return False
    waits_for_the_next = connection.timeout_keep_alive_task is not None
    return not waits_for_the_next or connection.transport.get_write_buffer_size() > 0
