"""How many workers a run can use, from the experiment and the run directory alone."""

from collections.abc import Sequence

from ensemble.config import Config
from ensemble.errors import UserError
from ensemble.plural import pluralize
from ensemble.run import Fold, Run


def jobs_left(config: Config) -> list[Fold]:
    """The backbone x fold jobs that are not done, of a run that need not have begun. Changes nothing."""
    from ensemble.data.folds import read_folds  # scipy, which a wrong command line does without
    from ensemble.data.labelled import read_labelled

    run = Run(config.run)
    if run.folds_csv.is_file():
        count = int(read_folds(run)["fold"].max()) + 1
    elif config.folds.fold is not None and (folds := read_labelled(config).folds) is not None:
        count = int(folds.max()) + 1
    else:
        count = config.folds.k
    jobs = [run.member(backbone.name).fold(number) for backbone in config.backbone for number in range(count)]
    return [job for job in jobs if not job.is_done()]


def side_by_side(config: Config, gpus: int, cpus: int) -> int:
    """How many jobs a worker trains at a time on a machine with so many GPUs and cores: as `choose_slots` there. Raises
    UserError where each job needs more GPUs than that."""
    if isinstance(config.gpus_per_job, int) and 0 < gpus < config.gpus_per_job:
        raise UserError(
            f"gpus_per_job = {config.gpus_per_job}: each worker is to have {pluralize(gpus, 'GPU')}; ask for more, or "
            "lower it"
        )
    if config.workers != "auto":
        return int(config.workers)
    if isinstance(config.gpus_per_job, int):
        return max(1, (gpus or min(2, cpus)) // config.gpus_per_job)
    shares = config.gpus_per_job.removeprefix("1/")  # or "auto", which is known there
    return max(1, gpus * int(shares) if shares.isdecimal() else gpus or min(2, cpus))


def count_workers(jobs: int, at_a_time: int) -> int:
    """How many workers so many jobs can use."""
    return -(-jobs // at_a_time)


def measured_seconds(jobs: Sequence[Fold]) -> float | None:
    """The longest that the training of a fold took so far, of these jobs' members; None where a member has no fold that
    is done."""
    slowest = []
    for member in {job.member for job in jobs}:
        seconds = [fold.read_done().get("seconds") for fold in member.folds() if fold.is_done()]
        slowest.append(max((each for each in seconds if each is not None), default=None))
    known = [each for each in slowest if each is not None]
    return max(known) if known and len(known) == len(slowest) else None
