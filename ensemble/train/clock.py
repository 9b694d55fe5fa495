"""How long the jobs at hand still take."""

import time

from ensemble.progress import duration
from ensemble.run import Fold


class Clock:
    """What is left of each job, in images, and how fast each backbone goes.

    images: to be trained on, per job. rates: images per second of one job, per backbone, as far as they are known
    beforehand. parallel: how many processes work side by side.
    """

    def __init__(self, images: dict[Fold, int], rates: dict[str, float] | None = None, parallel: int = 1) -> None:
        self.left = dict(images)
        self.total = sum(images.values())
        self.expected = dict(rates or {})
        self.parallel = parallel
        self.seconds: dict[str, float] = {}  # per backbone, while training
        self.images: dict[str, int] = {}
        self.last: dict[Fold, float] = {}

    @property
    def done(self) -> int:
        """Images, of all jobs."""
        return self.total - sum(self.left.values())

    def update(self, job: Fold, left: int) -> None:
        """Take in how many images a job has still to train on."""
        now = time.monotonic()
        name = job.member.name
        trained = self.left[job] - left
        if job in self.last and not trained:
            return  # it answers held-out images, which counts in the time that its next step took
        # The first call of a job also spans its start, which is no measure of its speed; nor is a process that was
        # killed, whose job begins an epoch anew.
        if job in self.last and trained > 0:
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last[job]
            self.images[name] = self.images.get(name, 0) + trained
        self.last[job] = now
        self.left[job] = left

    def describe(self, job: Fold) -> str:
        """The speed of a job's backbone and how long all jobs still take, in words; "" as long as it is unknown."""
        rate = self.rates().get(job.member.name)
        return "" if rate is None else f"{rate:.0f} images/s  {duration(self.remaining())} left"

    def rates(self) -> dict[str, float]:
        """Images per second of one process: those seen, else those expected."""
        seen = {name: self.images[name] / self.seconds[name] for name in self.images if self.seconds[name] > 0}
        return self.expected | seen

    def remaining(self) -> float:
        """Seconds; a backbone of unknown speed is taken to be as fast as the mean of the others."""
        rates = self.rates()
        mean = len(rates) / sum(1 / rate for rate in rates.values())
        busy = max(1, min(self.parallel, sum(left > 0 for left in self.left.values())))
        return sum(left / rates.get(job.member.name, mean) for job, left in self.left.items()) / busy
