"""How long the jobs at hand still take."""

import time

from ensemble.progress import Show, duration

Job = tuple[str, int]  # member and fold


class Clock:
    """What is left of each job, in images, and how fast each backbone goes.

    images: to be trained on, per job. rates: images per second of one process, per backbone, as far as they are known
    beforehand. parallel: how many processes work side by side.
    """

    def __init__(self, images: dict[Job, int], rates: dict[str, float] | None = None, parallel: int = 1) -> None:
        self.left = dict(images)
        self.total = sum(images.values())
        self.expected = dict(rates or {})
        self.parallel = parallel
        self.seconds: dict[str, float] = {}  # per backbone, while training
        self.images: dict[str, int] = {}
        self.last: dict[Job, float] = {}

    def report(self, show: Show, job: Job, text: str, loss: float, images: int, left: int) -> None:
        """Show a job's progress. images: trained since the last call. left: still to train in this job."""
        now = time.monotonic()
        name = job[0]
        if job in self.last:  # the first call of a job also spans its start, which is no measure of its speed
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last[job]
            self.images[name] = self.images.get(name, 0) + images
        self.last[job] = now
        self.left[job] = left
        done = self.total - sum(self.left.values())
        rates = self.rates()
        if name in rates:
            text = f"{text}  loss {loss:.3f}  {rates[name]:.0f} images/s  {duration(self.remaining())} left"
        show(text, done, self.total)

    def rates(self) -> dict[str, float]:
        """Images per second of one process: those seen, else those expected."""
        seen = {name: self.images[name] / self.seconds[name] for name in self.images if self.seconds[name] > 0}
        return self.expected | seen

    def remaining(self) -> float:
        """Seconds; a backbone of unknown speed is taken to be as fast as the mean of the others."""
        rates = self.rates()
        mean = len(rates) / sum(1 / rate for rate in rates.values())
        busy = max(1, min(self.parallel, sum(left > 0 for left in self.left.values())))
        return sum(left / rates.get(name, mean) for (name, _), left in self.left.items()) / busy
