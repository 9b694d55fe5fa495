"""A SLURM of one machine, for tests: sbatch, srun, squeue, scontrol, sacct and scancel, as far as submitit and ens use
them. `install(folder)` puts them into folder/bin; their state is in the folder.

    script ID.sh, and for each job of the array ID_INDEX.json: its state, the group of its processes and its restarts

A job runs in the background, at most `most` at a time, with no time limit. Its step has a process group of its own, and
signals go to all of it, as SLURM's do: `scancel --signal=USR2` is what comes before a limit.
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "sacct", "scancel")
HOME = Path(os.environ.get("STAND_IN_SLURM", "."))
POLL = 0.1


def install(folder, most=2):
    """Returns the folder to put on PATH, and the environment that the commands need."""
    binaries = folder / "bin"
    binaries.mkdir(parents=True)
    for name in COMMANDS:
        (binaries / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{__file__}" {name} "$@"\n')
        (binaries / name).chmod(0o755)
    (folder / "settings.json").write_text(json.dumps({"most": most}))
    return binaries, {"STAND_IN_SLURM": str(folder)}


def settings():
    return json.loads((HOME / "settings.json").read_text())


@contextmanager
def table():
    """All jobs by their id, to read and to change."""
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = HOME / "table.json"
        jobs = json.loads(path.read_text()) if path.exists() else {}
        yield jobs
        path.with_suffix(".new").write_text(json.dumps(jobs, indent=1))
        path.with_suffix(".new").rename(path)


def change(name, **values):
    with table() as jobs:
        jobs[name] |= values


# ---- commands ------------------------------------------------------------------------------------------------------


def sbatch(words):
    refusal = HOME / "refuses"
    if refusal.exists():
        sys.exit(refusal.read_text())
    text = Path(words[-1]).read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.M))
    with table() as jobs:
        number = str(len({name.split("_")[0] for name in jobs}) + 1)
        indices = range(int(re.match(r"0-(\d+)", options["array"])[1]) + 1) if "array" in options else [None]
        names = [number if index is None else f"{number}_{index}" for index in indices]
        for name in names:
            jobs[name] = {"state": "PENDING", "name": options["job-name"], "group": None, "restarts": 0, "signals": []}
    (HOME / f"{number}.sh").write_text(text)
    for name in names:
        out = (HOME / f"daemon-{name}.log").open("w")
        subprocess.Popen(
            [sys.executable, "-S", __file__, "_daemon", name],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    print(f"Submitted batch job {number}")


def squeue(words):
    assert "--array" in words and "--states=all" in words and "--format=%i|%T" in words
    wanted = next(word.removeprefix("--name=") for word in words if word.startswith("--name="))
    with table() as jobs:
        for name, job in jobs.items():
            if job["name"] == wanted:
                print(f"{name}|{job['state']}")


def sacct(words):
    print("JobID|State|NodeList")
    with table() as jobs:
        for name, job in jobs.items():
            print(f"{name}|{job['state']}|here")


def scontrol(words):
    assert words[0] == "requeue"
    change(words[1], requeue=True)


def scancel(words):
    number = next((word.removeprefix("--signal=") for word in words if word.startswith("--signal=")), None)
    with table() as jobs:
        for name in (word for word in words if not word.startswith("-")):
            job = jobs[name]
            job["signals"].append(number or "cancelled")
            if number is None:
                job["cancel"] = True
            elif job["state"] == "RUNNING":
                send(job, getattr(signal, f"SIG{number}"))


def srun(words):
    """Run the step in a process group of its own."""
    options = {"--output": None, "--error": None}
    while words[0].startswith("--"):
        word = words.pop(0)
        if word in options:
            options[word] = words.pop(0)
    name = os.environ["STAND_IN_JOB"]
    array, _, index = name.partition("_")
    path = options["--output"]
    for pattern, value in {"%A": array, "%a": index, "%j": name, "%t": "0"}.items():
        path = path.replace(pattern, value)
    with Path(path).open("a") as out:
        environment = os.environ | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "1"}
        step = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True, env=environment)
        change(name, group=step.pid)
        sys.exit(step.wait() & 0xFF)


# ---- what the daemons do -------------------------------------------------------------------------------------------


def send(job, number):
    if job["group"] is not None:
        with suppress(ProcessLookupError):
            os.killpg(job["group"], number)


def begin(name):
    """Whether the job runs now, and not another one."""
    with table() as jobs:
        if jobs[name].get("cancel"):
            return None
        if sum(job["state"] == "RUNNING" for job in jobs.values()) >= settings()["most"]:
            return False
        jobs[name] |= {"state": "RUNNING", "group": None}
        return True


def _daemon(words):
    (name,) = words
    while True:
        while not (begun := begin(name)):
            if begun is None:
                return change(name, state="CANCELLED")
            time.sleep(POLL)
        state = run_once(name)
        with table() as jobs:
            job = jobs[name]
            job |= {"state": "PENDING" if state == "REQUEUED" else state, "requeue": False}
            job["restarts"] += state == "REQUEUED"
        if state != "REQUEUED":
            return None


def run_once(name):
    """Run the script; returns the state in which it ended."""
    array, _, index = name.partition("_")
    environment = os.environ | {"STAND_IN_JOB": name, "SLURM_JOB_ID": array}
    if index:
        environment |= {"SLURM_JOB_ID": str(1000 * int(array) + int(index))}
        environment |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index}
    script = subprocess.Popen(["bash", HOME / f"{array}.sh"], env=environment, stdin=subprocess.DEVNULL)
    ended = False
    while not ended:
        time.sleep(POLL)
        ended = script.poll() is not None
        with table() as jobs:
            job = jobs[name]
        for cause, state in (("requeue", "REQUEUED"), ("cancel", "CANCELLED")):
            if job.get(cause):
                end(script, job)
                return state
    return "COMPLETED" if script.returncode == 0 else "FAILED"


def end(script, job):
    """As SLURM does: SIGTERM, and SIGKILL to what is left."""
    send(job, signal.SIGCONT)
    send(job, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        script.wait(2.0)
    send(job, signal.SIGKILL)
    script.wait()


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2:])
