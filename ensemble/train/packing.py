"""How many jobs of a network train best side by side on one GPU: timed, as the number formats are.

The kernels of a small network end before the next ones are launched, and another process fills the gaps; a large
network leaves none, and its steps only take turns. What is timed are the bare steps: augmentation, whose kernels are
smaller still, leaves more gaps. Two jobs are timed beside one, four beside two, and so on while it pays.
"""

import math
import multiprocessing
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
from filelock import FileLock

from ensemble.config import Backbone, Config, train_settings
from ensemble.device import free_cached_memory, synchronize
from ensemble.errors import RunFailure
from ensemble.events import Events
from ensemble.files.reading import Finite, read_json
from ensemble.files.sealed import write_json
from ensemble.launch.local import blocked_signals
from ensemble.launch.slots import memory_share
from ensemble.machine import cores
from ensemble.plural import pluralize
from ensemble.run import Fold, Run
from ensemble.train.clock import Clock
from ensemble.train.lengths import images_of
from ensemble.train.members import crop_size, make_model
from ensemble.train.mend import is_readable
from ensemble.train.numerics import known_file, load_numerics, training_step
from ensemble.train.prepare import backbone_named, device_name, known_folder
from ensemble.train.rows import Rows

COUNTS = (1, 2, 4, 8)  # jobs on one GPU
ROUNDS, SECONDS = 3, 1.0  # in which two numbers of jobs are timed in turn, and for how long
MARGIN = 1.1  # more jobs have to be so many times as fast together, in every round
STEPS = 8  # between two waits for the GPU, as in training
ROOM = 0.75  # of a job's share of the memory that its steps may take: averaged weights, pixels and evaluation need more
WORTH = 180.0  # seconds of training on one GPU; a trial takes twenty
PATIENCE = 300.0  # seconds until a process that is started has to have taken a step, which it may have to compile

Together = Callable[[int], float]  # images/s of so many jobs side by side, all together
Build = Callable[[torch.device], Callable[[], None]]  # makes what takes a step of training on the device


@dataclass(frozen=True)
class Packing:
    """How many jobs of a network train side by side on one GPU.

    jobs: how many
    images_per_second: of all of them together in the trial, for each number of jobs that was timed
    """

    jobs: int
    images_per_second: dict[int, Finite]


def read_packing(path: Path) -> Packing:
    """Raises UserError that names the file."""
    return read_json(path, Packing, "delete it, and it is timed again")


def describe(packing: Packing) -> str:
    """One line for people."""
    rates = [f"{rate:.0f} images/s by {jobs}" for jobs, rate in packing.images_per_second.items()]
    return f"{pluralize(packing.jobs, 'job')} at a time on each GPU: {', '.join(rates)} in the trial"


def counts_to_try(jobs: int, available: int) -> list[int]:
    """Those of COUNTS for which there are so many jobs for each GPU, and a core for each."""
    return [count for count in COUNTS if count <= max(1, min(jobs, available))]


def find_packing(together: Together, counts: Sequence[int]) -> tuple[Packing, str]:
    """The largest of the numbers that pays, each compared with the one before, and why that is doubtful: "" if it
    isn't. A number of jobs that fails, out of memory or else, is not taken, nor any larger one.

    counts: ascending, from 1
    """
    best, rates, doubt = 1, dict[int, float](), ""
    for more in counts[1:]:
        try:
            rounds = [(together(best), together(more)) for _ in range(ROUNDS)]
        except RunFailure as error:
            doubt = "" if best in rates or "memory" in str(error) else str(error)
            break
        for count, seen in zip((best, more), zip(*rounds, strict=True), strict=True):
            rates[count] = float(f"{statistics.median(seen):.4g}")
        pays = [many > MARGIN * few for few, many in rounds]
        if not all(pays):
            doubt = "the trials did not agree" if any(pays) else ""
            break
        best = more
    return Packing(best, rates), doubt


@contextmanager
def timed_processes(build: Build, images: int, device: torch.device) -> Iterator[Together]:
    """Yields what times the steps of so many processes side by side. They are started as they are needed, and ended at
    the end. images: of a step. It raises RunFailure, with the reason, if one of them fails."""
    context = multiprocessing.get_context("spawn")
    processes, pipes = list[SpawnProcess](), list[Connection]()

    def start() -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, build, images, str(device)), daemon=True)
        with blocked_signals():
            process.start()
        theirs.close()
        processes.append(process)
        pipes.append(ours)

    def together(count: int) -> float:
        added = range(len(pipes), count)
        for _ in added:
            start()
        for number in added:
            _answer(pipes[number])
        for pipe in pipes[:count]:
            with suppress(OSError):  # it has died: the end of its pipe is read next
                pipe.send(count)
        return sum(_answer(pipe) for pipe in pipes[:count])

    try:
        yield together
    finally:
        for process, pipe in zip(processes, pipes, strict=True):
            process.kill()
            process.join()
            pipe.close()


