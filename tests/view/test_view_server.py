"""The server of `ens view`: who is answered, with what, and how the command ends."""

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import closing, contextmanager

import pytest
from commands import ens

from ensemble.listen import bound
from ensemble.view.server import is_allowed, opened


@contextmanager
def served(run):
    from ensemble.run import Run

    with bound("127.0.0.1", 0) as listener, opened(Run(run), "127.0.0.1", listener) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield listener.getsockname()[1]
        server.shutdown()


@pytest.fixture(scope="module")
def port(noise_run):
    with served(noise_run) as number:
        yield number


def asked(port, path, method="GET", **headers):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer, answer.read()


def test_the_page_and_what_it_is_made_of(port):
    for path, kind in (("/", "text/html"), ("/style.css", "text/css"), ("/view.js", "text/javascript")):
        answer, body = asked(port, path)
        assert answer.status == 200 and answer.headers["Content-Type"] == f"{kind}; charset=utf-8" and len(body) > 900
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["Server"] == "ens" and "Access-Control-Allow-Origin" not in answer.headers


def test_the_state_is_sent_again_only_when_it_has_changed(port):
    answer, body = asked(port, "/state.json")
    state = json.loads(body)
    assert state["jobs"] == {"all": 4, "done": 4, "training": 0, "failed": 0}
    again, nothing = asked(port, "/state.json", If_None_Match=answer.headers["ETag"])
    assert (again.status, nothing) == (304, b"")


def test_no_path_of_the_machine_is_sent(port, noise_run):
    for path in ("/state.json", "/images.json"):
        _, body = asked(port, path)
        assert str(noise_run.parent) not in body.decode() and "/tmp" not in body.decode()
    assert len(json.loads(body)["groups"]) == 2 and json.loads(body)["groups"][0]["images"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8001", "localhost.evil.example", "", "[::1.evil]"])
def test_a_name_of_elsewhere_is_refused(port, host):
    for path in ("/", "/state.json", "/images.json"):
        answer, body = asked(port, path, Host=host)
        assert answer.status == 403 and body == b"ens view answers to localhost and to IP addresses only\n"


def test_names_of_this_machine():
    for host in ("localhost", "LOCALHOST:8001", "127.0.0.1:9", "[::1]:8001", "192.168.0.7:8001", "mybox:1"):
        assert is_allowed(host, {"localhost", "mybox"}), host
    for host in (None, "", "mybox.evil.example", "127.0.0.1.evil.example", "::1", "[mybox"):
        assert not is_allowed(host, {"localhost"}), host


def test_other_addresses_and_methods_are_refused(port):
    for path in ("/ens.log", "/../config.toml", "//etc/passwd", "/state.json/"):
        assert asked(port, path)[0].status == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert asked(port, "/", method)[0].status == 501


def test_who_hangs_up_fills_no_terminal(noise_run, capfd):
    with served(noise_run) as port:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port)) as asking:
                asking.sendall(b"GET /images.json HTTP/1.0\r\nHost: localhost\r\n\r\n")
                asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
        assert asked(port, "/images.json")[0].status == 200
    assert capfd.readouterr().err == ""


def test_a_run_that_can_not_be_read_is_a_line_on_the_page(noise_run, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "folds.csv").write_text("id,label\n1,a\n")
    (tmp_path / "broken" / "classes.json").write_text('["a", "b"]')
    with served(tmp_path / "broken") as port:
        _, body = asked(port, "/state.json")
    assert json.loads(body)["error"].startswith("broken/folds.csv: ")


def test_an_occupied_port_and_what_is_no_run_end_with_a_line(noise_run, tmp_path, monkeypatch, capfd):
    with bound("127.0.0.1", 0) as other:
        other.listen()
        port = other.getsockname()[1]
        status, out, errors = ens(monkeypatch, capfd, "view", noise_run, "--port", port)
    line = (
        f"--host 127.0.0.1 --port {port}: can't listen there (Address already in use); choose another port, or 0 for a"
    )
    assert (status, out) == (2, "") and line in errors and len(errors.splitlines()) == 1
    status, _, errors = ens(monkeypatch, capfd, "view", tmp_path)
    assert status == 2 and "not a run directory" in errors


def test_ctrl_c_closes_it_and_nothing_was_written_and_torch_was_not_loaded(noise_run):
    code = (
        "import sys, atexit\nfrom ensemble import cli\n"
        "atexit.register(lambda: print('torch' in sys.modules, flush=True))\n"
        f"sys.argv = ['ens', 'view', {str(noise_run)!r}, '--port', '0']\ncli.main()\n"
    )
    before = {path: path.stat().st_mtime_ns for path in noise_run.rglob("*")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONUNBUFFERED": "1"}, **pipes) as process:
        line = process.stdout.readline()
        assert line.startswith(f"{noise_run} is shown at http://127.0.0.1:") and "Ctrl-C closes it" in line
        port = int(line.partition("127.0.0.1:")[2].partition(":")[0])
        assert asked(port, "/images.json")[0].status == asked(port, "/state.json")[0].status == 200
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and out.splitlines() == ["closed", "False"] and "Traceback" not in errors
    assert {path: path.stat().st_mtime_ns for path in noise_run.rglob("*")} == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
