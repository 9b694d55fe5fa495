"""A Ray cluster of three machines trains a run while its processes are killed and its links are cut; in the end the
run has to hold the same bytes as an undisturbed one, and no job may have been trained to its end twice.

    python tests/faults/cluster.py --n 100 --seed 0

The machines are network namespaces of this one (Linux; it needs root and `ip`), joined by a bridge: a head without
CPUs, where the command runs, and two that train. They share this machine's files, as machines with shared storage do;
and its process ids, so that a dead worker's claim is known at once to be dead.
"""

import argparse
import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(place) for place in (HERE, HERE.parents[1]) if str(place) not in sys.path]
os.environ["OMP_NUM_THREADS"] = "1"

from built import paint  # noqa: E402

from ensemble.config import load_config  # noqa: E402
from ensemble.events import SILENT  # noqa: E402
from ensemble.overview.verify import verify  # noqa: E402
from ensemble.run import Run  # noqa: E402
from ensemble.train.jobs import train_folds  # noqa: E402

EXPERIMENT = """run = "{folder}/run"
[data]
train = "{images}"
image_size = 32
cache = "{images}-cache"
[folds]
k = 3
near_copies = false
[train]
epochs = {epochs}
batch_size = 8
dtype = "float32"
memory_format = "channels_last"
[tta]
dtype = "float32"
engine = "torch"
[[backbone]]
name = "resnet"
timm = "test_resnet"
pretrained = false
[[backbone]]
name = "vit"
timm = "test_vit"
pretrained = false
"""
FAULTS = ("worker", "worker", "driver", "raylet", "head", "cut 5 s", "cut 5 s", "cut 60 s")
HEAD, BRIDGE, PORT = 0, "ensbr", 6399
SAME = ("model.safetensors", "oof.safetensors", "folds.csv", "classes.json")
ANSWERS = f"import socket; socket.create_connection(('10.77.0.10', {PORT}), 2)"
ENOUGH = 600  # seconds in which something of the run has to happen


def command(*words, check=True):
    return subprocess.run(words, check=check, capture_output=True, text=True)


def space(number):
    return f"ens{number}"


def address(number):
    return f"10.77.0.{10 + number}"


def build_network():
    command("ip", "link", "add", BRIDGE, "type", "bridge")
    command("ip", "link", "set", BRIDGE, "up")
    for number in range(3):
        name, inside = space(number), f"ensv{number}"
        command("ip", "netns", "add", name)
        command("ip", "link", "add", f"ensb{number}", "type", "veth", "peer", "name", inside)
        command("ip", "link", "set", f"ensb{number}", "master", BRIDGE, "up")
        command("ip", "link", "set", inside, "netns", name)
        inner = ("ip", "-n", name)
        command(*inner, "addr", "add", f"{address(number)}/24", "dev", inside)
        command(*inner, "link", "set", inside, "up")
        command(*inner, "link", "set", "lo", "up")


def remove_network():
    for number in range(3):
        empty(number)
        command("ip", "netns", "del", space(number), check=False)
        command("ip", "link", "del", f"ensb{number}", check=False)
    command("ip", "link", "del", BRIDGE, check=False)


def pids(number, title=""):
    """The processes of a machine, or those with a title that begins so."""
    found = command("ip", "netns", "pids", space(number), check=False).stdout.split()
    return [int(pid) for pid in found if title in words_of(pid)]


def words_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def kill(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def empty(number):
    """Kill all that runs on a machine."""
    while found := pids(number):
        for pid in found:
            kill(pid)
        time.sleep(0.1)


def start_node(number, log):
    """Returns the process that waits for the machine's raylet."""
    words = ["ip", "netns", "exec", space(number), str(Path(sys.executable).with_name("ray")), "start", "--block"]
    words += [f"--node-ip-address={address(number)}", f"--num-cpus={0 if number == HEAD else 1}"]
    words += [f"--object-store-memory={2**27}", "--disable-usage-stats"]
    words += ["--head", f"--port={PORT}", "--include-dashboard=false"] if number == HEAD else []
    words += [f"--address={address(HEAD)}:{PORT}"] if number != HEAD else []
    return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)


def repair(nodes, log):
    """Start the machines that have none of their Ray left. nodes: what waits for each."""
    if HEAD not in nodes or not pids(HEAD, "gcs_server"):
        for number in range(3):
            empty(number)
        nodes.clear()
        nodes[HEAD] = start_node(HEAD, log)
        while subprocess.run(
            ["ip", "netns", "exec", space(HEAD), sys.executable, "-c", ANSWERS], check=False
        ).returncode:
            time.sleep(0.5)
    for number in (1, 2):
        if number not in nodes or nodes[number].poll() is not None or not pids(number):
            empty(number)
            nodes[number] = start_node(number, log)


