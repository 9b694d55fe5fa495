"""timm backbones: creating them, their weights, preprocessing and classifiers. No other room imports timm."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.layers import DropPath

from ensemble.backbones.checkpoints import load_checkpoint
from ensemble.backbones.weights import read_state as read_state
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.device import without_tf32
from ensemble.errors import UserError


def check_name(name: str) -> None:
    """Raise UserError, offering the nearest names, unless timm knows the architecture (and its pretrained tag)."""
    if "/" in name or ":" in name:
        raise UserError(
            f"timm model {name!r}: of the hub's repositories ens knows only timm's (timm/NAME, hf-hub:timm/NAME); for "
            "another, or a folder, download its weights, and name its architecture as timm and the file as weights"
        )
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        raise UserError(f"unknown timm model {name!r}" + (f"; nearest: {', '.join(near)}" if near else ""))
    known = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in known:
        raise UserError(f"timm has no weights {name!r}; for {architecture} it has: {', '.join(known) or 'none'}")


def create(
    name: str,
    classes: int,
    image_size: int,
    pretrained: bool = False,
    weights: Path | None = None,
    drop_path: float = 0.0,
    on_loaded: Callable[[str], None] | None = None,
) -> torch.nn.Module:
    """A backbone with a fresh classifier of `classes` outputs.

    image_size: in pixels, for architectures whose parameters depend on it
    pretrained: start from timm's hub weights
    weights: start from this file instead, as `load_checkpoint` reads it; without both, from scratch
    drop_path: stochastic depth (Huang et al., Deep networks with stochastic depth, ECCV 2016): the last block's
        probability to be skipped for an image in training, which falls linearly to 0 at the first block. With 0 the
        architecture keeps its default, which is above 0 for a few (fasternet, nextvit, tiny_vit)
    on_loaded: called with a line on what of the file was loaded and what was not

    A classifier in the weights is never loaded: the new one starts at zero on trained features. Raises UserError if the
    file, its shapes or the hub fail, or if the architecture has no stochastic depth.
    """
    check_name(name)
    options: dict[str, Any] = {"num_classes": classes}
    if has_fixed_size(name):
        options["img_size"] = image_size  # swin, vit: windows and position embeddings depend on it
    if drop_path:
        options["drop_path_rate"] = drop_path
    try:
        model: torch.nn.Module = timm.create_model(name, pretrained=pretrained and weights is None, **options)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise UserError(_NO_DROP_PATH.format(name, drop_path)) from None
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        if not pretrained or weights is not None:
            raise UserError(f"timm could not make {name!r} at {image_size} px: {_line(error)}") from None
        raise UserError(
            f"the pretrained weights of {name!r} could not be loaded ({_line(error)}); name a local file with "
            "weights = ..., or train from scratch with pretrained = false"
        ) from None
    if drop_path and not _drops_paths(model, name, image_size):
        raise UserError(_NO_DROP_PATH.format(name, drop_path))
    if weights is not None:
        line = load_checkpoint(model, weights, name, classifier_names(model))
        if on_loaded is not None:
            on_loaded(line)
    if pretrained or weights is not None:
        # A random classifier on trained features starts at a loss of 7, and its gradients spoil the features: on art
        # paintings (tf_mobilenetv3_large_minimal_100, 160 px, 4 epochs, one fold) 82.7% against 90.3% from zeros.
        for head in classifier_names(model):
            for parameter in model.get_submodule(head).parameters():
                torch.nn.init.zeros_(parameter)
    return model


_NO_DROP_PATH = "{!r} takes no drop_path (now {:g}): timm has no stochastic depth for it; set it to 0"


def _drops_paths(model: torch.nn.Module, name: str, image_size: int) -> bool:
    """False for a network that takes the rate and never uses it, which only a forward pass can tell: blocks without a
    shortcut (all of MobileNetV1's and LCNet's) hold the module all the same. Raises UserError if the pass fails."""
    used: list[torch.nn.Module] = []
    drops = [module for module in model.modules() if isinstance(module, DropPath) and module.drop_prob]
    hooks = [module.register_forward_hook(lambda module, *_: used.append(module)) for module in drops]
    problem = problem_at(model.eval(), image_size)
    model.train()
    for hook in hooks:
        hook.remove()
    if problem is not None:
        raise UserError(f"{name!r} does not work at image_size = {image_size}: {problem}")
    return bool(used)


def problem_at(model: torch.nn.Module, image_size: int) -> str | None:
    """Why a network in evaluation takes no images of this size, in a line; None if it does. It is tried."""
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        return _line(error)
    return None


def has_fixed_size(name: str) -> bool:
    """True if an architecture takes images of one size only, which it is created for."""
    default = timm.get_pretrained_cfg(name)
    return default is not None and default.fixed_input_size


def fill(model: torch.nn.Module, path: Path, has_classifier: bool = True) -> None:
    """Load the weights that training wrote. Raises UserError that names the file if they are not this model's.

    has_classifier: False leaves the model's as it is, where the file holds one of another kind (`heads.head_of`).
    """
    state = read_state(path)
    if not has_classifier:
        heads = tuple(f"{head}." for head in classifier_names(model))
        state = {name: value for name, value in state.items() if not name.startswith(heads)}
        state |= {name: value for name, value in model.state_dict().items() if name.startswith(heads)}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        made = "provenance.json names the timm version that wrote them"
        raise UserError(f"{path}: not the weights of this architecture in this timm ({reason}); {made}") from None


def logits(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """float32 (B, C) of normalised float32 images (B, 3, H, W), in evaluation."""
    with without_tf32(images.device):
        return model(images)  # type: ignore[no-any-return]


def embed(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """float32 (B, D): what the classifier is given of normalised float32 images (B, 3, H, W), in evaluation:
    `classifier(model)(embed(model, images))` is `logits(model, images)`, to the bit on the CPU."""
    with without_tf32(images.device):
        return model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator, no-any-return]


def classifier_names(model: torch.nn.Module) -> tuple[str, ...]:
    """Names of the modules that hold the classifier (two for distilled transformers)."""
    names = model.pretrained_cfg["classifier"]  # type: ignore[index]
    return (names,) if isinstance(names, str) else tuple(names)


def classifiers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers that make the logits: one, or two for distilled transformers."""
    return [model.get_submodule(name) for name in classifier_names(model)]


