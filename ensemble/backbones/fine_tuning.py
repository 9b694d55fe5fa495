"""How a timm backbone is fine-tuned: which layers, at which learning rates, and the average of its weights."""

from typing import Any

import torch
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from timm.utils import ModelEmaV3

from ensemble.backbones.timm_model import classifier_names


def freeze(model: torch.nn.Module, trainable: str | int) -> None:
    """Leave only part of the network to train: "all", "head" (the classifier), or the last n stages and the head.

    Stages are timm's coarse parameter groups, from the stem to the classifier; a group of norms alone (the last one of
    ConvNeXt and Swin) belongs to the stage before it.
    """
    if trainable == "all":
        return
    groups = group_parameters(model, model.group_matcher(coarse=True))  # type: ignore[operator]
    stages = [groups[stage] for stage in sorted(groups)]
    heads = tuple(f"{head}." for head in classifier_names(model))
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
    heads = {id(parameter) for name in classifier_names(model) for parameter in model.get_submodule(name).parameters()}
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
