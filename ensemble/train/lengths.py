"""How long the jobs of an experiment are."""

from ensemble.config import Config, Train, train_settings
from ensemble.run import Fold
from ensemble.train.prepare import backbone_named
from ensemble.train.rows import Rows


def settings_of(config: Config, job: Fold) -> Train:
    """How the job is trained."""
    return train_settings(config, backbone_named(config, job.member.name))


def images_of(config: Config, rows: Rows, job: Fold) -> int:
    """How many images a job trains on in all its epochs."""
    return len(rows.train_rows(job.number)) * settings_of(config, job).epochs
