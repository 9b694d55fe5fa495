"""The server of `ens view`: a page, its style and script, and two documents. It answers GET alone, and only those who
asked for it by a name of this machine: a page of elsewhere, whose name was bound to this address, is refused."""

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from ipaddress import ip_address
from socketserver import ThreadingTCPServer
from typing import Any

from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files import mirror
from ensemble.listen import address, bound, is_loopback
from ensemble.run import Run
from ensemble.view.images import Gallery
from ensemble.view.messages import without_paths
from ensemble.view.state import RunWatcher

FRESH = 1.0  # seconds for which a document is not made anew, whoever asks
FRESH_OF_STORE = 15.0  # of a run on an object store, which is asked for every fold
TIMEOUT = 30.0  # seconds for a request to arrive
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass
class Document:
    """JSON that is made on request, by one thread at a time, and again only when it is `FRESH` seconds old.

    run: the run that it is about.
    make: makes it; a UserError becomes {"error": the line}.
    """

    run: Run
    make: Callable[[], dict[str, Any]]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _made: tuple[float, bytes] | None = None

    def read(self) -> bytes:
        with self._lock:
            fresh = FRESH if mirror.url_of(self.run.path) is None else FRESH_OF_STORE
            if self._made is None or time.monotonic() - self._made[0] >= fresh:
                try:
                    made = self.make()
                except (UserError, OSError) as error:
                    made = {"error": without_paths(str(error), self.run)}
                self._made = time.monotonic(), json.dumps(made, allow_nan=False).encode()
            return self._made[1]


def view(run: Run, host: str, port: int, events: Events) -> str:
    """Show the run until Ctrl-C. Returns where it was shown. Raises UserError if it is no run, or if the address can't
    be had."""
    run.require()
    with bound(host, port) as listener, opened(run, host, listener) as server:
        url = address(host, listener)
        threading.Thread(target=server.serve_forever, name="view", daemon=True).start()
        events.message(f"{run} is shown at {url}: open it in a browser; Ctrl-C closes it")
        if not is_loopback(listener):
            events.message("whoever reaches this address sees the run's images, scores and messages")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            server.shutdown()
        return url


def opened(run: Run, host: str, listener: socket.socket) -> ThreadingTCPServer:
    """A server on the socket, for `serve_forever`.

    host: the address as the user named it.
    listener: a bound socket.
    """
    watcher, gallery = RunWatcher(run), Gallery(run)
    templates, here = files("ensemble.report").joinpath("templates"), files(__package__)
    style = templates.joinpath("style.css").read_bytes() + here.joinpath("view.css").read_bytes()
    script = templates.joinpath("theme.js").read_bytes() + here.joinpath("view.js").read_bytes()
    pages: dict[str, tuple[str, Callable[[], bytes]]] = {
        "/": ("text/html", here.joinpath("page.html").read_bytes),
        "/style.css": ("text/css", lambda: style),
        "/view.js": ("text/javascript", lambda: script),
        "/state.json": ("application/json", Document(run, watcher.state).read),
        "/images.json": ("application/json", Document(run, lambda: gallery.images(watcher.rows())).read),
    }
    names = {"localhost", host.lower()} | (set() if is_loopback(listener) else {socket.gethostname().lower()})
    listener.listen(32)
    server = ThreadingTCPServer(listener.getsockname()[:2], partial(_Handler, pages, names), bind_and_activate=False)
    server.socket.close()
    server.socket, server.daemon_threads = listener, True
    return server


def is_allowed(host: str | None, names: Collection[str]) -> bool:
    """Whether a request's Host header, with or without a port, is one of `names` or an IP address, which no other page
    can have taken for its own."""
    name = (host or "").strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    try:
        return name in names or bool(ip_address(name))
    except ValueError:
        return False


class _Handler(BaseHTTPRequestHandler):
    """Answers a request. Python's server asks for a class."""

    timeout = TIMEOUT

    def __init__(
        self, pages: dict[str, tuple[str, Callable[[], bytes]]], names: Collection[str], *connection: Any
    ) -> None:
        self.pages, self.names = pages, names
        super().__init__(*connection)

    def handle(self) -> None:
        with suppress(ConnectionError):  # whoever asked is gone
            super().handle()

    def do_GET(self) -> None:
        if not is_allowed(self.headers.get("Host"), self.names):
            self._answer(
                HTTPStatus.FORBIDDEN, "text/plain", b"ens view answers to localhost and to IP addresses only\n"
            )
            return
        kind, read = self.pages.get(self.path.partition("?")[0], ("", None))
        if read is None:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such page\n")
            return
        body = read()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if self.headers.get("If-None-Match") == tag:
            self._answer(HTTPStatus.NOT_MODIFIED, "", b"", tag)
        else:
            self._answer(HTTPStatus.OK, kind, body, tag)

    def _answer(self, status: HTTPStatus, kind: str, body: bytes, tag: str = "") -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if tag:
            self.send_header("ETag", tag)
        if kind:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "ens"

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed."""
