"""What a process of its own does in tests/files/test_claims.py."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from ensemble.files.atomic import write_text
from ensemble.files.claims import ClaimLost, Taken, claimed
from ensemble.files.process import this_process

DEAD = {**vars(this_process()), "started": 1}  # an earlier process of this id


def abandon(claim):
    """Leave a claim as a process that was killed does."""
    claim.file.write_text(json.dumps({"id": claim.id, **DEAD}))


def race(barrier, folder, rounds, wins):
    """Claim the same as others at the same moment; hold it until all have tried."""
    for number in range(rounds):
        barrier.wait()
        try:
            with claimed(folder / f".claim{number}"):
                wins.put(number)
                barrier.wait()
        except Taken:
            barrier.wait()


def count(folder, seed, until):
    """Raise a number in a file `until` times, which two at once would do wrong; now and then die while holding it."""
    chance, done, number = random.Random(seed), 0, folder / "number"
    while done < until:
        try:
            with claimed(folder / ".claim") as claim:
                value = int(number.read_text())
                time.sleep(chance.random() * 1e-3)
                number.write_text(str(value + 1))
                done += 1
                if chance.random() < 0.3:
                    abandon(claim)
        except Taken:
            time.sleep(chance.random() * 1e-3)


def hold(folder, beat):
    """Hold a claim; write a file at each line of stdin, and print whether that went well."""
    with claimed(Path(folder) / ".claim", beat=float(beat)):
        print("held", flush=True)
        for line in sys.stdin:
            try:
                write_text(Path(folder) / "done.json", line)
                print("written", flush=True)
            except ClaimLost as error:
                print(error, flush=True)


def fork(folder):
    """Whether a claim is still there after a child that was forked meanwhile has ended."""
    with claimed(Path(folder) / ".claim") as claim:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            print(claim.holder(), flush=True)
    if not child:
        os._exit(0)


if __name__ == "__main__":
    signal.alarm(60)
    globals()[sys.argv[1]](*sys.argv[2:])