def start_driver(file, log):
    words = ["ip", "netns", "exec", space(HEAD), sys.executable, "-m", "ensemble.cli", "train-folds", str(file)]
    words += ["--on", f"ray={address(HEAD)}:{PORT}"]
    return subprocess.Popen(words, stdout=log, stderr=log)


def do(fault, chance, driver):
    """One fault. Returns whether it could be done."""
    number = chance.choice((1, 2))
    if fault == "driver":
        driver.kill()
        return True
    if fault.startswith("cut"):
        command("ip", "link", "set", f"ensb{number}", "down")
        time.sleep(int(fault.split()[1]))
        command("ip", "link", "set", f"ensb{number}", "up")
        return True
    if fault == "head":
        found = pids(HEAD, "gcs_server") + pids(HEAD, "/raylet/raylet ")
    elif fault == "raylet":
        found = pids(number, "/raylet/raylet ")[:1]
    else:
        found = [pid for each in (1, 2) for pid in pids(each, "ray::run_task")]
        found = [chance.choice(found)] if found else []
    for pid in found:
        kill(pid)
    return bool(found)


def contents(run):
    return {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.name in SAME}


def epochs_saved(run):
    return sum(path.read_bytes().count(b"\n") for path in run.rglob("log.jsonl"))


def train_through(file, run, faults, chance, nodes, pause):
    """Train a run to its end while faults are done, as many as are left. Returns those done, by kind, and lines on what
    went wrong."""
    done, wrong, place = Counter(), [], file.parents[1]
    with (place / "cluster.log").open("ab") as log, (place / "driver.log").open("ab") as said:
        repair(nodes, log)
        driver, moved, before, at_fault = start_driver(file, said), time.monotonic(), -1, 0
        while True:
            status = driver.poll()
            if status == 0:
                return done, wrong
            if status not in (None, 1, 2, -signal.SIGKILL):  # 2: no machine has joined the head yet
                wrong.append(f"the command ended with {status}")
            if status is not None:
                repair(nodes, log)
                time.sleep(1)
                driver = start_driver(file, said)
            now = epochs_saved(run) if run.exists() else 0
            if now != before:
                moved, before = time.monotonic(), now
            elif time.monotonic() - moved > ENOUGH:
                driver.kill()
                return done, [*wrong, f"nothing happened for {ENOUGH} s"]
            until = time.monotonic() + chance.uniform(0.5, 1.5) * pause
            while driver.poll() is None and time.monotonic() < until:
                time.sleep(0.2)
            if pids(HEAD, "gcs_server"):  # else the command finds out by itself, and ends
                repair(nodes, log)
                if faults and now > at_fault and driver.poll() is None and do(faults[0], chance, driver):
                    done[faults[0]] += 1
                    at_fault = now  # the next one waits until something goes on
                    print(json.dumps({"fault": faults.pop(0), "epochs": now}), flush=True)


def check(run, expected):
    """Lines on what is wrong with a finished run."""
    found = contents(run)
    wrong = [f"other bytes in {name}" for name in found.keys() | expected if found.get(name) != expected.get(name)]
    wrong += [finding.line for finding in verify(Run(run), SILENT).findings]
    ended = Counter(re.findall(r"(\w+ fold \d): done in", (run / "ens.log").read_text()))
    return wrong + [f"{job} was trained to its end {count} times" for job, count in ended.items() if count > 1]


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--n", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--epochs", type=int, default=200)
    options.add_argument("--pause", type=float, default=8.0, help="seconds between two faults, in the mean")
    options = options.parse_args()
    chance = random.Random(options.seed)
    faults = [FAULTS[number % len(FAULTS)] for number in range(options.n)]
    chance.shuffle(faults)
    place = Path(tempfile.mkdtemp(prefix="ens-cluster-"))
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ |= {"RAY_raylet_start_wait_time_s": "120"}
    os.environ["PYTHONPATH"] = str(HERE.parents[1])
    done, wrong, runs = Counter(), [], 0
    for index in range(24):
        paint(place / "images" / "ab"[index % 2] / f"{index:02}.png")

    def experiment(folder):
        folder.mkdir()
        text = EXPERIMENT.format(folder=folder, images=place / "images", epochs=options.epochs)
        (folder / "e.toml").write_text(text)
        return folder / "e.toml"

    remove_network()
    assert train_folds(load_config(experiment(place / "whole"), ["workers=1"]), SILENT) == []
    expected = contents(place / "whole" / "run")
    build_network()
    try:
        nodes = {}
        while (faults or not runs) and not wrong:
            runs += 1
            folder = place / f"run{runs}"
            made, wrong = train_through(experiment(folder), folder / "run", faults, chance, nodes, options.pause)
            done += made
            if not wrong:
                wrong = check(folder / "run", expected)
    finally:
        remove_network()
    print(f"{sum(done.values())} faults {dict(done)} over {runs} runs; {len(wrong)} went wrong")
    print("\n".join(wrong), end=f"\n(logs in {place})\n" if wrong else "")
    if not wrong:
        shutil.rmtree(place)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
