"""Image files as networks in evaluation see them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ensemble.data.pixels.preprocess import Preprocess
from ensemble.inference.decode import decoded_squares
from ensemble.inference.decodings import decodings
from ensemble.inference.eval_model import EvalModel
from ensemble.inference.member import LoadedMember
from ensemble.inference.network_input import view_of
from ensemble.inference.predict import predict_stream
from ensemble.train.batch_norms import MOST_ROWS

MOST_IMAGES = 512  # training images that averages are compared with ensembles on
CHUNK = 128  # images whose pixels are in memory at once
BATCH = 64  # that batch norms measure at a time


def sample(files: Sequence[Path]) -> list[Path]:
    """At most MOST_ROWS of the files, drawn in an order that depends on nothing else: what batch norms are estimated
    on."""
    return [files[row] for row in np.random.default_rng(0).permutation(len(files))[:MOST_ROWS]]


def normalised(files: Sequence[Path], preprocess: Preprocess, device: torch.device) -> Iterator[torch.Tensor]:
    """Batches float32 (B, 3, S, S) on the device."""
    needed = decodings(preprocess, ("identity",))
    for part in np.array_split(np.arange(len(files)), -(-len(files) // BATCH)):
        squares, _ = decoded_squares([files[row] for row in part], needed, device)
        on_device = {decoding: each.to(device) for decoding, each in squares.items()}
        yield view_of(on_device, preprocess, "identity", slice(None), len(part))


def logits_of_files(
    networks: Sequence[EvalModel],
    files: Sequence[Path],
    preprocess: Preprocess,
    views: Sequence[str],
    batch_size: int,
    device: torch.device,
) -> np.ndarray:
    """float32 (K, V, N, C), by the function that prediction uses. Raises UserError that names an unreadable file."""
    member = LoadedMember("", preprocess, tuple(networks))
    chunks = (files[start : start + CHUNK] for start in range(0, len(files), CHUNK))
    stream = predict_stream([member], chunks, [tuple(views)], batch_size, device)
    return np.concatenate([chunk.values[0] for chunk in stream], axis=2)
