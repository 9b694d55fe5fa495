"""SLURM, through submitit: workers are submitted as an array of jobs, each of which runs a command of ens that shares
its work with the others by claims. So SLURM schedules, and here it is only asked: for the queue, and to end workers.
"""

import hashlib
import io
import logging
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.config import Config
from ensemble.errors import UserError
from ensemble.files.mirror import as_url, url_of
from ensemble.launch.planned import count_workers, jobs_left, measured_seconds, side_by_side
from ensemble.launch.slurm_worker import Worker

OPTION = "--slurm"
# What ens or submitit sets itself.
TAKEN = ("array", "error", "job_name", "nodes", "ntasks", "ntasks_per_node", "open_mode", "output", "signal", "wrap")
MINUTES, LEAST_MINUTES = 240, 30  # of a worker, which is queued again where that was not enough
SIGNAL_SECONDS = 120  # before the time limit
MOST_TIMEOUTS = 10**6  # a worker that gets on is always queued again; `Worker` counts those that don't
ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"
)  # fmt: skip


@dataclass(frozen=True)
class Submission:
    """What is submitted.

    command: the words after `ens` that a worker runs, in the folder where this is started
    run: the run directory that the workers share
    options: of `parse_options`
    minutes: until a worker is queued again
    """

    command: tuple[str, ...]
    run: Path
    options: dict[str, Any]
    minutes: int

    @property
    def folder(self) -> Path:
        """Of scripts and logs."""
        return self.run.absolute() / ".slurm"

    @property
    def name(self) -> str:
        """Of the jobs in SLURM's queue: all workers of the run have it that do the same, and no others."""
        path = self.run.absolute()
        words = () if self.command[0] == "train-folds" else self.command  # however the experiment is named
        digest = hashlib.sha256("\0".join([str(path), *words]).encode()).hexdigest()
        return f"ens-{path.name}-{digest[:8]}"


@dataclass(frozen=True)
class Request:
    """What the user asks of SLURM.

    options: of `parse_options`
    most: workers at most; None: as many as can be used
    prints: whether only the script is shown
    detaches: whether nobody follows the workers
    """

    options: dict[str, Any]
    most: int | None = None
    prints: bool = False
    detaches: bool = False


def read_request(engine: str, slurm: Sequence[str], most: int | None, prints: bool, detaches: bool) -> Request | None:
    """The options of the command line; None on another engine. Raises UserError for what is wrong in them, and for
    options that go with SLURM alone."""
    if engine == "slurm":
        return Request(parse_options(slurm), most, prints, detaches)
    for name, value in {"--slurm": slurm, "--jobs": most, "--print": prints, "--detach": detaches}.items():
        if value:
            raise UserError(f"{name} goes with --on slurm")
    return None


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """The options of sbatch that `--slurm KEY=VALUE` gives, by their long names with "_", as text; "true" is True.

    time: in minutes, int. signal_delay_s: seconds between the signal and the time limit, int, always there. setup:
    lines of shell that come before the worker, always there.

    Raises UserError.
    """
    options: dict[str, Any] = {"signal_delay_s": SIGNAL_SECONDS, "setup": []}
    for text in texts:
        key, equals, value = text.partition("=")
        key, value = key.strip().lstrip("-").replace("-", "_"), value.strip()
        if not (equals and value and re.fullmatch(r"[a-z][a-z0-9_]*", key)):
            raise UserError(f"{OPTION} {text}: must be KEY=VALUE, an option of sbatch, as in {OPTION} time=8:00:00")
        if key in TAKEN:
            raise UserError(f"{OPTION} {text}: ens sets {key.replace('_', '-')} itself; leave it out")
        if key == "setup":
            options["setup"].append(value)
        elif key == "time":
            options["time"] = minutes(value)
        elif key == "signal_delay_s":
            if not value.isdecimal():
                raise UserError(f"{OPTION} {text}: want a number of seconds, as in {OPTION} {key}={SIGNAL_SECONDS}")
            options[key] = int(value)
        else:
            options[key] = True if value == "true" else value
    limit = options.get("time", LEAST_MINUTES)
    if limit * 60 <= options["signal_delay_s"]:
        raise UserError(
            f"{OPTION} time: {limit} minutes are no longer than the {options['signal_delay_s']} seconds before their "
            "end when a worker is asked to stop; give more time, or a smaller signal_delay_s"
        )
    return options


def minutes(text: str) -> int:
    """A time limit in one of SLURM's forms (minutes, minutes:seconds, hours:minutes:seconds, days-hours,
    days-hours:minutes, days-hours:minutes:seconds), in minutes, rounded up. Raises UserError."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if found is None:
        raise UserError(f"{OPTION} time={text}: want minutes, hours:minutes:seconds or days-hours")
    days, *parts = (int(part) if part else 0 for part in found.groups())
    first, second, third = parts
    is_in_hours = found[1] is not None or found[4] is not None
    seconds = first * 3600 + second * 60 + third if is_in_hours else first * 60 + second
    return max(1, -(-(days * 86400 + seconds) // 60))


def gpus(options: dict[str, Any]) -> int:
    """How many GPUs a worker gets by these options."""
    for key in ("gpus", "gpus_per_node", "gpus_per_task", "gres"):
        for part in str(options.get(key, "")).split(","):
            if part and (key != "gres" or part.startswith("gpu")):
                number = part.rsplit(":", 1)[-1]
                return int(number) if number.isdecimal() else 1
    return 0


def cpus(options: dict[str, Any]) -> int:
    """How many cores a worker gets by these options."""
    text = str(options.get("cpus_per_task", ""))
    return int(text) if text.isdecimal() else 1


def require_folder(run: Path) -> None:
    """Raise UserError for a run on an object store: workers share its folder, where submitit keeps what it needs."""
    url = as_url(run) or url_of(run)
    if url is not None:
        raise UserError(
            f"--on slurm: the run {url} is on an object store, and workers of SLURM share a folder; name one that all "
            "nodes mount (run = ...)"
        )


def require_slurm() -> None:
    """Raise UserError where nothing can be submitted."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError(
            "--on slurm: there is no sbatch here: start it where jobs are submitted, on a login node of the cluster "
            "(--print shows the script without one)"
        )


