"""Dynamic batching: single images come in, the model is given several at a time, in a thread of its own."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ensemble.serve.metrics import Metrics
from ensemble.serve.model import ImageSquares, ModelAnswer

# Of one image: probabilities float32 (C,), its members' (M, C), and perhaps what is said beside its class, by name.
Answer = tuple[np.ndarray, np.ndarray] | tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]


@dataclass(frozen=True)
class _Waiting:
    """An image that waits for the model. since: when it was decoded, in seconds of the monotonic clock."""

    squares: ImageSquares
    answer: Future[Answer] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batches:
    """The images that wait for the model, and its thread.

    While the model computes, images gather; when it is free, it takes all of them, up to `max_batch`. It waits for more
    only while others are being decoded, and never longer than `max_wait_ms`: a single image goes at once.

    is_answering: whether the model's last batch was answered; False before the first
    """

    def __init__(
        self,
        predict: Callable[[Sequence[ImageSquares]], ModelAnswer],
        max_batch: int,
        max_wait_ms: float,
        metrics: Metrics,
    ) -> None:
        """predict: as that of a `ServedModel`."""
        self.is_answering = False
        self._predict, self._max_batch, self._max_wait, self._metrics = predict, max_batch, max_wait_ms / 1000, metrics
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._decoding = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @contextmanager
    def decoding(self, count: int) -> Iterator[None]:
        """While so many images are decoded, and submitted: the model may wait for them."""
        with self._changed:
            self._decoding += count
        try:
            yield
        finally:
            with self._changed:
                self._decoding -= count
                self._changed.notify()

    def submit(self, images: Sequence[ImageSquares]) -> list[Future[Answer]]:
        """The answers to come. Each raises what the model raised for its batch."""
        items = [_Waiting(squares) for squares in images]
        with self._changed:
            self._waiting.extend(items)
            self._changed.notify()
        return [item.answer for item in items]

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _next(self) -> list[_Waiting]:
        """The next batch; none at the end."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return []
                self._changed.wait()
            latest = self._waiting[0].since + self._max_wait
            while len(self._waiting) < self._max_batch and self._decoding and (left := latest - time.monotonic()) > 0:
                self._changed.wait(left)
            return [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]

    def _work(self) -> None:
        while items := self._next():
            begun = time.monotonic()
            try:
                probabilities, of_members, *said = self._predict([item.squares for item in items])
            except Exception as error:  # whatever a runtime raises: the server goes on
                self.is_answering = False
                for item in items:
                    item.answer.set_exception(error)
                continue
            self.is_answering = True
            self._metrics.batch_size.observe(len(items))
            self._metrics.model.observe(time.monotonic() - begun)
            for row, item in enumerate(items):
                self._metrics.waiting.observe(begun - item.since)
                beside = ({name: values[row] for name, values in columns.items()} for columns in said)
                item.answer.set_result((probabilities[row], of_members[:, row], *beside))
