"""Claims between processes, of this machine and of others, whose clocks may show anything."""

import errno
import json
import multiprocessing
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ensemble.errors import RunFailure
from ensemble.files import claims, process, shared
from ensemble.files.atomic import clear_temporaries, remove, remove_folder, replacing, write_text
from ensemble.files.claims import ClaimLost, Taken, claimed, claimed_when_free, free_abandoned, holder_of
from ensemble.files.process import is_known_dead, this_process

sys.path.insert(0, str(Path(__file__).parent))
import claim_race

ELSEWHERE = {**vars(this_process()), "host": "node9", "machine": "9", "pid": 4242}


ANOTHER = replace(this_process(), pid=os.getppid(), started=process._started(os.getppid()))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_claim(path, generation=1, count=None, **about):
    """A claim as the process `about` has written it."""
    file = path.with_name(f"{path.name}-{generation}")
    file.write_text(json.dumps({"id": "other", **ELSEWHERE, **about}))
    if count is not None:
        path.with_name(f"{file.name}.other").write_text(str(count))
    return file


def at(seconds):
    return lambda: seconds


def start(what, *words):
    command = [sys.executable, claim_race.__file__, what, *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".claim"


# ---- one process holds it ------------------------------------------------------------------------------------------


def test_one_holds_it_and_nothing_is_left(path, tmp_path):
    with claimed(path) as claim:
        assert names(tmp_path) == [".claim-1"]
        with pytest.raises(Taken, match=rf"^process {os.getpid()} on {socket.gethostname()}$"), claimed(path):
            pass
        assert holder_of(path) == f"process {os.getpid()} on {socket.gethostname()}"
        assert pickle.loads(pickle.dumps(claim)) == claim
        claim.require_held()
        with claimed(tmp_path / ".other.claim"):  # another name is another claim
            pass
    assert names(tmp_path) == [] and holder_of(path) is None


def test_it_is_free_after_an_error(path, tmp_path):
    with pytest.raises(ZeroDivisionError), claimed(path):
        _ = 1 / 0
    assert names(tmp_path) == []


def test_the_holder_gives_signs_of_life(path, tmp_path):
    with claimed(path, beat=0.01) as claim:
        deadline = time.monotonic() + 20
        while not (claim.count_file.is_file() and claim.count_file.read_text() >= "2"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert names(tmp_path) == []


def test_signs_of_life_are_given_while_a_mirror_is_brought_up_to_date(path, tmp_path, monkeypatch):
    """It may take longer than the others wait; where it fails, the claim is given back."""

    def refresh(folder, held):
        deadline = time.monotonic() + 20
        while not list(folder.glob(f"{held}-1.*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        raise OSError("the store is gone")

    monkeypatch.setattr(claims, "refresh", refresh)
    with pytest.raises(OSError, match="the store is gone"), claimed(path, beat=0.01):
        pass
    assert names(tmp_path) == []


def test_it_is_waited_for(path, tmp_path):
    waited = []
    write_claim(path)

    def let_go(taken):
        waited.append(str(taken))
        path.with_name(".claim-1").unlink(missing_ok=True)

    with claimed_when_free(path, let_go):
        pass
    assert waited == ["process 4242 on node9"] and names(tmp_path) == []


def test_a_folder_that_can_not_be_written_is_an_error(tmp_path):
    with pytest.raises(OSError, match="absent"), claimed(tmp_path / "absent" / ".claim"):
        pass


# ---- the holder is gone --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_a_claim_of_another_machine_is_taken_over_a_minute_after_its_last_sign(path, tmp_path, monkeypatch, hours):
    """By the observer's monotonic clock alone: the other machine's clock and the times of files may be hours off."""
    here = time.time()
    monkeypatch.setattr(time, "time", lambda: here - 3600 * hours)

    def sign(count):
        write_claim(path, count=count)
        for file in tmp_path.iterdir():
            os.utime(file, (here + 3600 * hours,) * 2)

    def is_taken(seconds):
        try:
            with claimed(path, clock=at(seconds)) as claim:
                assert claim.generation == 2 and names(tmp_path) == [".claim-2"]
                return False
        except Taken as taken:
            assert str(taken) == "process 4242 on node9"
            return True

    sign(1)
    assert is_taken(1000) and is_taken(1059.9)
    sign(2)
    assert is_taken(1060) and is_taken(1119.9)
    assert not is_taken(1120) and names(tmp_path) == []


def test_a_new_claim_in_its_place_starts_anew(path):
    write_claim(path)
    for seconds in (0, 59):
        with pytest.raises(Taken), claimed(path, clock=at(seconds)):
            pass
    write_claim(path, id="third")
    with pytest.raises(Taken), claimed(path, clock=at(61)):
        pass


@pytest.mark.parametrize("about", [{"host": "node9"}, {"machine": "9"}, {"namespace": "pid:[9]"}])
def test_a_process_of_another_machine_or_container_is_never_thought_dead_by_its_id(path, about):
    dead = {**claim_race.DEAD, **about}
    write_claim(path, **dead)
    with pytest.raises(Taken), claimed(path):
        pass
    assert not is_known_dead(process.Process(**dead))


def test_on_windows_processes_are_not_asked_for(monkeypatch):
    dead = replace(this_process(), started=1)
    assert is_known_dead(dead)
    monkeypatch.setattr(process, "os", SimpleNamespace(name="nt"))
    assert not is_known_dead(dead)


def test_another_process_of_the_same_id_is_not_its_holder(path, tmp_path):
    """This process has the id of the one that held the claim, and started later."""
    write_claim(path, **claim_race.DEAD)
    with claimed(path) as claim:
        assert claim.generation == 2
    write_claim(path, **vars(ANOTHER))
    with pytest.raises(Taken), claimed(path):
        pass


def test_a_claim_that_could_not_be_given_back_is_free_for_its_process(path, tmp_path):
    write_claim(path, **vars(this_process()))
    with claimed(path) as claim:
        assert claim.generation == 2
    assert names(tmp_path) == []


@pytest.mark.parametrize("is_reaped", [True, False])
def test_a_killed_process_of_this_machine_leaves_nothing_locked(path, tmp_path, is_reaped):
    with start("hold", tmp_path, 10) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Taken, match=f"process {other.pid} on"), claimed(path):
            pass
        other.kill()
        if is_reaped:
            other.wait()
        else:
            os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        with claimed(path):
            pass
    assert names(tmp_path) == []


def test_a_suspended_holder_loses_its_claim_and_writes_nothing_more(path, tmp_path):
    with start("hold", tmp_path, 0.01) as other:
        assert other.stdout.readline() == "held\n"
        other.stdin.write("first\n")
        other.stdin.flush()
        assert other.stdout.readline() == "written\n"
        other.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, other.pid, os.WSTOPPED)
        with pytest.raises(Taken), claimed(path, clock=at(0)):
            pass
        with claimed(path, clock=at(60)) as claim:
            write_text(tmp_path / "done.json", "second")
            other.send_signal(signal.SIGCONT)
            other.stdin.write("third\n")
            other.stdin.flush()
            said = other.stdout.readline()
            assert f"{tmp_path}: was taken over by process {os.getpid()} on " in said
            assert (tmp_path / "done.json").read_text() == "second"
            claim.require_held()
        other.stdin.write("fourth\n")  # the new holder is gone too: it is still not the old one's
        other.stdin.flush()
        assert f"{tmp_path}: was taken over by another process, which has ended" in other.stdout.readline()
        other.communicate()
    assert other.returncode == 0 and names(tmp_path) == ["done.json"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"id": 3}', "\x00", '{"id": "a", "pid": "x"}', "[" * 9999, json.dumps({**ELSEWHERE, "id": "../x"})],
)
def test_a_claim_that_says_nothing_is_taken_over_after_a_minute(path, tmp_path, text):
    path.with_name(".claim-1").write_text(text)
    for seconds in (0, 59):
        with pytest.raises(Taken, match=r"^another process$"), claimed(path, clock=at(seconds)):
            pass
    with claimed(path, clock=at(60)):
        assert names(tmp_path) == [".claim-2"]


# ---- several at once -----------------------------------------------------------------------------------------------


def test_one_that_was_late_to_take_over_retreats(path, tmp_path, monkeypatch):
    """The dead holder's claim was taken over and given back, and a third process has begun anew, since this one looked:
    it creates the second generation beside the new first one."""
    dead = write_claim(path, **claim_race.DEAD)
    create = shared.create

    def late(file, text):
        dead.unlink()
        write_claim(path, id="third")
        monkeypatch.setattr(shared, "create", create)
        return create(file, text)

    monkeypatch.setattr(shared, "create", late)
    with pytest.raises(Taken, match="process 4242 on node9"), claimed(path):
        pass
    assert names(tmp_path) == [".claim-1"] and json.loads(dead.read_text())["id"] == "third"


@pytest.mark.process
def test_of_many_processes_exactly_one_wins(tmp_path):
    context, rounds, many = multiprocessing.get_context("spawn"), 40, 6
    for number in range(0, rounds, 2):  # half of the claims have been left by a process that has died
        write_claim(tmp_path / f".claim{number}", **claim_race.DEAD)
    barrier, wins = context.Barrier(many), context.SimpleQueue()
    others = [context.Process(target=claim_race.race, args=(barrier, tmp_path, rounds, wins)) for _ in range(many)]
    for other in others:
        other.start()
    found = Counter(wins.get() for _ in range(rounds))
    for other in others:
        other.join()
    assert found == dict.fromkeys(range(rounds), 1) and names(tmp_path) == []


@pytest.mark.process
def test_processes_that_die_while_they_hold_it_never_share_it(tmp_path):
    context, many, until = multiprocessing.get_context("spawn"), 4, 60
    (tmp_path / "number").write_text("0")
    others = [context.Process(target=claim_race.count, args=(tmp_path, seed, until)) for seed in range(many)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert (tmp_path / "number").read_text() == str(many * until)


def test_a_forked_child_gives_nothing_back(tmp_path):
    with start("fork", tmp_path) as other:
        assert other.communicate()[0] == "None\n" and names(tmp_path) == []


# ---- what is written while it is held ------------------------------------------------------------------------------


def test_what_was_lost_is_neither_written_nor_removed(path, tmp_path):
    write_text(tmp_path / "state" / "last", "new holder's")
    write_text(tmp_path / "done.json", "new holder's")
    with claimed(path) as claim:
        write_claim(path, generation=2)
        for change in (
            lambda: write_text(tmp_path / "done.json", "old"),
            lambda: write_text(tmp_path / "state" / "last", "old"),
            lambda: remove(tmp_path / "done.json"),
            lambda: remove_folder(tmp_path / "state"),
            claim.require_held,
        ):
            with pytest.raises(ClaimLost, match="was taken over by process 4242 on node9") as error:
                change()
            assert isinstance(error.value, RunFailure)
        write_text(tmp_path.parent / "elsewhere", "is no part of it")
    assert (tmp_path / "done.json").read_text() == (tmp_path / "state" / "last").read_text() == "new holder's"
    assert names(tmp_path) == [".claim-1", ".claim-2", "done.json", "state"]


def test_a_holder_whose_unfinished_file_was_cleared_away_has_lost_its_claim(path, tmp_path):
    with claimed(path), pytest.raises(ClaimLost), replacing(tmp_path / "last") as temporary:
        temporary.write_text("half")
        write_claim(path, generation=2)
        clear_temporaries(tmp_path)


def test_a_claim_that_another_machine_removes_while_it_is_read_is_gone(path, monkeypatch):
    """NFS answers so for a file that is known by a handle alone."""
    write_claim(path)

    def read_bytes(file):
        raise OSError(errno.ESTALE, "Stale file handle", str(file))

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert holder_of(path) is None


def test_a_full_disk_leaves_no_claim(path, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OSError, match="File too large"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            with claimed(path):
                pass
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


# ---- who has died is found out -------------------------------------------------------------------------------------


def test_claims_of_the_dead_are_freed_and_those_of_the_living_are_not_waited_for(tmp_path):
    paths = {name: tmp_path / name for name in ("dead", "gone", "lives", "here", "free", "given-back")}
    write_claim(paths["dead"], **claim_race.DEAD)
    for name in ("gone", "lives", "given-back"):
        write_claim(paths[name], count=7)
    write_claim(paths["here"], **vars(ANOTHER))
    now = [100.0]
    waits = []

    def wait(seconds):
        now[0] += seconds
        waits.append({name for name, path in paths.items() if holder_of(path)})
        if len(waits) == 10:
            write_claim(paths["lives"], count=8)
        if len(waits) == 20:
            (tmp_path / "given-back-1").unlink()

    free_abandoned(paths.values(), wait, clock=lambda: now[0])
    assert len(waits) == 60 and waits[0] == {"gone", "lives", "here", "given-back"}
    assert names(tmp_path) == ["given-back-1.other", "here-1", "lives-1", "lives-1.other"]
    free_abandoned([paths["here"], paths["free"]], wait)
    assert len(waits) == 60
