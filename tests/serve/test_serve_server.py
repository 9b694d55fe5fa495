"""A real server on a real socket: slow and rude clients, and how it ends."""

import http.client
import json
import socket
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace

import numpy as np
import pytest
from serve_model import COLOURS, Listener, Running, form, picture, predict

from ensemble.errors import RunFailure, UserError
from ensemble.serve.options import ServeOptions
from ensemble.serve.server import serve_model
from ensemble.stop import ask_to_stop

RED = picture("red")
TRAILERS = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"


@pytest.fixture
def running():
    started = []

    def start(model=COLOURS, **options):
        started.append(Running(model, **options))
        return started[-1]

    yield start
    for server in started:
        if server.thread.is_alive():
            server.stop()


def connected(port):
    return closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60))


def ask(connection, body=RED):
    connection.request("POST", "/predict", body, {"Content-Type": "image/png"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def ask_once(port, body=RED):
    with connected(port) as connection:
        return ask(connection, body)


def received(stream):
    """All that comes until the connection ends."""
    parts = []
    while part := stream.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_it_answers_and_ends_with_its_count(running):
    server = running()
    assert "colours (3 classes, 2 members) is served at http://127.0.0.1:" in server.said.lines[0]
    with connected(server.port) as connection:
        for _ in range(3):
            status, answer = ask(connection)
            assert status == 200 and answer["images"][0]["class"] == "red"
    assert server.stop() == "0 accepted requests"
    assert (server.result.accepted, server.result.answered) == (3, 3)


def test_accepted_requests_are_answered_after_it_was_asked_to_stop(running):
    may, begun = threading.Event(), threading.Semaphore(0)
    may.set()

    def slow(images):
        begun.release()
        assert may.wait(60)
        return predict(images)

    server = running(replace(COLOURS, predict=slow), max_batch=1)
    assert begun.acquire(timeout=60)
    may.clear()
    found = []

    def client():
        found.append(ask_once(server.port))

    clients = [threading.Thread(target=client) for _ in range(4)]
    for each in clients:
        each.start()
    deadline = time.monotonic() + 60
    while metric(server, "ens_queue_length") < 4:
        assert time.monotonic() < deadline
    late = socket.create_connection(("127.0.0.1", server.port))  # its head comes when the server ends
    assert ask_to_stop() == "4 accepted requests"
    deadline = time.monotonic() + 60
    while is_listening(server.port):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    may.set()
    server.thread.join(60)
    for each in clients:
        each.join(60)
    assert [status for status, _ in found] == [200] * 4
    with late:
        assert late.recv(10) == b""
    assert server.result.accepted == server.result.answered >= 4


def is_listening(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def metric(server, name):
    with connected(server.port) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b""),
        (b"", b"POST /predict HTTP/1.1\r\nHost:"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /pre"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", b"body"),
    ],
    ids=["nothing", "half a head", "half of a second head", "a body that nobody reads"],
)
def test_a_client_that_sends_no_more_is_cut_off(running, first, then):
    server = running(max_seconds=0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as stream:
        if first:
            stream.sendall(first)
            assert stream.recv(65536).startswith(b"HTTP/1.1 200 ")
        stream.sendall(then)
        with suppress(ConnectionResetError):
            received(stream)


def test_a_connection_may_wait_for_its_next_request(running):
    server = running(max_seconds=0.2)
    with connected(server.port) as connection:
        assert ask(connection)[0] == 200
        stream = connection.sock
        time.sleep(1.2)  # two looks and more
        assert ask(connection)[0] == 200 and connection.sock is stream


def test_a_slow_body_gets_its_status(running):
    server = running(max_seconds=0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
        stream.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\nx")
        answer = received(stream)
    assert answer.startswith(b"HTTP/1.1 408 ") and b'{"error":"the body did not arrive within 0.3 seconds"}' in answer


def test_an_answer_that_is_not_taken_holds_nothing_up(running):
    """Many images, whose answer is larger than what the kernel keeps for a client that does not read."""
    classes = tuple(f"{number:04}" + "x" * 2000 for number in range(1000))

    def evenly(images):
        return np.full((len(images), 1000), 1e-3), np.full((2, len(images), 1000), 1e-3)

    many = replace(COLOURS, classes=classes, predict=evenly)
    server = running(many, max_seconds=0.5)
    content_type, body = form(*[(f"{number}", RED) for number in range(8)])
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket() as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.connect(("127.0.0.1", server.port))
        stream.sendall(head.encode() + body)
        assert stream.recv(9) == b"HTTP/1.1 "
        server.stop()
    assert server.result.accepted == 1


def test_a_huge_body_is_refused_while_it_is_sent(running):
    server = running(max_bytes=100_000)
    status, answer = ask_once(server.port, b"x" * 3_000_000)
    assert status == 413 and "larger than the 100,000 bytes" in answer["error"]
    assert ask_once(server.port)[0] == 200


@pytest.mark.parametrize(
    "start",
    [b"GET /healthz HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\nA: ", b"GET /", TRAILERS],
    ids=["fields", "a long field", "a long path", "fields behind a body"],
)
def test_a_head_without_end_is_refused(running, start):
    """Before, it was kept: 1.4 GB of 70 MB of short fields."""
    server = running()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
        stream.sendall(start)
        sent = 0
        with suppress(ConnectionError):
            while sent < 8_000_000:
                sent += stream.send(b"x" * 10_000 if start.endswith((b" ", b"/")) else b"A: b\r\n" * 1000)
    assert sent < 8_000_000  # what the kernel takes for the server is less
    assert ask_once(server.port)[0] == 200


def test_a_large_head_gets_its_status(running):
    server = running()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
        stream.sendall(b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 1100)
        answer = received(stream)
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.endswith(b"The head of the request is too large.")


def test_nonsense_is_answered_400(running):
    server = running()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stream:
        stream.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert received(stream).startswith(b"HTTP/1.1 400 ")


def test_a_port_that_is_taken_is_a_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: can't listen there .*choose another port"):
            serve_model(lambda: COLOURS, ServeOptions(port=port), Listener())
    with pytest.raises(UserError, match=r"--host no\.such\.host\.invalid"):
        serve_model(lambda: COLOURS, ServeOptions(host="no.such.host.invalid"), Listener())


def test_a_queue_shorter_than_a_request_is_refused():
    with pytest.raises(UserError, match="--max-images 64 --max-queue 8"):
        serve_model(lambda: COLOURS, ServeOptions(max_queue=8), Listener())


def test_a_model_that_can_not_predict_ends_the_command():
    def broken(images):
        raise RuntimeError("no such operator")

    with pytest.raises(RunFailure, match=r"colours: the model failed \(no such operator\)"):
        serve_model(lambda: replace(COLOURS, predict=broken), ServeOptions(port=0), Listener())


def test_other_machines_without_a_token_are_warned_of(running):
    server = running(host="0.0.0.0")
    server.stop()
    assert "whoever reaches this address may use it" in server.said.lines[1]
    guarded = running(host="0.0.0.0", token="t")
    guarded.stop()
    assert len(guarded.said.lines) == 1
