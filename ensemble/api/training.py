"""Training from Python."""

from collections.abc import Sequence
from pathlib import Path

from ensemble.api.printing import listening
from ensemble.config import Config, check_backbones, load_config, with_seeds
from ensemble.errors import RunFailure, UserError
from ensemble.events import Events
from ensemble.plural import pluralize
from ensemble.run import Run


def train_folds(experiment: str | Path | Config, *, changes: Sequence[str] = (), events: Events | None = None) -> Run:
    """Train every backbone of an experiment on every fold that its run lacks, as `ens train-folds` does.

    experiment: an experiment file, or a `Config`.
    changes: keys to set in a file first, such as "train.epochs=3".
    events: what listens meanwhile; None prints messages and shows a progress bar.

    Finished folds are left as they are, and an unfinished one goes on from its last epoch: to resume a run that was
    stopped, call it again. Where several processes train side by side, a script has to call it under
    `if __name__ == "__main__":`, since each of them imports the script.

    Raises UserError before anything is trained if the experiment, its data or the run directory does not fit, and
    RunFailure if a job failed; the other jobs are trained all the same.

    >>> run = ens.train_folds("art.toml", events=ens.Silent())
    >>> run.members.index.tolist()
    ['resnet', 'vit']
    """
    from ensemble.train import jobs

    if isinstance(changes, str):
        raise UserError(f"changes: want a list, as in [{changes!r}]")
    if isinstance(experiment, Config):
        check_backbones(experiment)
        experiment = with_seeds(experiment)
    else:
        experiment = load_config(Path(experiment), tuple(changes))
    with listening(events) as listener:
        failures = jobs.train_folds(experiment, listener)
    if failures:
        raise RunFailure(f"{pluralize(len(failures), 'job')} failed: " + "; ".join(failures))
    return Run(experiment.run)
