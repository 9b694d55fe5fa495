"""Where a server listens: its socket, and what people open."""

import os
import socket
from ipaddress import ip_address

from ensemble.errors import UserError


def bound(host: str, port: int) -> socket.socket:
    """A socket of this address, which refuses connections until a server listens on it. port: 0 takes a free one.
    Raises UserError if it can't be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # elsewhere it would let two servers share the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: can't listen there ({error.strerror or error}); choose another port, or 0 "
            "for a free one"
        ) from None
    return listener


def address(host: str, listener: socket.socket) -> str:
    """The URL that a browser opens. host: as the user named it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback
