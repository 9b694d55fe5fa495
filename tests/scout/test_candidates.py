"""The default list: every name is timm's, and every network can be made at its size and probed."""

import pytest
import timm
import torch

from ensemble.backbones import timm_model
from ensemble.scout.candidates import CPU, GPU

FAMILIES = {"dinov3", "siglip2", "eva02", "convnextv2", "swin", "efficientnetv2", "mobilenetv4", "resnet", "vgg"}


def test_both_lists_are_of_the_same_twelve_families():
    names = [backbone.name for backbone in CPU]
    assert names == [backbone.name for backbone in GPU]
    assert len(set(names)) == 12
    assert set(names) >= FAMILIES


@pytest.mark.parametrize("backbone", [*CPU, *GPU], ids=lambda backbone: backbone.timm)
def test_timm_has_the_weights_and_makes_the_network_at_its_size(backbone):
    assert backbone.timm in timm.list_pretrained(backbone.timm)
    with torch.device("meta"), torch.inference_mode():  # shapes alone
        model = timm_model.create(backbone.timm, 7, backbone.image_size).eval()
        images = torch.zeros(2, 3, backbone.image_size, backbone.image_size)
        features = timm_model.embed(model, images)
        assert features.shape == (2, timm_model.classifier(model).in_features)
        assert model(images).shape == (2, 7)
