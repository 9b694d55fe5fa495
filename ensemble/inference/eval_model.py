"""A fold's network as evaluation and prediction run it: in float32, or in a faster format that was checked against it
(ensemble/inference/choose_format.py).

Float32 is computed in channels_last, with every batch norm folded into the convolution before it (mobilenetv3_small_100
at 224 px: 422 images/s on two cores against 325 unfolded, and 136 as timm makes it).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ensemble.backbones import timm_model
from ensemble.device import to_device
from ensemble.inference.compiled import Compute, compile_network
from ensemble.inference.formats import DTYPES, Inference


@dataclass(frozen=True)
class EvalModel:
    """A network in evaluation, ready to predict.

    inference: the format that it is computed in
    exact: the network in float32
    fast: the network in `inference.format`; None where that is float32
    heads: classifiers of K folds on the one network, from features (B, D) to logits (B, C); None where the network has
        its own
    """

    inference: Inference
    exact: torch.nn.Module
    fast: Compute | None = None
    heads: tuple[torch.nn.Module, ...] | None = None

    @property
    def outputs(self) -> int:
        """K, of how many folds it gives the logits."""
        return 1 if self.heads is None else len(self.heads)


def logits_of(eval_model: EvalModel, images: torch.Tensor) -> torch.Tensor:
    """Logits float32 (K, B, C) of normalised images (B, 3, H, W), in the images' number format, which is
    `inference.input_dtype`, or float32. K is `eval_model.outputs`."""
    if eval_model.heads is not None:
        features = timm_model.embed(eval_model.exact, images)
        return torch.stack([head(features) for head in eval_model.heads])
    if eval_model.fast is not None and images.dtype == eval_model.inference.input_dtype:
        return eval_model.fast(images)[None].float()
    return exact_logits_of(eval_model, images)


def exact_logits_of(eval_model: EvalModel, images: torch.Tensor) -> torch.Tensor:
    """As `logits_of`, of a network with a classifier of its own, computed in float32 by torch."""
    return timm_model.logits(eval_model.exact, images)[None]


def prepared(model: torch.nn.Module, inference: Inference, image_size: int, device: torch.device) -> EvalModel:
    """A copy of a trained network, in the form in which it evaluates fastest in this format. Raises UserError if its
    engine can't compute it."""
    exact = to_device(folded(model, image_size), device).eval().requires_grad_(False)
    return EvalModel(inference, exact, fast_network(exact, inference, image_size))


def fast_network(exact: torch.nn.Module, inference: Inference, image_size: int) -> Compute | None:
    """What computes the logits in this format; None where that is the network itself. Raises as `prepared` does."""
    if inference.engine != "torch":
        return compile_network(exact, inference.engine, inference.dtype, image_size)
    return None if inference.dtype == "float32" else half_precision_copy(exact, inference.dtype)


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
