"""The labelled images of an experiment, as training, later views of them and the report see them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from ensemble.config import Config
from ensemble.data.corrections import corrected
from ensemble.data.name_groups import FROM_NAMES, grouped_by_name
from ensemble.data.samples import Samples, read_class_folders, read_samples, refuse_columns
from ensemble.data.unpacked.local import as_local, image_folder, refuse_several_tables
from ensemble.errors import UserError
from ensemble.events import SILENT, Events
from ensemble.files.reading import read_json
from ensemble.run import Run


def read_labelled(config: Config, events: Events = SILENT) -> Samples:
    """What `[data]` names, with the labels that `data.relabel` corrects, and its classes in the order that the run has
    stored, if it is begun. events: hears of what is unpacked or fetched. Raises UserError as these two do."""
    data = config.data
    train = as_local(data.train, events, with_images=data.images is None)
    if data.classes and not train.is_dir():
        raise UserError(f"data.classes names folders, but {data.train} is a table; take the key out")
    group = None if data.group == FROM_NAMES else data.group
    if train.is_dir():
        refuse_columns(train, group, config.folds.fold, data.weight)
        refuse_several_tables(train)
        samples = read_class_folders(train, data.classes)
    else:
        samples = read_samples(
            train,
            data.path,
            data.label,
            data.id,
            group,
            config.folds.fold,
            image_folder(data.images, events),
            data.weight,
        )
    if data.group == FROM_NAMES:
        samples = grouped_by_name(samples, names_base(config))
    samples = samples if data.relabel is None else corrected(samples, data.relabel)
    run = Run(config.run)
    return _in_order_of(samples, _stored_classes(run)) if run.is_begun() else samples


def names_base(config: Config) -> Path:
    """The folder that the images' names are seen from."""
    train = as_local(config.data.train, with_images=config.data.images is None)
    return train if train.is_dir() else image_folder(config.data.images) or train.parent


def _stored_classes(run: Run) -> tuple[str, ...]:
    """In the order of the run; of a file that is damaged or missing `open_run` says so, and writes it again."""
    readers: tuple[Callable[[], list[str]], ...] = (
        run.read_classes,
        lambda: run.read_provenance()["facts"]["classes"],
        lambda: read_json(run.classes_json, list[str]),  # where it is provenance.json that is damaged
    )
    for read in readers:
        with suppress(UserError, KeyError):
            return tuple(read())
    return ()


def _in_order_of(samples: Samples, stored: tuple[str, ...]) -> Samples:
    """The samples with the order of classes that the run's networks were trained with: an older ens had 10.0 before
    2.0. Of other classes than the run's, for which `open_run` says what is wrong, they stay as they are."""
    if samples.classes == stored or sorted(samples.classes) != sorted(stored):
        return samples
    assert samples.labels is not None
    place = np.array([stored.index(name) for name in samples.classes])
    return replace(samples, classes=stored, labels=place[samples.labels])
