"""A worker's side of training: one job, from the experiment and the rows to a finished fold.

Every process that trains imports this. It imports no pandas, scikit-learn or scipy, which would take it seconds.
"""

from functools import partial

import torch

from ensemble.config import Config, train_settings
from ensemble.device import free_cached_memory, is_out_of_memory, keep_freed_memory
from ensemble.errors import RunFailure
from ensemble.events import Events
from ensemble.files.claims import ClaimLost, Taken, claimed
from ensemble.launch.jobs import Outcome
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
    device = torch.device(slot.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    keep_freed_memory()
    fold.path.mkdir(parents=True, exist_ok=True)
    try:
        with claimed(fold.claim_file):
            if fold.is_done():  # by another process, since the list of jobs was made
                return Outcome(is_locked=True)
            fold.clear_temporaries()
            job = _job(config, rows, fold, device)
            data = training_data(config.data, rows, job.evaluation, open_pixels, events)
            return Outcome(seconds=fit(job, data, events))
    except (Taken, ClaimLost):
        return Outcome(is_locked=True)
    except RunFailure as error:
        return Outcome(error=str(error))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        free_cached_memory(device)
        return Outcome(error=f"{fold}: out of memory in evaluation; lower tta.batch_size or its image_size")


def _job(config: Config, rows: Rows, fold: Fold, device: torch.device) -> Job:
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
    )
