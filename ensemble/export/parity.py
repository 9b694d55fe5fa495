"""Whether an exported file gives the run's own probabilities: compared on images of the run. Of a cascade every stage
is asked about all of them, and then at which stage each one exits."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ensemble.blend import Blend
from ensemble.data.pixels.preprocess import Decoding
from ensemble.errors import RunFailure, UserError
from ensemble.events import Events
from ensemble.export.formats import Artifact, Probabilities
from ensemble.exported.description import Parity
from ensemble.inference.decode import decoded_squares
from ensemble.inference.member import LoadedMember
from ensemble.inference.predict import CPU_BATCH, Group, forward_views
from ensemble.predictions.early_exit import run_stages
from ensemble.progress import paced
from ensemble.tta.apply import blend_folds

ROWS = 100  # images: not a multiple of the batch, so that two sizes of batch are tried
NEAR = 1e-4  # of a probability: rounding moves it by 1e-6, where no tree and no neighbour is exchanged for another
# Of a small probability: networks are so sure of images that they have seen that a lost view may move none by NEAR.
NEAR_SHARE = 0.1
LEAST = 1e-6  # of a probability: smaller ones count as this
FAR_ROWS = 0.02  # share of the images for which a probability may be further off


def some_files(paths: Sequence[Path]) -> list[Path]:
    """At most ROWS of the files, spread evenly."""
    return [paths[row] for row in np.unique(np.linspace(0, len(paths) - 1, ROWS).round().astype(int))]


def squares_of(files: Sequence[Path], inputs: Mapping[str, Decoding]) -> dict[str, np.ndarray]:
    """uint8 (N, side, side, 3) for each input. Raises UserError that names an unreadable file."""
    squares, _ = decoded_squares(files, list(inputs.values()), torch.device("cpu"))
    return {name: squares[decoding].numpy() for name, decoding in inputs.items()}


def run_probabilities(
    blend: Blend,
    members: Sequence[LoadedMember],
    squares: Mapping[str, np.ndarray],
    inputs: Mapping[str, Decoding],
    events: Events,
) -> np.ndarray:
    """The probabilities that `ens tta-predict` computes in float32, of squares by their names: of each stage of a
    cascade (S, N, C), where a plain blend is one stage."""
    tensors = {decoding: torch.from_numpy(squares[name]) for name, decoding in inputs.items()}
    networks = sum(len(member.eval_models) * len(views) for member, views in zip(members, blend.views, strict=True))
    rows = len(next(iter(squares.values())))
    advance, logits = paced(events, "the run's own probabilities", 0, rows * networks), dict[str, np.ndarray]()

    def times(passes: int) -> Callable[[float], None]:
        return lambda images: advance(images * passes)

    for member, views in zip(members, blend.views, strict=True):
        passes = len(member.eval_models) * len(views)
        group = Group(member.preprocess, views, member.eval_models)
        values = forward_views(group, tensors, CPU_BATCH, torch.device("cpu"), advance=times(passes))
        logits[member.name] = np.concatenate(values)
    stages = []
    for stage, _ in blend.stage_blends:
        places = {name: [blend.trained[name].index(view) for view in views] for name, views in stage.trained.items()}
        stages.append(blend_folds(stage, [logits[name][:, of_views] for name, of_views in places.items()]))
    return np.stack(stages)


def compare(
    blend: Blend, want: np.ndarray, made: Artifact, squares: Mapping[str, np.ndarray], events: Events
) -> Parity:
    """How near the file's probabilities are to `want` (S, N, C), by the engine that is furthest off: whichever is there
    may predict. One that can't read the file is told of, where another can. Raises RunFailure if one is too far off."""
    found: list[Parity] = []
    for name in made.engines:
        try:
            opened = made.opened(name)
        except UserError as error:
            if name == made.engines[-1] and not found:
                raise
            events.message(str(error))
            continue
        found.append(_compared(blend, want, name, opened, squares, events))
    return max(found, key=lambda parity: parity.largest)


def _compared(
    blend: Blend,
    want: np.ndarray,
    engine: str,
    file_probabilities: Probabilities,
    squares: Mapping[str, np.ndarray],
    events: Events,
) -> Parity:
    rows = want.shape[1]
    found = np.empty(want.shape, dtype=np.float32)
    for start in range(0, rows, CPU_BATCH):
        events.progress("the file's probabilities", start, rows)
        part = slice(start, start + CPU_BATCH)
        found[:, part] = file_probabilities({name: pixels[part] for name, pixels in squares.items()})
    events.progress("the file's probabilities", rows, rows)
    apart = np.abs(found - want)
    changed = int((_classes(blend, found) != _classes(blend, want)).any(axis=0).sum())
    parity = Parity(rows, float(apart.max()), changed)
    near = np.minimum(NEAR, NEAR_SHARE * np.maximum(want, LEAST))
    is_far = (~(apart <= near)).any(axis=(0, 2))
    if changed or not np.isfinite(apart).all() or is_far.sum() > max(1, FAR_ROWS * rows):
        raise RunFailure(
            f"by {engine} the file does not give the run's own predictions, and was not kept: of {rows} training "
            f"images it predicts another class for {changed}, and a probability differs by more than {NEAR:g}, or a "
            f"small one by more than a tenth of itself, for {is_far.sum()} (by {parity.largest:.2g} at most)"
        )
    elsewhere = int(_exits_elsewhere(blend, want, found).sum())
    if elsewhere:
        raise RunFailure(
            f"by {engine} the cascade was not kept: {elsewhere} of {rows} training images exit at another stage than "
            "in the run, and not by rounding"
        )
    return parity


def _classes(blend: Blend, probabilities: np.ndarray) -> np.ndarray:
    """What is predicted of probabilities (S, N, C), int64 (S, N)."""
    return np.stack([blend.decide(of_stage) for of_stage in probabilities])


def _exits_elsewhere(blend: Blend, want: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Which images exit at different stages by the two, bool (N,), and not because their confidence is within NEAR of
    the threshold."""
    thresholds = [threshold for _, threshold in blend.stage_blends]
    images = np.arange(want.shape[1])

    def exits(probabilities: np.ndarray) -> np.ndarray:
        return run_stages(thresholds, len(images), lambda stage, rows: np.asarray(probabilities[stage, rows]))

    first = np.minimum(exits(want), exits(found))  # the stage at which they part
    is_tie = np.abs(want[first, images].max(axis=1) - np.array(thresholds)[first]) <= NEAR
    return np.asarray((exits(want) != exits(found)) & ~is_tie)
