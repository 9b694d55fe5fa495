"""A fold's network as evaluation and prediction run it: in float32, or in a faster format that was checked against it.

Float32 is computed in channels_last, with every batch norm folded into the convolution before it (mobilenetv3_small_100
at 224 px: 422 images/s on two cores against 325 unfolded, and 136 as timm makes it). Half precision is faster still
where the processor has units for it (resnet18: 105 images/s in bfloat16 against 40), but not for free: on the art
paintings seven networks in bfloat16 predicted another class than in float32 for 0.2 to 1.8 % of the rows, and their log
loss moved by up to 0.007. So a faster format is taken for a fold's network only after it was tried on the rows that the
network never saw. Rows whose two largest logits are closer together than the format's errors reach are computed again
in float32; of all rows at most 1 in 1,000 may change its class, and the log loss may move by at most 0.0005.
"""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ensemble.backbones import timm_model
from ensemble.device import in_layout, is_out_of_memory, synchronize, to_device, without_tf32
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.machine import waited, was_busy

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CHANGED, LOSS = 0.001, 0.0005  # the most that a faster format may change: share of the predicted classes, log loss
LEAST_ROWS = 300  # if none of fewer held-out rows changes its class, 1 in 100 other rows still may
REACH = 4.0  # standard deviations of a margin's error: 4 left no class changed in seven networks, 3 one in 1,700
MARGIN = 1.1  # how many times as fast a format has to be, with the rows that are computed again
ROUNDS = 3  # in which formats are timed in turn

Speeds = Mapping[str, float]  # images per second of the formats that this device can compute in


@dataclass(frozen=True)
class Inference:
    """The number format that a fold's network is computed in on one kind of device.

    device: torch's type of the device
    dtype: float32, or a faster format
    settle: rows whose two largest logits differ by less are computed again in float32
    again: share of the held-out rows for which that was so
    changed: share of the held-out rows whose predicted class the format changed
    loss: by how much it moved their log loss, nats
    """

    device: str = ""
    dtype: str = "float32"
    settle: float = 0.0
    again: float = 0.0
    changed: float = 0.0
    loss: float = 0.0


@dataclass(frozen=True)
class EvalModel:
    """A network in evaluation, ready to predict.

    inference: the format that it is computed in
    exact: the network in float32
    fast: the network in `inference.dtype`; None where that is float32
    heads: classifiers of K folds on the one network, from features (B, D) to logits (B, C); None where the network has
        its own
    """

    inference: Inference
    exact: torch.nn.Module
    fast: torch.nn.Module | None = None
    heads: tuple[torch.nn.Module, ...] | None = None

    @property
    def outputs(self) -> int:
        """K, of how many folds it gives the logits."""
        return 1 if self.heads is None else len(self.heads)


def logits_of(eval_model: EvalModel, images: torch.Tensor) -> torch.Tensor:
    """Logits float32 (K, B, C) of normalised images (B, 3, H, W), in the images' number format. K is
    `eval_model.outputs`."""
    if eval_model.heads is not None:
        features = timm_model.embed(eval_model.exact, images)
        return torch.stack([head(features) for head in eval_model.heads])
    if eval_model.fast is not None and images.dtype != torch.float32:
        return eval_model.fast(images)[None].float()  # type: ignore[no-any-return]
    return timm_model.logits(eval_model.exact, images)[None]


def load_inference(path: Path, device: torch.device) -> Inference:
    """The format that was chosen for a fold, if it was for this kind of device; else float32. Raises UserError that
    names a file that can't be read."""
    if not path.is_file():
        return Inference(device.type)
    stored = read_json(path, Inference, "delete it: float32 is used then")
    fits = stored.device == device.type and stored.dtype in formats(device)
    return stored if fits else Inference(device.type)


def save_inference(path: Path, inference: Inference) -> None:
    write_json(path, asdict(inference))


def prepared(model: torch.nn.Module, inference: Inference, image_size: int, device: torch.device) -> EvalModel:
    """A copy of a trained network, in the form in which it evaluates fastest in this format."""
    exact = to_device(folded(model, image_size), device).eval().requires_grad_(False)
    return EvalModel(
        inference, exact, None if inference.dtype == "float32" else half_precision_copy(exact, inference.dtype)
    )


def half_precision_copy(exact: torch.nn.Module, dtype: str) -> torch.nn.Module:
    """A copy that computes in `dtype`, but for its classifier, which stays in float32: a bfloat16 logit between 8 and
    16 would be a multiple of 1/16, so that classes would tie and temperatures be fitted to the rounding."""
    fast = copy.deepcopy(exact).to(DTYPES[dtype])
    for layer in timm_model.classifiers(fast):
        layer.float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    return fast


def folded(model: torch.nn.Module, image_size: int) -> torch.nn.Module:
    """A copy in evaluation with every batch norm folded into the convolution that feeds it and nothing else; an equal
    copy where the outputs would differ by more than rounding (an architecture that uses a convolution's output twice).
    """
    plain = copy.deepcopy(model).cpu().eval()  # a GPU's last bits differ, and training folds as prediction does
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, image_size, image_size, generator=draw)
    with torch.no_grad():  # not inference_mode: the folded weights would be marked for ever
        fused = copy.deepcopy(plain)
        for layer in timm_model.classifiers(fused):  # a new classifier is all zeros, and hides what comes before
            for parameter in layer.parameters():
                parameter.normal_(generator=draw)
        pairs, want = _pairs(fused, noise)
        if not pairs:
            return plain
        for conv, norm in pairs:
            _fold(fused, conv, norm)
        got = fused(noise)
        for layer, trained in zip(timm_model.classifiers(fused), timm_model.classifiers(plain), strict=True):
            layer.load_state_dict(trained.state_dict())
    scale = want.abs().max().clamp(min=1e-6)
    return fused if bool((got - want).abs().max() < 1e-3 * scale) else plain


