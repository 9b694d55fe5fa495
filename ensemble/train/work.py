"""A worker's side of training: one job, from the experiment and the rows to a finished fold.

Every process that trains imports this. It imports no pandas, scikit-learn or scipy, which would take it seconds.
"""

from collections.abc import Callable
from functools import partial

import torch

from ensemble.config import Config, train_settings
from ensemble.device import free_cached_memory, is_out_of_memory, keep_freed_memory
from ensemble.errors import RunFailure
from ensemble.events import Events
from ensemble.files.claims import Claim, ClaimLost, Taken, claimed, claimed_by_parent
from ensemble.launch.elastic import run_in_ranks
from ensemble.launch.jobs import Outcome
from ensemble.launch.ranks import ALONE, Ranks
from ensemble.launch.slots import Slot
from ensemble.run import Fold
from ensemble.train.fit import fit
from ensemble.train.job import Job
from ensemble.train.members import crop_size, make_model, probes
from ensemble.train.numerics import load_numerics
from ensemble.train.pixels import OpenPixels, training_data
from ensemble.train.prepare import allowed_speeds, backbone_named, evaluation_of
from ensemble.train.probe import load_heads
from ensemble.train.rows import Rows
from ensemble.train.teacher import teacher_of


def run_job(config: Config, rows: Rows, open_pixels: OpenPixels, fold: Fold, slot: Slot, events: Events) -> Outcome:
    """Train one fold, wherever it runs: it needs these arguments and the run directory.

    open_pixels: pixels that are open already; what is opened here is added, for the next job of this process.
    """
    fold.path.mkdir(parents=True, exist_ok=True)
    try:
        with claimed(fold.claim_file) as claim:
            if fold.is_done():  # by another process, since the list of jobs was made
                return Outcome(is_locked=True)
            fold.clear_temporaries()
            train = partial(_train, config, rows, open_pixels if slot.processes == 1 else {}, fold, slot)
            if slot.processes == 1:
                return Outcome(seconds=train(ALONE, events))
            work, device = partial(_under, claim, train), torch.device(slot.device)
            return Outcome(seconds=run_in_ranks(work, str(fold), slot.processes, device.type, events))
    except (Taken, ClaimLost):
        return Outcome(is_locked=True)
    except RunFailure as error:
        return Outcome(error=str(error))


def _under(claim: Claim, train: Callable[[Ranks, Events], float], ranks: Ranks, events: Events) -> float:
    """Train as one of the processes that the holder of a claim has started."""
    with claimed_by_parent(claim):
        return train(ranks, events)


def _train(
    config: Config, rows: Rows, open_pixels: OpenPixels, fold: Fold, slot: Slot, ranks: Ranks, events: Events
) -> float:
    """The work of one process of a job. Returns the seconds that the epochs took."""
    device = torch.device(slot.device)
    if device.type == "cuda":
        device = torch.device("cuda", (device.index or 0) + ranks.rank)
        torch.cuda.set_device(device)
        if slot.memory < 1:
            torch.cuda.set_per_process_memory_fraction(slot.memory, device)
    if ranks.count > 1:
        torch.set_num_threads(slot.threads_each)
    keep_freed_memory()
    try:
        job = _job(config, rows, fold, device, ranks)
        return fit(job, training_data(config.data, rows, job.evaluation, open_pixels, events), events)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        free_cached_memory(device)
        raise RunFailure(f"{fold}: out of memory in evaluation; lower tta.batch_size or its image_size") from None


def _job(config: Config, rows: Rows, fold: Fold, device: torch.device, ranks: Ranks) -> Job:
    backbone = backbone_named(config, fold.member.name)
    settings = train_settings(config, backbone)
    head = None
    if probes(settings):
        is_refit = fold.kind == "refit"
        heads = load_heads(fold.member.refit_probe_file if is_refit else fold.member.probe_file)
        number = 0 if is_refit else fold.number  # all refits start from the one probe of all rows
        head = heads.weights[number], heads.biases[number]
    return Job(
        fold=fold,
        create=partial(make_model, config, backbone, len(rows.classes), fold.number),
        settings=settings,
        numerics=load_numerics(fold.member.numerics_json),
        head=head,
        evaluation=evaluation_of(config, backbone, device),
        speeds=allowed_speeds(config, fold.member, rows, device),
        seed=config.seed,
        teacher=teacher_of(fold, len(rows.classes), crop_size(config, backbone), device),
        ranks=ranks,
    )