def classifier(model: torch.nn.Module) -> torch.nn.Linear:
    """The linear layer that makes the logits. Raises UserError if there is none or more than one, as in distilled
    transformers; `check_embedding` says whether it is also all that follows `embed`."""
    names = classifier_names(model)
    layers = classifiers(model)
    if len(layers) != 1 or not isinstance(layers[0], torch.nn.Linear):
        kinds = " and ".join(f"{name} ({type(layer).__name__})" for name, layer in zip(names, layers, strict=True))
        raise UserError(_no_embedding(model, f"it ends in {kinds or 'none'}, not in one Linear"))
    return layers[0]


def set_classifier(model: torch.nn.Module, head: torch.nn.Module) -> None:
    """Put another classifier in the place of the one that makes the logits."""
    model.set_submodule(classifier_names(model)[0], head)


def check_embedding(model: torch.nn.Module, image_size: int) -> None:
    """Raise UserError unless the logits are the classifier of `embed` and nothing else, whatever the weights are: one
    pass of noise shows what the layer is given, and whether what it answers comes out unchanged.

    For a model on the CPU, where the same pass gives the same bits; leaves it in evaluation.
    """
    layer = classifier(model.eval())
    noise = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, image_size, image_size, generator=noise)
    answer = torch.randn(1, layer.out_features, generator=noise)
    given: list[torch.Tensor] = []

    def exchange(_: torch.nn.Module, inputs: tuple[torch.Tensor], __: torch.Tensor) -> torch.Tensor:
        given.append(inputs[0])
        return answer

    with torch.inference_mode():
        with layer.register_forward_hook(exchange):
            same = torch.equal(logits(model, images), answer)
        if not (same and len(given) == 1 and torch.equal(given[0], embed(model, images))):
            raise UserError(_no_embedding(model, "more than its classifier lies between features and logits"))


def _no_embedding(model: torch.nn.Module, reason: str) -> str:
    name = model.pretrained_cfg["architecture"]  # type: ignore[index]
    return f"{name!r} cannot be taken apart into features and a linear classifier: {reason}"


def preprocess_for(name: str, image_size: int, crop: tuple[int, int] | None) -> Preprocess:
    """The preprocessing that the backbone was pretrained with: its mean, std, interpolation and crop share (the input
    is `crop_pct` of what is decoded, so that the borders, which pretraining did not look at, are cut)."""
    default = timm.get_pretrained_cfg(name)
    found: Mapping[str, Any] = resolve_data_config(pretrained_cfg=asdict(default) if default else {})
    interpolation = found["interpolation"] if found["interpolation"] in ("bilinear", "lanczos") else "bicubic"
    return Preprocess(
        image_size=image_size,
        decode_size=max(image_size, int(image_size / found["crop_pct"])),
        interpolation=interpolation,
        mean=tuple(found["mean"]),
        std=tuple(found["std"]),
        crop=crop,
    )


def _line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