def _pairs(model: torch.nn.Module, images: torch.Tensor) -> tuple[list[tuple[str, str]], torch.Tensor]:
    """Names of the convolutions whose output was handed on to a batch norm, and of that; and the model's output.

    Seen in one pass, since the order in which modules are named is not the one in which they run.
    """
    made: dict[int, tuple[str, torch.Tensor]] = {}  # tensors are kept, so that no id is used again
    calls: dict[str, int] = {}
    found: dict[str, str] = {}
    hooks = []

    def conv_hook(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            made[id(output)] = (name, output)

        return hook

    def norm_hook(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
            calls[name] = calls.get(name, 0) + 1
            if id(inputs[0]) in made:
                found[made[id(inputs[0])][0]] = name

        return hook

    for name, module in model.named_modules():
        if type(module) in (torch.nn.Conv1d, torch.nn.Conv2d):
            hooks.append(module.register_forward_hook(conv_hook(name)))
        elif isinstance(module, _BatchNorm) and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(norm_hook(name)))
    output = model(images)
    for hook in hooks:
        hook.remove()
    return [(conv, norm) for conv, norm in found.items() if calls[conv] == calls[norm] == 1], output


def _fold(model: torch.nn.Module, conv: str, norm: str) -> None:
    old = model.get_submodule(norm)
    assert isinstance(old, _BatchNorm)
    if old.weight is None:  # without scale and shift
        old.weight = torch.nn.Parameter(torch.ones_like(old.running_mean))
        old.bias = torch.nn.Parameter(torch.zeros_like(old.running_mean))
    fused = fuse_conv_bn_eval(model.get_submodule(conv), old)  # type: ignore[type-var]
    model.set_submodule(conv, fused)
    # timm's batch norms hold the activation that follows them
    model.set_submodule(norm, getattr(old, "act", None) or torch.nn.Identity())


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
    for dtype in [name for name in speeds if name != "float32"] if can_tell else []:
        if speeds[dtype] <= least:
            continue
        fast = compute(dtype)
        if not np.isfinite(fast).all():  # float16 ends at 65,504
            continue
        settle = REACH * _margin_error(fast, exact)
        again = margins(fast) < settle
        merged = np.where(again[..., None], exact, fast)
        changed = float((merged.argmax(-1) != exact.argmax(-1)).mean())
        loss = max(abs(_log_loss(merged[v], labels) - _log_loss(exact[v], labels)) for v in range(len(exact)))
        share = float(again.mean())
        speed = 1 / (1 / speeds[dtype] + share / speeds["float32"])
        if changed <= CHANGED and loss <= LOSS and speed > least:
            best = Inference(device.type, dtype, settle, share, changed, loss)
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
    create: Callable[[], torch.nn.Module], image_size: int, batch_size: int, device: torch.device
) -> tuple[dict[str, float], bool]:
    """Images per second of a forward pass in each format that the device has units for, the fastest first; and whether
    the machine was busy meanwhile. Formats take turns; of a format's speeds relative to float32, the lowest of all
    rounds counts."""
    begun = waited()
    exact = prepared(create(), Inference(device.type), image_size, device).exact
    noise = torch.randn(batch_size, 3, image_size, image_size, device=device)
    models = {dtype: exact if dtype == "float32" else half_precision_copy(exact, dtype) for dtype in formats(device)}
    timed: dict[str, list[float]] = {dtype: [] for dtype in models}
    for _ in range(ROUNDS):
        for dtype in list(timed):
            try:
                timed[dtype].append(_speed(models[dtype], in_layout(noise.to(DTYPES[dtype]))))
            except RuntimeError as error:
                if dtype == "float32" or is_out_of_memory(error):
                    raise
                del timed[dtype]  # this format lacks an operation of the network
    plain = timed["float32"]
    worst = {dtype: min(a / b for a, b in zip(rounds, plain, strict=True)) for dtype, rounds in timed.items()}
    speeds = {dtype: float(f"{max(plain) * ratio:.4g}") for dtype, ratio in worst.items()}
    return dict(sorted(speeds.items(), key=lambda item: -item[1])), was_busy(begun)


def formats(device: torch.device) -> list[str]:
    """The formats to try: float32, and half precision where the device has units for it, on GPUs float16 (10 bits of
    fraction) before bfloat16 (7). PyTorch computes bfloat16 on any CPU, but without such units slower than float32."""
    if device.type == "cuda":
        half = torch.cuda.is_bf16_supported(including_emulation=False)
        return ["float32", "float16", "bfloat16"] if half else ["float32", "float16"]
    onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return ["float32", "bfloat16"]
    return ["float32"]


@torch.inference_mode()
def _speed(model: torch.nn.Module, images: torch.Tensor, passes: int = 2, seconds: float = 0.7) -> float:
    times: list[float] = []
    with without_tf32(images.device):
        model(images)
        while len(times) < passes and sum(times) < seconds:
            start = time.perf_counter()
            model(images)
            synchronize(images.device)
            times.append(time.perf_counter() - start)
    return len(images) / min(times)