def _answer(pipe: Connection) -> float:
    if not pipe.poll(PATIENCE):
        raise RunFailure(f"a process did not answer within {PATIENCE:.0f} s")
    try:
        answer: float | str = pipe.recv()
    except (EOFError, OSError):
        raise RunFailure("a process was killed, possibly out of memory") from None
    if isinstance(answer, str):
        raise RunFailure(answer)
    return answer


def _serve(pipe: Connection, build: Build, images: int, device_name: str) -> None:
    """A process: take one step, then for each number of jobs on its GPU that it is told, steps for SECONDS. Answers 0,
    then images/s each time; or, once, in words why it can't."""
    for number in (signal.SIGINT, signal.SIGTERM):  # its parent hears them
        signal.signal(number, signal.SIG_IGN)
    device = torch.device(device_name)
    torch.set_num_threads(1)
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        step = build(device)
        step()
        synchronize(device)
        pipe.send(0.0)
        while True:
            count = pipe.recv()
            if device.type == "cuda":
                torch.cuda.empty_cache()  # so that what doesn't fit into its share fails
                room = ROOM * memory_share(count) if count > 1 else 1.0
                torch.cuda.set_per_process_memory_fraction(room, device)
            pipe.send(_rate(step, images, device))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        with suppress(OSError):
            pipe.send((str(error) or type(error).__name__).splitlines()[0])


def _rate(step: Callable[[], None], images: int, device: torch.device) -> float:
    begun, seen = time.perf_counter(), 0
    while (seconds := time.perf_counter() - begun) < SECONDS:
        for _ in range(STEPS):
            step()
        synchronize(device)
        seen += STEPS * images
    return seen / seconds


def packing_of(
    config: Config, backbone: Backbone, classes: int, jobs: int, images: int, device: torch.device, events: Events
) -> Packing:
    """How many jobs of this backbone train side by side on a GPU of this machine, timed unless it was before. A single
    one where the jobs end too soon for a trial to pay.

    jobs: how many there are for each GPU
    images: that they train on in all
    """
    numerics = load_numerics(Run(config.run).member(backbone.name).numerics_json)
    settings, size = train_settings(config, backbone), crop_size(config, backbone)
    counts = counts_to_try(jobs, cores())
    if len(counts) == 1:
        return Packing(1, {})
    steps = {key: value for key, value in asdict(numerics).items() if key != "images_per_second"}
    known = known_file(
        known_folder(config) / "packing", timm=backbone.timm, size=size, strategy=settings.strategy,
        stages=settings.stages, numerics=steps, counts=counts, cores=cores(), device=device_name(device),
    )  # fmt: skip
    known.parent.mkdir(parents=True, exist_ok=True)
    create = partial(make_model, config, backbone, classes, 0)
    build = partial(training_step, create, size, classes, numerics.micro_batch, numerics)
    with FileLock(known.parent / ".lock"):  # trials that run at once would disturb each other
        if is_readable(known, read_packing, events):
            return read_packing(known)
        if images / numerics.images_per_second < WORTH:
            return Packing(1, {})
        events.progress(f"{backbone.name}: finding how many jobs train best side by side on a GPU", 0, 1)
        free_cached_memory(device)
        with timed_processes(build, numerics.micro_batch, device) as together:
            found, doubt = find_packing(together, counts)
        if doubt:
            events.message(
                f"{backbone.name}: {doubt} while the number of jobs on a GPU was timed; it will be timed again in the "
                "next run"
            )
        else:
            write_json(known, asdict(found))
    events.message(f"{backbone.name}: {describe(found)}")
    return found


def group_by_gpus(
    config: Config, rows: Rows, jobs: Sequence[Fold], device: torch.device, clock: Clock, events: Events
) -> list[tuple[int | str, list[Fold]]]:
    """The jobs, all together, with what the experiment has for gpus_per_job. Where that is "auto" and there are GPUs,
    the jobs of those backbones go together of which equally many train best side by side on a GPU; `clock` is told how
    fast they are then. A student, whose teachers' networks no trial knows, has a GPU of its own."""
    if config.gpus_per_job != "auto" or config.workers != "auto" or device.type != "cuda":
        return [(config.gpus_per_job, list(jobs))]
    groups: dict[int | str, list[Fold]] = {}
    for name in dict.fromkeys(job.member.name for job in jobs):
        of_backbone = [job for job in jobs if job.member.name == name]
        if of_backbone[0].member.teachers_json.is_file():
            groups.setdefault(1, []).extend(of_backbone)
            continue
        for_each_gpu = math.ceil(len(of_backbone) / torch.cuda.device_count())
        backbone = backbone_named(config, name)
        images = sum(images_of(config, rows, job) for job in of_backbone) // torch.cuda.device_count()
        packing = packing_of(config, backbone, len(rows.classes), for_each_gpu, images, device, events)
        if packing.jobs > 1:
            clock.expected[name] = packing.images_per_second[packing.jobs] / packing.jobs
        groups.setdefault(f"1/{packing.jobs}", []).extend(of_backbone)
    return list(groups.items())
