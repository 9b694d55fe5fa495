"""The labelled images of an experiment, as training, later views of them and the report see them."""

from ensemble.config import Config
from ensemble.data.corrections import corrected
from ensemble.data.table import Samples, read_samples


def read_labelled(config: Config) -> Samples:
    """What `[data]` names, with the labels that `data.relabel` corrects. Raises UserError as these two do."""
    data = config.data
    samples = read_samples(
        data.train, data.path, data.label, data.id, data.group, config.folds.fold, data.images, data.weight
    )
    return samples if data.relabel is None else corrected(samples, data.relabel)
