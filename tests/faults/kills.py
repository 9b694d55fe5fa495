"""A run is killed (SIGKILL) at chosen file operations, from its first image to its submission, and the same commands
are given again: nothing on disk may be damaged after the kill, and the end has to be the same bytes as without one.

    python tests/faults/kills.py --n 50

An operation is a flush to the disk, a rename or a removal; which one is drawn by the seed. Each process is a fork of
this one, which has torch imported and has started no thread.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import built

from ensemble.blend import BlendOptions, blend_run
from ensemble.config import load_config
from ensemble.events import SILENT
from ensemble.overview.verify import verify
from ensemble.run import Run
from ensemble.train.jobs import train_folds
from ensemble.tta.oof import add_views

OPERATIONS = ("fsync", "replace", "unlink")
SETTLED = ("train.dtype=float32", "train.memory_format=contiguous", "tta.dtype=float32")  # what is timed may differ
SAME = ("model.safetensors", "oof.safetensors", "views.safetensors", "folds.csv", "classes.json", "stack.safetensors")


def commands(folder):
    """All of them, from images to a submission."""
    run = folder / "run"
    config = load_config(folder / "e.toml", ("workers=1", *SETTLED))
    assert train_folds(config, SILENT) == []
    add_views(Run(run), ["vflip"], SILENT)
    blend_run(Run(run), BlendOptions("stack"), events=SILENT)
    built.predict(run, folder / "test", folder / "s.csv")


def forked(folder, kill_at, count_file):
    """Run the commands in a fork, which is killed at its operation of that number (0: never). Returns how it ended."""
    child = os.fork()
    if not child:
        status = 1
        try:
            done = Counter()

            def counted(name):
                original = getattr(os, name)

                def operation(*arguments, **more):
                    done["all"] += 1
                    if done["all"] == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return original(*arguments, **more)

                setattr(os, name, operation)

            for name in OPERATIONS:
                counted(name)
            commands(folder)
            count_file.write_text(str(done["all"]))
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(folder):
    """The bytes of all that numbers come from."""
    found = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.name in SAME}
    return found | {Path("s.csv"): (folder / "s.csv").read_bytes()}


def kill_runs(place, n, seed):
    """How many kills there were of how many operations, and lines on what went wrong."""
    begun, count = place / "begun", place / "count"
    begun.mkdir()
    built.begin(begun)
    whole = fresh(begun, place / "whole")
    assert forked(whole, 0, count) == 0
    operations, expected = int(count.read_text()), contents(whole)
    chance, wrong = random.Random(seed), []
    for kill_at in sorted(chance.sample(range(1, operations + 1), min(n, operations))):
        folder = fresh(begun, place / "killed")
        ended = forked(folder, kill_at, count)
        run = folder / "run"
        if ended != -signal.SIGKILL:
            wrong.append(f"operation {kill_at}: ended with {ended}, not killed")
        if Run(run).folds_csv.is_file():
            wrong += [f"operation {kill_at}: {own.line}" for own in verify(Run(run), SILENT).findings]
        if forked(folder, 0, count) != 0:
            wrong.append(f"operation {kill_at}: the same commands fail afterwards")
        else:
            found = contents(folder)
            differ = [str(name) for name in found.keys() | expected if found.get(name) != expected.get(name)]
            wrong += [f"operation {kill_at}: ends with other bytes in {name}" for name in differ]
        shutil.rmtree(folder)
    return min(n, operations), operations, wrong


def fresh(begun, folder):
    """Images and an experiment of their own, in `folder`."""
    shutil.copytree(begun, folder)
    (folder / "e.toml").write_text(built.EXPERIMENT.format(folder=folder))
    return folder


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--n", type=int, default=50)
    options.add_argument("--seed", type=int, default=0)
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        kills, operations, wrong = kill_runs(Path(place), options.n, options.seed)
    print(f"{kills} kills, of {operations} operations of files; {len(wrong)} went wrong")
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
