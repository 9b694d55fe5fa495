"""The command `ens serve` as a process: its signals, its exit status, and restarts under load."""

import asyncio
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from commands import ens
from exported_file import content
from load import Told, clients, head_of
from serve_model import picture

RED = picture("red")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "art.onnx"
    path.write_bytes(content())
    return path


def started(*words, **environment):
    """The process, once it serves, and the line that says so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ensemble.cli", "serve", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    line = (process.stderr if "--json" in words else process.stdout).readline()
    assert "is served at" in line, process.communicate()
    return process, line


def port_of(line):
    return int(line.rpartition("http://")[2].split(":")[1])


def ended(process):
    with process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0(file, number):
    process, line = started(file, "--port", 0, "--threads", 1, ENS_TOKEN="s3cret")
    assert line.startswith("art.onnx (3 classes, 2 members) is served at http://127.0.0.1:")
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(line), timeout=60)) as connection:
        for token, status in (("wrong", 401), ("s3cret", 200)):
            headers = {"Content-Type": "image/png", "Authorization": f"Bearer {token}"}
            connection.request("POST", "/predict", RED, headers)
            response = connection.getresponse()
            assert response.status == status and json.loads(response.read())
        process.send_signal(number)
        status, out, err = ended(process)
    assert status == 0 and out == "stopped; 2 of 2 accepted requests were answered\n"
    assert err == "ens: stopping after 0 accepted requests ... (again to stop at once)\n"


def test_mistakes_are_one_line(monkeypatch, capfd, tmp_path, file):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(file.read_bytes().replace(b"mean", b"maen", 1))
    (tmp_path / "empty").write_text("\n")
    for words, line in (
        ((damaged,), "damaged.onnx: damaged: its bytes are not those that ens wrote"),
        ((tmp_path / "none.onnx",), "none.onnx: no such file"),
        ((tmp_path,), "not a run directory"),
        ((file, "--token-file", tmp_path / "empty"), "empty: want a token of printable ASCII"),
        ((file, "--token-file", tmp_path / "gone"), "gone: no such file"),
        ((file, "--max-queue", 3), "--max-images 64 --max-queue 3"),
    ):
        status, _, err = ens(monkeypatch, capfd, "serve", *words)
        assert status == 2 and line in err and err.count("\n") == 1, err
    monkeypatch.setenv("ENS_TOKEN", "")
    status, _, err = ens(monkeypatch, capfd, "serve", file)
    assert status == 2 and "ENS_TOKEN: want a token" in err


def test_what_is_not_installed_is_named(monkeypatch, capfd, file):
    monkeypatch.setattr("ensemble.serve.NEEDED", ("fastapi", "no_such_module"))
    status, _, err = ens(monkeypatch, capfd, "serve", file)
    assert status == 2 and 'ens serve needs no_such_module; install with: pip install "ens-vision[serve]"' in err


@pytest.mark.process
def test_restarts_under_load_lose_no_accepted_request(file):
    """Eight clients; three times SIGTERM and a new server on the same port. What the servers say that they accepted is
    what the clients were answered, to the request."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    told, going = Told(), threading.Event()
    going.set()
    messages = itertools.repeat(head_of("image/png", RED) + RED)
    load = threading.Thread(target=lambda: asyncio.run(clients(port, 8, messages, going.is_set, told)))
    accepted = 0
    try:
        for restart in range(3):
            process, _ = started(file, "--port", port, "--threads", 1, "--json")
            if not restart:
                load.start()
            before = told.statuses[200]
            while told.statuses[200] < before + 200:
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            status, out, _ = ended(process)
            served = json.loads(out)["result"]
            assert status == 0 and served["answered"] == served["accepted"]
            accepted += served["accepted"]
    finally:
        going.clear()
        load.join(60)
    assert told.lost == 0 and set(told.statuses) == {200} and told.statuses[200] == accepted
