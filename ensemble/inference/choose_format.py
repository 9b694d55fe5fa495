"""Which format a fold's network is evaluated in: timed, and checked on rows that the network never saw.

Half precision is faster where the processor has units for it (resnet18: 105 images/s in bfloat16 against 40), but not
for free: on the art paintings seven networks in bfloat16 predicted another class than in float32 for 0.2 to 1.8 % of
the rows, and their log loss moved by up to 0.007. So a faster format is taken for a fold's network only after it was
tried on the rows that the network never saw. Rows whose two largest logits are closer together than the format's errors
reach are computed again in float32; of all rows at most 1 in 1,000 may change its class, and the log loss may move by
at most 0.0005. Other engines than torch pass the same check, in float32 too.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch

from ensemble.device import in_layout, is_out_of_memory, synchronize, without_tf32
from ensemble.errors import UserError
from ensemble.inference.compiled import Compute
from ensemble.inference.eval_model import fast_network, prepared
from ensemble.inference.formats import Inference, inference_in
from ensemble.machine import waited, was_busy

CHANGED, LOSS = 0.001, 0.0005  # the most that a faster format may change: share of the predicted classes, log loss
LEAST_ROWS = 300  # if none of fewer held-out rows changes its class, 1 in 100 other rows still may
REACH = 4.0  # standard deviations of a margin's error: 4 left no class changed in seven networks, 3 one in 1,700
MARGIN = 1.1  # how many times as fast a format has to be, with the rows that are computed again
ROUNDS = 3  # in which formats are timed in turn

Speeds = Mapping[str, float]  # images per second of the formats that this device can compute in


def choose_inference(
    speeds: Speeds,
    exact: np.ndarray,
    compute: Callable[[str], np.ndarray],
    labels: np.ndarray,
    device: torch.device,
) -> tuple[Inference, np.ndarray]:
    """The fastest format that keeps a network's predictions, and its logits float32 (V, N, C), in which rows that were
    too close have been computed again.

    speeds: images per second in each format that may be taken, float32 among them
    exact: float32 (V, N, C), the network's float32 logits of N rows that it never saw
    compute: gives these logits in another format
    labels: int64 (N,)
    """
    best, values = Inference(device.type), exact
    least = MARGIN * speeds["float32"]
    can_tell = np.isfinite(exact).all() and exact.shape[1] >= LEAST_ROWS
    for name in [name for name in speeds if name != "float32"] if can_tell else []:
        if speeds[name] <= least:
            continue
        try:
            fast = compute(name)
        except UserError:  # an engine that can't compute the network at the size of another view
            continue
        if not np.isfinite(fast).all():  # float16 ends at 65,504
            continue
        settle = REACH * _margin_error(fast, exact)
        again = margins(fast) < settle
        merged = np.where(again[..., None], exact, fast)
        changed = float((merged.argmax(-1) != exact.argmax(-1)).mean())
        loss = max(abs(_log_loss(merged[v], labels) - _log_loss(exact[v], labels)) for v in range(len(exact)))
        share = float(again.mean())
        speed = 1 / (1 / speeds[name] + share / speeds["float32"])
        if changed <= CHANGED and loss <= LOSS and speed > least:
            best = replace(inference_in(name, device), settle=settle, again=share, changed=changed, loss=loss)
            values, least = merged, speed
    return best, values


def margins(logits: np.ndarray) -> np.ndarray:
    """Difference between the largest and the second largest of (..., C): (...)."""
    two = np.partition(logits, -2, axis=-1)[..., -2:]
    return np.asarray(two[..., 1] - two[..., 0])


def _margin_error(logits: np.ndarray, exact: np.ndarray) -> float:
    """Root mean square error of the difference between the two largest logits, over all rows."""
    two = np.argpartition(logits, -2, axis=-1)[..., -2:]
    errors = np.diff(np.take_along_axis(logits.astype(np.float64) - exact, two, axis=-1), axis=-1)
    return float(np.sqrt((errors**2).mean()))


def _log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(labels)), labels]).mean())


def find_speeds(
    create: Callable[[], torch.nn.Module],
    image_size: int,
    batch_size: int,
    formats: Sequence[str],
    device: torch.device,
) -> tuple[dict[str, float], bool]:
    """Images per second of a forward pass in each of the formats, float32 among them, the fastest first; and whether
    the machine was busy meanwhile. Formats take turns; of a format's speeds relative to float32, the lowest of all
    rounds counts."""
    begun = waited()
    exact = prepared(create(), Inference(device.type), image_size, device).exact
    noise = torch.randn(batch_size, 3, image_size, image_size, device=device)
    timed: dict[str, list[float]] = {}
    networks: dict[str, Compute] = {}
    for name in formats:
        with suppress(UserError):  # an engine that can't compute the network
            networks[name] = fast_network(exact, inference_in(name, device), image_size) or exact
            timed[name] = []
    for _ in range(ROUNDS):
        for name in list(timed):
            images = in_layout(noise.to(inference_in(name, device).input_dtype))
            try:
                timed[name].append(_speed(networks[name], images))
            except (RuntimeError, UserError) as error:
                if name == "float32" or (isinstance(error, RuntimeError) and is_out_of_memory(error)):
                    raise
                del timed[name]  # this format lacks an operation of the network
    plain = timed["float32"]
    worst = {name: min(a / b for a, b in zip(rounds, plain, strict=True)) for name, rounds in timed.items()}
    speeds = {name: float(f"{max(plain) * ratio:.4g}") for name, ratio in worst.items()}
    return dict(sorted(speeds.items(), key=lambda item: -item[1])), was_busy(begun)


@torch.inference_mode()
def _speed(model: Compute, images: torch.Tensor, passes: int = 2, seconds: float = 0.7) -> float:
    times: list[float] = []
    with without_tf32(images.device):
        model(images)
        synchronize(images.device)
        while len(times) < passes and sum(times) < seconds:
            start = time.perf_counter()
            model(images)
            synchronize(images.device)
            times.append(time.perf_counter() - start)
    return len(images) / min(times)
