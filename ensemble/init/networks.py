"""Which of timm's networks an experiment file proposes, and the rates at which networks of each family are fine-tuned.

What is said of small networks on a CPU was measured here. The rates for a GPU are from the literature and were not."""

from dataclasses import dataclass, replace
from pathlib import Path

Keys = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Backbone:
    """A network to train.

    name: in the run.
    timm: an architecture, with the tag of its weights where timm is to fetch them.
    kind: of the architecture, in words.
    weights: a file to start from; None: timm's own.
    train: keys of [train] that are this network's own.
    image_size: side of its input, px; None: that of all.
    """

    name: str
    timm: str
    kind: str
    weights: Path | None = None
    train: Keys = ()
    image_size: int | None = None


@dataclass(frozen=True)
class Light:
    """A network that a CPU can train.

    kind: of the architecture, in words.
    rate: images that one core of an AMD EPYC trains per second of its time, at 192 px, the last 4 stages, in the faster
        of float32 and bfloat16.
    """

    kind: str
    rate: float


# In the order of what they add to a blend of 1,698 paintings (benchmarks/RESULTS.md). Of 4 epochs each, the first three
# have 0.1045 of log loss out of fold, and with the fourth in place of the third 0.1109. The fourth is worth its time
# once it is trained for 6 epochs: on two of the folds 96.8 % with it, 96.5 without.
LIGHT = {
    "tf_efficientnet_lite2": Light("EfficientNet-Lite: without what CPUs are slow at", 22),
    "mobilenet_edgetpu_100": Light("MobileNet-EdgeTPU: full convolutions in place of depthwise ones", 32),
    "tf_efficientnet_lite0": Light("the smallest EfficientNet-Lite", 33),
    "tf_mobilenetv3_large_minimal_100": Light("MobileNetV3 without squeeze-and-excitation, three times as fast", 104),
    "mobilenetv1_100": Light("MobileNetV1: depthwise convolutions without shortcuts", 36),
    "mobilenetv2_100": Light("MobileNetV2: inverted residuals", 59),
    "mobilenetv2_050": Light("MobileNetV2 of half the width", 138),
    "tf_mobilenetv3_small_100": Light("the small MobileNetV3", 197),
    "mobilenetv4_conv_medium": Light("MobileNetV4, of another design", 21),
}

# mobilenet_edgetpu_100 has no weights on the hub. MobileNetV4's paper has it ahead of the other two on ImageNet (Qin et
# al., ECCV 2024); what it adds to a blend was not measured here, and so it is the last of the above.
CPU = tuple(
    Backbone(name, timm_name, LIGHT[timm_name.partition(".")[0]].kind)
    for name, timm_name in (
        ("efficientnet_lite2", "tf_efficientnet_lite2.in1k"),
        ("efficientnet_lite0", "tf_efficientnet_lite0.in1k"),
        ("mobilenetv4", "mobilenetv4_conv_medium.e500_r224_in1k"),
        ("mobilenetv3", "tf_mobilenetv3_large_minimal_100.in1k"),
        ("mobilenetv1", "mobilenetv1_100.ra4_e3600_r224_in1k"),
    )
)
EFFICIENTNET = Backbone(
    "efficientnet", "tf_efficientnetv2_s.in21k_ft_in1k", "a convolutional network with small kernels"
)
SMALL = (
    Backbone("convnext", "convnextv2_tiny.fcmae_ft_in22k_in1k", "a convolutional network with large kernels"),
    Backbone("swin", "swin_tiny_patch4_window7_224.ms_in22k_ft_in1k", "a transformer with local attention"),
    Backbone("vit", "vit_small_patch16_dinov3.lvd1689m", "a transformer trained without labels (DINOv3)"),
    EFFICIENTNET,
)
LARGE = (
    Backbone("convnext", "convnextv2_base.fcmae_ft_in22k_in1k", "a convolutional network with large kernels"),
    Backbone("vit", "vit_base_patch16_dinov3.lvd1689m", "a transformer trained without labels (DINOv3)"),
    Backbone("siglip", "vit_base_patch16_siglip_224.v2_webli", "a transformer trained with captions (SigLIP 2)"),
    Backbone("swin", "swin_base_patch4_window7_224.ms_in22k_ft_in1k", "a transformer with local attention"),
    EFFICIENTNET,
)

# Beginnings of timm's names, and the family's keys for AdamW with batches of about 32. The papers fine-tune
# - plain transformers with layer decays of 0.65 to 0.8: BEiT (Bao et al., ICLR 2022), MAE (He et al., CVPR 2022),
#   CLIP (Dong et al., CLIP itself is a strong fine-tuner, 2022), EVA-02 (Fang et al., 2023); paths dropped at 0.1
# - ConvNeXt and Swin at 1e-5 to 5e-5 in batches of 512 and 1,024 (Liu et al., CVPR 2022 and ICCV 2021), ConvNeXt with
#   a decay of 0.8 over 12 groups of layers, which 0.9 over timm's 20 comes near to; AutoGluon takes 1e-4 and 0.9 for
#   every family (Tang et al., AutoGluon-Multimodal, AutoML 2024)
# A rate of 1e-3, good for convolutional networks with batch norms that train for long, makes transformers forget.
TRANSFORMER: Keys = (("lr", 5e-5), ("layer_decay", 0.75), ("drop_path", 0.1))
LAYER_NORM: Keys = (("lr", 1e-4), ("layer_decay", 0.9), ("drop_path", 0.1))
FAMILIES = {
    ("vit", "deit", "beit", "eva", "naflexvit", "flexivit", "samvit", "cait", "xcit"): TRANSFORMER,
    ("swin", "convnext", "hiera", "maxvit", "coatnet", "mvit", "davit", "focalnet"): LAYER_NORM,
}


def family_keys(timm_name: str) -> Keys:
    """Keys of [train] for a network on a GPU; none for those that go at the table's own lr, as networks with batch
    norms do."""
    return next((keys for beginnings, keys in FAMILIES.items() if timm_name.startswith(beginnings)), ())


def hub_networks(machine: str, effort: str, image_size: int) -> tuple[Backbone, ...]:
    """Networks that err differently, from timm's hub. machine: "gpu" or "cpu". effort: "usual", "fast" or "best"."""
    if machine == "cpu":
        return CPU if effort == "best" else CPU[:4]
    # Below 224 Swin's 7 x 7 windows no longer fit its last stage; a ViT only resamples its position embeddings.
    left_out = "swin" if image_size < 224 else "vit" if effort == "usual" else ""
    chosen = [each for each in (SMALL if effort == "usual" else LARGE) if each.name != left_out]
    if effort == "fast":
        return tuple(chosen[:4])  # frozen, they cost a pass over the images
    return tuple(replace(each, train=family_keys(each.timm)) for each in chosen)
