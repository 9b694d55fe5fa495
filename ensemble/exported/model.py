"""A blend that `ens export` wrote as one ONNX file: opened, checked, and asked for probabilities."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ensemble.data.pixels.decode import Source, decode_each, middle_square, middle_squares
from ensemble.errors import UserError
from ensemble.exported import seal
from ensemble.exported.cascade import open_cascade
from ensemble.exported.cascade_description import is_cascade
from ensemble.exported.description import Description, parse_description
from ensemble.exported.engines import OUTPUTS, Engine, choose_engine, open_engine
from ensemble.machine import cores, threads_allowed
from ensemble.plural import pluralize
from ensemble.predictions.images import Images, OneImage, Prediction, named_images, source_of
from ensemble.scoring.row_values import cheapest

Item = TypeVar("Item")

BATCH = 16  # images that are computed at a time; more is no faster on a CPU
AHEAD = 4  # batches that are decoded or being decoded while one is computed


@dataclass(frozen=True)
class ExportedModel:
    """An exported file, or the folder of an exported cascade, that is ready to predict. It is what `ensemble.load`
    gives for one.

    path: the ONNX file, or the folder
    description: what it says of itself: classes, members, scores, how images are decoded
    digest: hex digits, of all its bytes
    engine: what computes it
    """

    path: Path
    description: Description
    digest: str
    engine: Engine

    @property
    def classes(self) -> tuple[str, ...]:
        return self.description.classes

    def summary(self) -> str:
        """The blend, its networks and what computes them, in words."""
        about, engine = self.description, self.engine
        networks = sum(member.networks for member in about.members.values())
        of = f"{pluralize(len(about.members), 'member')}, {pluralize(networks, 'network')} in all"
        return f"blend {about.blend} of {of}; by {engine} on {pluralize(engine.threads, 'thread')}"

    def decode(self, source: OneImage | bytes, name: str = "image") -> dict[str, np.ndarray]:
        """The squares that the graph takes of one image, by the names of its inputs: uint8 (side, side, 3).

        source: the bytes of an image file, its path, a PIL image, or an array uint8 (H, W, 3) or (H, W)
        name: of the image in errors; a file's is its path

        Raises UserError for what is no image that ens reads.
        """
        decodings = list(self.description.inputs.values())
        if isinstance(source, bytes):
            if not source:
                raise UserError(f"{name}: empty")
            squares = [middle_square(image) for image in decode_each(Path(name), source, decodings)]
        else:
            images = named_images(source, name)
            if len(images) > 1:
                raise UserError(f"{name}: {len(images)} images; give one at a time")
            squares = middle_squares(source_of(images[0][1], name), decodings)
        return dict(zip(self.description.inputs, squares, strict=True))

    def probabilities(self, squares: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The blend's probabilities, float32 (N, C), and those of each member by itself, float32 (M, N, C), NaN where
        an image exited from a cascade before it came to the member.

        squares: for each input uint8 (N, side, side, 3), as `decode` gives them. May be called from several threads.
        Raises ValueError for other inputs, shapes or types.
        """
        sides = {name: decoding.size or 0 for name, decoding in self.description.inputs.items()}
        count = len(next(iter(squares.values()), ()))
        wanted = {name: (count, side, side, 3) for name, side in sides.items()}
        found = {name: array.shape for name, array in squares.items()}
        if found != wanted or any(array.dtype != np.uint8 for array in squares.values()):
            raise ValueError(f"squares are {found}, want uint8 {wanted}")
        if count == 0:
            shape = (0, len(self.classes))
            return np.empty(shape, np.float32), np.empty((len(self.description.members), *shape), np.float32)
        whole = {name: np.ascontiguousarray(array) for name, array in squares.items()}
        probabilities, of_members = self.engine.compute(whole)
        return probabilities, of_members

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """The class that each row of probabilities (N, C) is decided for, int64 (N,): the most probable one or, where
        the blend knows what mistakes cost, that of the least expected cost."""
        costs = self.costs
        return probabilities.argmax(axis=1) if costs is None else cheapest(probabilities, costs)

    @property
    def costs(self) -> np.ndarray | None:
        """float64 (C, C), what it costs to predict the column's class for an image of the row's; None without."""
        costs = self.description.costs
        return None if costs is None else np.array(costs, dtype=np.float64)

    def predict(self, images: Images) -> Prediction:
        """As `ensemble.predict` does."""
        named = named_images(images)
        batches = ([source_of(image, name) for name, image in part] for part in _parts(named))
        probabilities = np.concatenate([values for values, _ in self.stream(batches, "error")])
        return Prediction(probabilities, self.classes, [self.classes[best] for best in self.decide(probabilities)])

    def predict_files(self, files: Sequence[Path], on_bad: str) -> tuple[np.ndarray, dict[int, str]]:
        """Probabilities of N image files, float32 (N, C), NaN in rows that could not be read, and for each such row the
        reason. on_bad: "error" raises UserError that names the file instead."""
        values: list[np.ndarray] = []
        unreadable: dict[int, str] = {}
        for start, (part, reasons) in enumerate(self.stream(_parts(files), on_bad)):
            values.append(part)
            unreadable |= {start * BATCH + row: reason for row, reason in reasons.items()}
        return np.concatenate(values), unreadable

    def stream(
        self, batches: Iterable[Sequence[Source]], on_bad: str
    ) -> Generator[tuple[np.ndarray, dict[int, str]], None, None]:
        """For each batch its probabilities and the reasons for unreadable rows, as `predict_files` gives them. Threads
        decode a few batches ahead of the one that is computed, so memory is bounded by their size."""
        decodings = list(self.description.inputs.values())
        waiting: deque[list[Future[list[np.ndarray]]]] = deque()
        pool = ThreadPoolExecutor(cores())
        try:
            for batch in batches:
                waiting.append([pool.submit(middle_squares, source, decodings) for source in batch])
                if len(waiting) >= AHEAD:
                    yield self._answer(waiting.popleft(), on_bad)
            while waiting:
                yield self._answer(waiting.popleft(), on_bad)
        finally:
            pool.shutdown(cancel_futures=True)

    def _answer(self, batch: Sequence[Future[list[np.ndarray]]], on_bad: str) -> tuple[np.ndarray, dict[int, str]]:
        sides = [decoding.size or 0 for decoding in self.description.inputs.values()]
        arrays = [np.zeros((len(batch), side, side, 3), dtype=np.uint8) for side in sides]
        unreadable: dict[int, str] = {}
        for row, decoded in enumerate(batch):
            try:
                for array, square in zip(arrays, decoded.result(), strict=True):
                    array[row] = square
            except UserError as error:
                if on_bad == "error":
                    raise
                unreadable[row] = str(error)
        probabilities, _ = self.probabilities(dict(zip(self.description.inputs, arrays, strict=True)))
        probabilities[list(unreadable)] = np.nan
        return probabilities, unreadable


def load_exported(
    path: str | Path, threads: int | None = None, engine: str = "auto", at_once: bool = True
) -> ExportedModel:
    """Open what `ens export` wrote, ready to predict.

    path: a file, or the folder of a cascade
    threads: to compute with; None for OMP_NUM_THREADS or, where that is not set, all cores
    engine: "openvino", "onnxruntime", or "auto" for the first of these that is installed
    at_once: of a cascade: whether all networks are opened now, else when an image first comes to them

    Raises UserError for what is not whole, not of ens or of a newer format, and where no engine is installed.
    """
    path = Path(path)
    threads = threads or threads_allowed() or cores()
    if is_cascade(path):
        cascade, digest, computed = open_cascade(path, choose_engine(engine, path), threads, at_once)
        return ExportedModel(path, cascade.description, digest, computed)
    seal.check(path)
    metadata = seal.read_metadata(path)
    description = parse_description(metadata, str(path))
    opened = open_engine(choose_engine(engine, path), path, OUTPUTS, threads, description.dtype)
    return ExportedModel(path, description, metadata[seal.DIGEST_KEY], opened)


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
