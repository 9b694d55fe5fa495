"""The backbones that `ens scout` tries unless it is given others: twelve families of timm, small ones for a CPU and
larger ones for a GPU, with weights of much data where timm has such."""

from pathlib import Path

from ensemble.config import Backbone


def _backbone(name: str, timm: str, image_size: int) -> Backbone:
    return Backbone(name=name, timm=timm, image_size=image_size)


# Sides in px: multiples of what a patch or the strides of a network take, near the size that it was trained at.
CPU = (
    _backbone("dinov3", "vit_small_patch16_dinov3.lvd1689m", 192),
    _backbone("siglip2", "vit_base_patch32_siglip_256.v2_webli", 256),
    _backbone("eva02", "eva02_tiny_patch14_336.mim_in22k_ft_in1k", 224),
    _backbone("convnextv2", "convnextv2_nano.fcmae_ft_in22k_in1k", 192),
    _backbone("swin", "swin_tiny_patch4_window7_224.ms_in22k_ft_in1k", 224),
    _backbone("efficientnetv2", "tf_efficientnetv2_b0.in1k", 192),
    _backbone("mobilenetv4", "mobilenetv4_conv_medium.e500_r224_in1k", 224),
    _backbone("nfnet", "eca_nfnet_l0.ra2_in1k", 224),
    _backbone("tinyvit", "tiny_vit_5m_224.dist_in22k_ft_in1k", 224),
    _backbone("regnet", "regnety_008_tv.tv2_in1k", 224),
    _backbone("resnet", "resnet18.fb_swsl_ig1b_ft_in1k", 224),
    _backbone("vgg", "vgg11_bn.tv_in1k", 224),
)
GPU = (
    _backbone("dinov3", "vit_base_patch16_dinov3.lvd1689m", 256),
    _backbone("siglip2", "vit_base_patch16_siglip_256.v2_webli", 256),
    _backbone("eva02", "eva02_base_patch14_448.mim_in22k_ft_in22k_in1k", 336),
    _backbone("convnextv2", "convnextv2_tiny.fcmae_ft_in22k_in1k", 288),
    _backbone("swin", "swin_base_patch4_window7_224.ms_in22k_ft_in1k", 224),
    _backbone("efficientnetv2", "tf_efficientnetv2_s.in21k_ft_in1k", 300),
    _backbone("mobilenetv4", "mobilenetv4_hybrid_medium.e200_r256_in12k_ft_in1k", 256),
    _backbone("nfnet", "dm_nfnet_f0.dm_in1k", 256),
    _backbone("tinyvit", "tiny_vit_21m_224.dist_in22k_ft_in1k", 224),
    _backbone("regnet", "regnety_040.ra3_in1k", 256),
    _backbone("resnet", "resnet50.fb_swsl_ig1b_ft_in1k", 224),
    _backbone("vgg", "vgg16_bn.tv_in1k", 224),
)


def of_folder(folder: Path) -> tuple[tuple[Backbone, ...], list[str]]:
    """A backbone for each weights file of a folder, and a line for each file that was left out. Raises UserError as
    `weights_in` does."""
    from ensemble.backbones.weights_folder import weights_in  # loads torch

    files, notes = weights_in(folder)
    return tuple(Backbone(name=file.name, timm=file.timm, weights=file.path) for file in files), notes
