"""`ens serve` against the file that it serves:

    python benchmarks/serve.py FILE IMAGES [--part throughput|restarts|start]

FILE was written by `ens export`, IMAGES is a folder of pictures; --n of them are sent, one by one, as the bytes of a
file. The clients run in this process and take processor time too, which is printed: on a small machine it is missing
to the server.

- throughput: the file's own batches (`ExportedModel.predict_files`, decoding included) and the server under --clients
  clients without a pause, alternating; medians of the rounds [least, greatest], each round's ratio of its own;
  milliseconds until the answer, for all clients and for one alone.
- restarts: --requests under load with --restarts times SIGTERM and a new server on the same port. Lost are requests
  that a server says it accepted and no client was answered, and answers that began and did not end. What a client sends
  into a connection that ends without a byte was not accepted, and is sent again.
- start: from the process's beginning until /healthz is 200, and until the first answer.
"""

import argparse
import asyncio
import http.client
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "serve")]

from load import Told, clients, head_of  # noqa: E402

from ensemble.data.folders.listing import list_folder  # noqa: E402
from ensemble.exported.model import load_exported  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--part", choices=["throughput", "restarts", "start"], default="throughput")
    parser.add_argument("--n", type=int, default=320, help="pictures")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="of load in a round")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--restarts", type=int, default=5)
    options = parser.parse_args()
    paths = list_folder(options.images).images[: options.n]
    bodies = [path.read_bytes() for path in paths]
    messages = [head_of("image/jpeg", body) + body for body in bodies]
    if options.part == "throughput":
        throughput(options, paths, messages)
    elif options.part == "restarts":
        restarts(options, messages)
    else:
        start(options, messages[0])


def started(file: Path, port: int) -> subprocess.Popen[str]:
    """A server that is ready."""
    words = [sys.executable, "-m", "ensemble.cli", "serve", str(file), "--port", str(port), "--json"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    if "is served at" not in line:
        sys.exit(line + process.stderr.read())
    return process


def ended(process: subprocess.Popen[str]) -> dict[str, int]:
    """What the server says that it has done, after SIGTERM."""
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate()
    result: dict[str, int] = json.loads(out)["result"]
    return result


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def processor(pid: int | str = "self") -> float:
    """Seconds of processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def loaded(port: int, count: int, messages: list[bytes], seconds: float) -> Told:
    """What so many clients were told in so many seconds."""
    told, end = Told(), time.monotonic() + seconds
    asyncio.run(clients(port, count, itertools.cycle(messages), lambda: time.monotonic() < end, told))
    return told


def spread(values: list[float], form: str = "{:.1f}") -> str:
    shown = [form.format(value) for value in (statistics.median(values), min(values), max(values))]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def percentiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    shown = (ordered[int(share * (len(ordered) - 1))] * 1000 for share in (0.5, 0.99, 1))
    return "p50 {:.1f}, p99 {:.1f}, most {:.1f} ms".format(*shown)


def throughput(options: argparse.Namespace, paths: list[Path], messages: list[bytes]) -> None:
    model = load_exported(options.file)
    port = free_port()
    server = started(options.file, port)
    model.predict_files(paths[:16], "error")
    loaded(port, options.clients, messages, 2)
    bare, served, ratios, all_seconds = [], [], [], []
    costs: dict[str, list[float]] = {"bare": [], "server": [], "clients": []}  # processor-ms for an image
    for _ in range(options.rounds):
        begun, before = time.perf_counter(), processor()
        model.predict_files(paths, "error")
        bare.append(len(paths) / (time.perf_counter() - begun))
        costs["bare"].append(1000 * (processor() - before) / len(paths))
        begun, before, before_server = time.perf_counter(), processor(), processor(server.pid)
        told = loaded(port, options.clients, messages, options.seconds)
        answered = told.statuses[200]
        if set(told.statuses) != {200} or told.again or told.lost:
            sys.exit(f"{told.statuses}, sent again {told.again}, lost {told.lost}")
        served.append(answered / (time.perf_counter() - begun))
        costs["server"].append(1000 * (processor(server.pid) - before_server) / answered)
        costs["clients"].append(1000 * (processor() - before) / answered)
        ratios.append(served[-1] / bare[-1])
        all_seconds += told.seconds
    alone = loaded(port, 1, messages, options.seconds / 2)
    ended(server)
    print(f"the file's batches: {spread(bare)} images/s; {options.clients} clients: {spread(served)}")
    print(f"ratio {spread(ratios, '{:.3f}')}; until the answer: {percentiles(all_seconds)}")
    print(f"one client alone: {percentiles(alone.seconds)}")
    print("processor-ms for an image: " + "; ".join(f"{name} {spread(values)}" for name, values in costs.items()))


def restarts(options: argparse.Namespace, messages: list[bytes]) -> None:
    port, told, accepted = free_port(), Told(), 0
    server = started(options.file, port)
    turns = itertools.islice(itertools.cycle(messages), options.requests)
    load = threading.Thread(target=lambda: asyncio.run(clients(port, options.clients, turns, lambda: True, told)))
    load.start()
    for number in range(1, options.restarts + 1):
        while told.statuses[200] < number * options.requests / (options.restarts + 1) and load.is_alive():
            time.sleep(0.05)
        accepted += ended(server)["accepted"]
        server = started(options.file, port)
        print(f"restart {number} after {told.statuses[200]:,} answers", file=sys.stderr)
    load.join()
    accepted += ended(server)["accepted"]
    lost = accepted - sum(told.statuses.values()) + told.lost
    print(f"{options.requests:,} requests, {options.restarts} restarts, {options.clients} clients: {lost} lost")
    print(f"statuses {dict(told.statuses)}; sent again {told.again:,}; {percentiles(told.seconds)}")


def start(options: argparse.Namespace, message: bytes) -> None:
    ready, first, cost = [], [], []
    for _ in range(options.rounds):
        port = free_port()
        begun = time.perf_counter()
        server = started(options.file, port)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        ready.append(time.perf_counter() - begun)
        told = Told()
        asyncio.run(clients(port, 1, iter([message]), lambda: True, told))
        first.append(time.perf_counter() - begun)
        cost.append(processor(server.pid))
        connection.close()
        ended(server)
    print(f"seconds until ready {spread(ready, '{:.2f}')}, until the first answer {spread(first, '{:.2f}')}")
    print(f"processor-seconds of it {spread(cost, '{:.2f}')}")


if __name__ == "__main__":
    main()
