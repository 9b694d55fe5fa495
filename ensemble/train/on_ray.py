"""The jobs of a run on a Ray cluster, from the process that the user started."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from typing_extensions import TypedDict

from ensemble.config import Backbone, Config
from ensemble.events import SILENT
from ensemble.files.claims import free_abandoned, holder_of
from ensemble.files.reading import Count, read_json
from ensemble.files.sealed import write_json
from ensemble.launch.ray.cluster import Cluster, Needs, job_needs, seen_everywhere
from ensemble.launch.ray.jobs import Listeners, Plan, Prepared, run_on_ray
from ensemble.launch.ray.worker import Expected, versions
from ensemble.machine import threads_allowed
from ensemble.plural import pluralize
from ensemble.run import Fold, Member, Run
from ensemble.train.mend import is_readable
from ensemble.train.monitor import Monitor
from ensemble.train.pixels import OpenPixels
from ensemble.train.ray_work import prepare_there, run_there
from ensemble.train.rows import Rows


class Memory(TypedDict):
    """memory.json of a member: the most bytes that a process had for itself, of all that did this for it."""

    bytes: Count
    of: Literal["prepare", "fold"]


def needs_of(config: Config, cluster: Cluster) -> Needs:
    """What each job of the run gets. Raises UserError if the cluster lacks the GPUs."""
    return job_needs(cluster.nodes, config.gpus_per_job, config.workers, threads_allowed())


def require_alike(config: Config, cluster: Cluster) -> None:
    """Raise UserError if the cluster lacks the GPUs that the run asks for, or if ens, torch, timm or Python are others
    on one of its machines than here."""
    needs_of(config, cluster)
    cluster.require(Expected(versions(), str(Path.cwd())))


def train_on_ray(config: Config, rows: Rows, backbones: Sequence[Backbone], cluster: Cluster, monitor: Monitor) -> None:
    """Prepare the backbones on the machines of the cluster, and run the jobs that the monitor's clock knows. Those that
    another process has are tried once more at the end. Raises UserError, before any begins, if a machine doesn't see
    the run or its images."""
    members: dict[str, list[Fold]] = {backbone.name: [] for backbone in backbones}
    for job in monitor.clock.left:
        members[job.member.name].append(job)
    opened: OpenPixels = {}
    needs = needs_of(config, cluster)
    monitor.clock.parallel = needs.together
    prepared = partial(_take_prepared, config, members, monitor, needs.processes)
    listeners = Listeners(prepared, monitor.events, monitor.listen, monitor.end, _take_memory)
    with seen_everywhere(config.run, rows.paths) as expected:
        cluster.require(expected)
        machines = pluralize(len(cluster.nodes), "machine")
        monitor.events.message(
            f"{pluralize(len(monitor.clock.left), 'job')} to train on {machines}, {needs.describe()}"
        )
        plan = Plan(
            partial(prepare_there, config, rows, opened), partial(run_there, config, rows, opened),
            needs, expected, partial(_memory, config),
        )  # fmt: skip
        for is_last in (False, True):
            run_on_ray(cluster, plan, members, listeners)
            Run(config.run).refresh()
            jobs = [job for job in monitor.locked if not job.is_done()]
            monitor.locked.clear()
            if not jobs:
                return
            if not is_last:
                free_abandoned((job.claim_file for job in jobs), monitor.wait)
            members.clear()
            for job in jobs:
                members.setdefault(job.member.name, []).append(job)
    for job in jobs:
        monitor.events.message(f"{job}: locked by {holder_of(job.claim_file) or 'another process'}; skipped")


def _take_prepared(
    config: Config,
    members: dict[str, list[Fold]],
    monitor: Monitor,
    processes: int,
    name: str,
    prepared: Prepared,
    memory: int,
) -> None:
    if prepared.error is not None:
        monitor.failures.append(prepared.error)
        monitor.events.message(f"failed: {prepared.error}")
        monitor.clock.left.update(dict.fromkeys(members[name], 0))
        return
    monitor.clock.expected.update({name: rate * processes for name, rate in prepared.rates.items()})
    member = Run(config.run).member(name)
    if prepared.rates and memory and not member.memory_json.is_file():
        write_json(member.memory_json, {"bytes": memory, "of": "prepare"})


def _take_memory(job: Fold, memory: int) -> None:
    """Keep what a job took: of all jobs of its member the most, in place of what preparing it took."""
    known = _stored_memory(job.member)
    if memory and (known is None or known["of"] == "prepare" or memory > known["bytes"]):
        write_json(job.member.memory_json, {"bytes": memory, "of": "fold"})


def _memory(config: Config, name: str) -> int:
    known = _stored_memory(Run(config.run).member(name))
    return 0 if known is None else known["bytes"]


def _stored_memory(member: Member) -> Memory | None:
    def read(path: Path) -> Memory:
        return read_json(path, Memory)

    return read(member.memory_json) if is_readable(member.memory_json, read, SILENT) else None
