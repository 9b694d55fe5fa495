"""timm backbones: creating them, loading weights, their preprocessing. No other room imports timm."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.layers import DropPath
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.utils import ModelEmaV3

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
        line = load_checkpoint(model, weights, name, _classifiers(model))
        if on_loaded is not None:
            on_loaded(line)
    if pretrained or weights is not None:
        # A random classifier on trained features starts at a loss of 7, and its gradients spoil the features: on art
        # paintings (tf_mobilenetv3_large_minimal_100, 160 px, 4 epochs, one fold) 82.7% against 90.3% from zeros.
        for head in _classifiers(model):
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
        heads = tuple(f"{head}." for head in _classifiers(model))
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


def classifiers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers that make the logits: one, or two for distilled transformers."""
    return [model.get_submodule(name) for name in _classifiers(model)]


def classifier(model: torch.nn.Module) -> torch.nn.Linear:
    """The linear layer that makes the logits. Raises UserError if there is none or more than one, as in distilled
    transformers; `check_embedding` says whether it is also all that follows `embed`."""
    names = _classifiers(model)
    layers = classifiers(model)
    if len(layers) != 1 or not isinstance(layers[0], torch.nn.Linear):
        kinds = " and ".join(f"{name} ({type(layer).__name__})" for name, layer in zip(names, layers, strict=True))
        raise UserError(_no_embedding(model, f"it ends in {kinds or 'none'}, not in one Linear"))
    return layers[0]


def set_classifier(model: torch.nn.Module, head: torch.nn.Module) -> None:
    """Put another classifier in the place of the one that makes the logits."""
    model.set_submodule(_classifiers(model)[0], head)


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


def freeze(model: torch.nn.Module, trainable: str | int) -> None:
    """Leave only part of the network to train: "all", "head" (the classifier), or the last n stages and the head.

    Stages are timm's coarse parameter groups, from the stem to the classifier; a group of norms alone (the last one of
    ConvNeXt and Swin) belongs to the stage before it.
    """
    if trainable == "all":
        return
    groups = group_parameters(model, model.group_matcher(coarse=True))  # type: ignore[operator]
    stages = [groups[stage] for stage in sorted(groups)]
    heads = tuple(f"{head}." for head in _classifiers(model))
    open_names = {name for name, _ in model.named_parameters() if name.startswith(heads)}
    if isinstance(trainable, int):
        shapes = {name: parameter.ndim for name, parameter in model.named_parameters()}
        body: list[list[str]] = []
        for stage in stages:
            names = [name for name in stage if name not in open_names]
            if body and not any(shapes[name] > 1 for name in names):
                body[-1] += names
            else:
                body.append(names)
        open_names.update(name for stage in body[-trainable:] for name in stage)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in open_names)


def train_mode(model: torch.nn.Module, freeze_bn: bool = False) -> None:
    """`model.train()`, but modules whose parameters are all frozen stay in evaluation: a frozen batch norm that went
    on measuring would drift away from the weights that it belongs to. freeze_bn: every batch norm does, its statistics
    those of the weights that training started from; its scale and shift are trained all the same."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
        if freeze_bn and isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


def parameter_groups(
    model: torch.nn.Module, weight_decay: float, layer_decay: float = 1.0, head_lr: float = 1.0
) -> list[dict[str, Any]]:
    """Trainable parameters for the optimizer, biases and norms without weight decay.

    A group's learning rate must be multiplied with its "lr_scale" in each step, where it has one.
    layer_decay: 1 for the head, layer_decay for the layer below it, and so on to the stem (Clark et al., ELECTRA, ICLR
    2020). Layers are timm's finest: 14 in a ViT-tiny, 10 in a ResNet-18, 60 in a DenseNet-121, whose stem hardly moves
    at any value below 0.9. head_lr: of the classifier, times all that.
    """
    if layer_decay == 1:
        groups: list[dict[str, Any]] = param_groups_weight_decay(model, weight_decay)
    else:
        groups = param_groups_layer_decay(model, weight_decay, layer_decay=layer_decay)
    if head_lr == 1:
        return groups
    heads = {id(parameter) for name in _classifiers(model) for parameter in model.get_submodule(name).parameters()}
    split = []
    for group in groups:
        scale = group.get("lr_scale", 1.0)
        for factor, inside in ((1.0, False), (head_lr, True)):
            chosen = [parameter for parameter in group["params"] if (id(parameter) in heads) == inside]
            if chosen:
                split.append({**group, "params": chosen, "lr_scale": scale * factor})
    return split


def moving_average(model: torch.nn.Module, decay: float) -> ModelEmaV3:
    """An exponential moving average of weights and buffers that forgets fast at first: at step s (from 0) its decay is
    1 - s^(-2/3), between 0 and `decay`, so that a run of 100 steps does not keep its start."""
    return ModelEmaV3(model, decay=decay, use_warmup=True, warmup_power=2 / 3)


def _classifiers(model: torch.nn.Module) -> tuple[str, ...]:
    """Names of the modules that hold the classifier (two for distilled transformers)."""
    names = model.pretrained_cfg["classifier"]  # type: ignore[index]
    return (names,) if isinstance(names, str) else tuple(names)


def _line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
