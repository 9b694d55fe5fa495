"""The jobs of a run as tasks of Ray: each backbone is prepared on a machine that trains it, then its folds are trained.

A job whose worker or machine is lost is submitted again, and goes on from its last whole epoch. Ray could do so itself;
but it would not say so, and would start a job for ever that its machine has no memory for.
"""

import pickle
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ensemble.events import Events
from ensemble.launch.jobs import End, Listen, Outcome, Work
from ensemble.launch.local import RAISED
from ensemble.launch.ray.cluster import Cluster, Needs
from ensemble.launch.ray.driver import HEARD, LOST, SHARE, SUBMIT
from ensemble.launch.ray.worker import Expected, Task
from ensemble.launch.slots import Slot, memory_share
from ensemble.run import Fold

LOSSES = 3  # of one job within one epoch: then it fails
WAIT_SECONDS = 60.0  # in which no task begins, until it is said
PATIENCE = 120.0  # seconds in which a lost machine's claim on a job is found to be dead


@dataclass(frozen=True)
class Prepared:
    """What came of preparing a member.

    rates: images per second of training, by member; none where there is nothing to train.
    error: why it failed, else None.
    """

    rates: dict[str, float]
    error: str | None = None


@dataclass(frozen=True)
class Plan:
    """What is done, and with what.

    prepare: of the member of this name.
    work: of a job.
    needs: of each task.
    expected: what all machines have to have alike.
    memory: bytes that a job of the member of this name needs, 0 where that was never measured.
    """

    prepare: Callable[[str, Slot, Events], Prepared]
    work: Work
    needs: Needs
    expected: Expected
    memory: Callable[[str], int]


@dataclass(frozen=True)
class Listeners:
    """Who is told what.

    prepared: of each member that was prepared; the bytes are those that it took.
    events: what is said meanwhile.
    listen, end: as of every launcher; `measured` of the bytes that a job took.
    """

    prepared: Callable[[str, Prepared, int], None]
    events: Events
    listen: Listen
    end: End
    measured: Callable[[Fold, int], None]


@dataclass
class _Submitted:
    """A task that Ray has."""

    what: str | Fold  # a member's name: it is prepared
    node: str = ""  # "" until it is known


@dataclass
class _Jobs:
    """The jobs that run."""

    cluster: Cluster
    plan: Plan
    listeners: Listeners
    members: Mapping[str, Sequence[Fold]]
    running: dict[int, _Submitted] = field(default_factory=dict)
    count: int = 0
    losses: Counter[str | Fold] = field(default_factory=Counter)
    epochs: dict[str | Fold, int] = field(default_factory=dict)  # that were saved when it was lost


def run_on_ray(cluster: Cluster, plan: Plan, members: Mapping[str, Sequence[Fold]], listeners: Listeners) -> None:
    """Prepare these members, and run the jobs of each that could be. What the plan's functions raise is raised here,
    and ends the others when the cluster is left. Raises RunFailure if the cluster is lost."""
    state = _Jobs(cluster, plan, listeners, members)
    parts = {"prepare": plan.prepare, "work": plan.work, "expected": plan.expected}
    cluster.send(SHARE, pickle.dumps(parts))
    for name in members:
        _submit(state, name)
    is_told = False
    while state.running:
        if (
            not is_told
            and not any(task.node for task in state.running.values())
            and not cluster.pipe.poll(WAIT_SECONDS)
        ):
            is_told = True
            listeners.events.message(f"waiting until a machine of the Ray cluster has {plan.needs.describe_one()} free")
        kind, *words = cluster.receive()
        if kind == HEARD:
            _hear(state, *words[0])
        elif kind == LOST:
            _take_loss(state, state.running.pop(words[0]), words[1])
        else:
            _take_end(state, state.running.pop(words[0]).what, *words[1])


def _submit(state: _Jobs, what: str | Fold, patience: float = 0.0) -> None:
    plan, needs, number = state.plan, state.plan.needs, state.count
    state.count += 1
    state.running[number] = _Submitted(what)
    if isinstance(what, str):
        function, options = "prepare", needs.options(plan.memory(what))
    else:
        function, options = "work", needs.options(plan.memory(what.member.name))
    share = memory_share(needs.jobs_on_a_gpu)
    task = Task(number, function, pickle.dumps(what), needs.threads, needs.processes, share, patience)
    state.cluster.send(SUBMIT, task, options)


def _hear(state: _Jobs, number: int, kind: str, words: tuple[Any, ...]) -> None:
    task = state.running.get(number)
    if task is None:  # it comes late, from a worker that was lost
        return
    if kind == "began":
        task.node = words[0]
    elif isinstance(task.what, Fold):
        getattr(state.listeners.listen(task.what), kind)(*words)
    elif kind == "message":  # several are prepared at a time, and each counts its progress otherwise
        state.listeners.events.message(*words)


def _take_end(state: _Jobs, what: str | Fold, kind: str, answer: bytes, memory: int) -> None:
    result = pickle.loads(answer)
    if kind == RAISED:
        raise result
    if isinstance(what, Fold):
        if result.error is None and not result.is_locked:
            state.listeners.measured(what, memory)
        state.listeners.end(what, result)
        return
    state.listeners.prepared(what, result, memory)
    if result.error is None:
        for job in state.members[what]:
            _submit(state, job)


def _take_loss(state: _Jobs, task: _Submitted, reason: str) -> None:
    what = task.what
    if isinstance(what, Fold) and what.is_done():  # it was lost before it could say so
        state.listeners.end(what, Outcome(seconds=what.read_done().get("seconds", 0.0)))
        return
    saved = _saved_epochs(what)
    if saved != state.epochs.get(what):
        state.losses[what] = 0
    state.epochs[what] = saved
    state.losses[what] += 1
    place = f" on {task.node}" if task.node else ""
    if state.losses[what] < LOSSES:
        again = f"goes on from epoch {saved + 1}" if saved else "starts again"
        state.listeners.events.message(f"{what}: its worker{place} was lost ({reason}); {again}")
        _submit(state, what, PATIENCE)
        return
    error = (
        f"{what}: its worker was lost {LOSSES} times in one epoch (at last{place}: {reason}), possibly out of memory; "
        "lower its batch_size"
    )
    if isinstance(what, Fold):
        state.listeners.end(what, Outcome(error=error))
    else:
        state.listeners.prepared(what, Prepared({}, error), 0)


def _saved_epochs(what: str | Fold) -> int:
    if isinstance(what, str) or not what.log_file.is_file():
        return 0
    return what.log_file.read_bytes().count(b"\n")