def plan(config: Config, request: Request, command: tuple[str, ...]) -> tuple[Submission, int]:
    """What to submit, and how many workers the jobs that are left can use.

    Without a time the limit is half as much again as the folds took that are done, and a quarter of an hour, where all
    members have such; it is four hours at most, which every worker can have several times.
    """
    jobs, at_a_time = jobs_left(config), jobs_at_a_time(config, request)
    workers = max(1, min(count_workers(len(jobs), at_a_time), request.most or len(jobs)))
    limit, seconds = request.options.get("time"), measured_seconds(jobs)
    if limit is None and seconds is not None:
        in_turn = count_workers(len(jobs), workers * at_a_time)
        limit = min(MINUTES, max(LEAST_MINUTES, round(1.5 * seconds * in_turn / 60) + 15))
    return Submission(command, config.run, request.options, limit or MINUTES), workers


def jobs_at_a_time(config: Config, request: Request) -> int:
    """How many jobs a worker trains side by side on what is asked for it."""
    return side_by_side(config, gpus(request.options), cpus(request.options))


def script(submission: Submission, workers: int) -> str:
    """The batch script of so many workers."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(submission.folder))}"
    shared = _parameters(submission)
    of_slurm = {key.removeprefix("slurm_"): value for key, value in shared.items() if key.startswith("slurm_")}
    text: str = _make_sbatch_string(
        command=command, folder=submission.folder, job_name=submission.name, time=submission.minutes,
        stderr_to_stdout=True, map_count=workers if workers > 1 else None, **of_slurm,
    )  # fmt: skip
    return text


def _parameters(submission: Submission) -> dict[str, Any]:
    """As submitit's AutoExecutor takes them."""
    options = submission.options
    others = {key: value for key, value in options.items() if key not in ("time", "signal_delay_s", "setup")}
    # From SLURM 22.05 on srun does not know what sbatch was asked for, and would give the worker one core of them.
    cores = [f"--cpus-per-task={options['cpus_per_task']}"] if "cpus_per_task" in options else None
    return {
        "name": submission.name,
        "timeout_min": submission.minutes,
        "stderr_to_stdout": True,
        "slurm_signal_delay_s": options["signal_delay_s"],
        "slurm_setup": options["setup"] or None,
        "slurm_srun_args": cores,
        "slurm_additional_parameters": {"requeue": True, **others},  # after a node failed too
    }


def submit(submission: Submission, workers: int, cluster: str = "slurm") -> list[Any]:
    """Submit so many workers. Returns submitit's job of each. cluster: submitit's name of the executor; others than
    "slurm" run the workers here. Raises UserError with what sbatch says if it refuses."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    logging.getLogger("submitit").setLevel(logging.WARNING)  # stdout is for the command's result
    folder, seconds = submission.folder, submission.options["signal_delay_s"]
    folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=MOST_TIMEOUTS)
    executor.update_parameters(**_parameters(submission))
    worker = Worker(submission.command, str(Path.cwd()), str(submission.run.absolute()), seconds)
    try:
        with redirect_stderr(io.StringIO()), executor.batch():  # submitit prints what sbatch says, too
            jobs = [executor.submit(worker) for _ in range(workers)]
    except (FailedJobError, FailedSubmissionError) as error:
        for path in folder.iterdir():
            if re.fullmatch(r"[0-9a-f]{32}\.pkl|\.submission_file_.*", path.name) and not path.is_symlink():
                path.unlink()  # what submitit has prepared
        lines = [line.removeprefix("sbatch: ").removeprefix("error: ").strip() for line in str(error).splitlines()]
        raise UserError(f"sbatch refused the workers: {'; '.join(filter(None, lines))}") from None
    return jobs


def states(submission: Submission) -> dict[str, str] | None:
    """SLURM's state of each worker of the run that it remembers, by its id, whoever submitted it; None if SLURM does
    not answer now."""
    command = ["squeue", "--noheader", "--array", "--states=all", f"--name={submission.name}", "--format=%i|%T"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    rows = (line.strip().partition("|") for line in listed.splitlines() if "|" in line)
    return {name: state for name, _, state in rows}


def is_ended(state: str | None) -> bool:
    """True of a state that SLURM gives to what will not run any more; None: it knows no such job."""
    return state is None or state in ENDED


def ask_to_end(ids_by_state: dict[str, str]) -> None:
    """Cancel the workers of these ids that wait, and ask those that run to end at a safe point (SIGINT, see
    `slurm_worker`)."""
    waiting = [name for name, state in ids_by_state.items() if state == "PENDING"]
    running = [name for name, state in ids_by_state.items() if state != "PENDING" and not is_ended(state)]
    for ids, options in ((waiting, []), (running, ["--signal=INT"])):
        if ids:
            subprocess.run(["scancel", *options, *ids], capture_output=True, check=False)


def result_of(job: Any) -> dict[str, Any] | None:
    """What a worker returned, `status` and `error`; None if there is nothing, since it was killed or has not ended."""
    if not job.paths.result_pickle.exists():
        return None
    error = job.exception()
    if error is not None:
        return {"status": 1, "error": f"it failed; see {job.paths.stdout}"}
    result: dict[str, Any] = job.result()
    return result
