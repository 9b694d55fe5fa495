"""Requests whose head does not end are refused: uvicorn itself keeps all of it, 1.4 GB of 70 MB of short fields, before
any token is asked for."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_BYTES = 2**16  # of a head that is not complete
MOST_FIELDS = 1000  # with those that may follow a body


def protocol_with_limits(**settings: Any) -> HttpToolsProtocol:
    """The protocol of a connection, as uvicorn makes it."""
    protocol = HttpToolsProtocol(**settings)
    receive, held = protocol.data_received, 0

    def data_received(data: bytes) -> None:
        nonlocal held
        receive(data)
        held = held + len(data) if _in_head(protocol) else 0
        if held > MOST_BYTES or len(protocol.headers or ()) > MOST_FIELDS:
            _refuse(protocol)

    protocol.data_received = data_received  # type: ignore[method-assign]
    return protocol


def _in_head(protocol: HttpToolsProtocol) -> bool:
    """Whether a request has begun whose head is not complete."""
    return protocol.scope is not None and (protocol.cycle is None or protocol.cycle.scope is not protocol.scope)


def _refuse(protocol: HttpToolsProtocol) -> None:
    if protocol.cycle is None or protocol.cycle.response_complete:
        protocol.send_400_response("The head of the request is too large.")
    else:  # within an answer
        protocol.transport.abort()
