"""How long a backbone's fine-tuning takes on this machine, from timed steps."""

from ensemble.config import Backbone, Config, train_settings
from ensemble.device import choose_device
from ensemble.events import Events
from ensemble.inference.formats import formats
from ensemble.launch.slots import choose_slots
from ensemble.scout.plan import OVERHEAD, Seconds
from ensemble.train.fit import scored_epochs
from ensemble.train.members import image_size, probes
from ensemble.train.prepare import forward_speeds, training_numerics
from ensemble.train.rows import Rows


def forecaster(config: Config, rows: Rows, events: Events) -> Seconds:
    """A function that forecasts the seconds of all folds of a backbone of the config. Each backbone is timed when it is
    first asked for, with the settings that training finds; training then takes over what was found."""
    device = choose_device()
    slots = choose_slots(config.workers, device, rows.fold_count, config.gpus_per_job)
    speeds: dict[str, tuple[float, float]] = {}  # images per second of a process in training, of a core in evaluation

    def timed(backbone: Backbone) -> tuple[float, float]:
        if backbone.name not in speeds:
            found = training_numerics(config, backbone, rows, device, slots[0].threads_each, events)
            forward = forward_speeds(config, backbone, device, events, formats(device))["float32"]
            speeds[backbone.name] = found.images_per_second, forward
        return speeds[backbone.name]

    def seconds(backbone: Backbone, size: int, epochs: int) -> float:
        settings = train_settings(config, backbone)
        training, forward = timed(backbone)
        validated = int((rows.folds >= 0).sum())
        trained = epochs * sum(len(rows.train_rows(fold)) for fold in range(rows.fold_count))
        # At the end all views, in float32 and in a faster format; before, the image as it is after some epochs.
        passes = 2 * len(config.tta.views) + len(scored_epochs(epochs, settings.keep))
        passes += len(config.tta.views) * probes(settings)
        cores, processes = len(slots) * slots[0].threads, len(slots) * slots[0].processes
        usual = trained / training / processes + validated * passes / forward / cores
        return OVERHEAD * usual * (size / image_size(config, backbone)) ** 2

    return seconds
