"""Events that are kept, for a test to look at."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Recorder:
    """messages: the lines. steps: (text, done, total). epochs: (member, fold, line of the log). jobs: (member, fold,
    seconds, error). on_progress: called as `progress` is, for a test that stops or meddles there."""

    messages: list = field(default_factory=list)
    steps: list = field(default_factory=list)
    epochs: list = field(default_factory=list)
    jobs: list = field(default_factory=list)
    on_progress: Callable = lambda text, done, total: None

    def message(self, line):
        self.messages.append(line)

    def progress(self, text, done, total):
        self.steps.append((text, done, total))
        self.on_progress(text, done, total)

    def epoch_finished(self, member, fold, epoch):
        self.epochs.append((member, fold, epoch))

    def job_finished(self, member, fold, seconds, error):
        self.jobs.append((member, fold, seconds, error))
