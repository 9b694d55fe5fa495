"""Networks as ONNX models: the logits of PyTorch, whatever the number of images."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ensemble.backbones import timm_model
from ensemble.errors import UserError
from ensemble.inference.eval_model import folded
from ensemble.inference.to_onnx import network_to_onnx, networks_to_onnx

SIZE = 64


def network(name, seed):
    torch.manual_seed(seed)
    model = timm_model.create(name, 3, SIZE).eval()
    with torch.no_grad():  # an untrained network has biases of 0, and weights and running means that are equal
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor += 0.05 * torch.rand_like(tensor)
    return folded(model, SIZE).requires_grad_(False)


def logits(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images.numpy()})[0]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_each_network_of_an_architecture_keeps_its_logits(name):
    networks = [network(name, seed) for seed in (0, 1)]
    models = networks_to_onnx(networks, SIZE)
    for module, model in zip(networks, models, strict=True):
        onnx.checker.check_model(model)
        assert len(model.graph.input) == 1 and not model.functions
        for count in (1, 2, 17):
            images = torch.randn(count, 3, SIZE, SIZE)
            with torch.inference_mode():
                want = module(images).numpy()
            assert np.abs(logits(model, images) - want).max() < 5e-5 * np.abs(want).max()
    images = torch.randn(1, 3, SIZE, SIZE)
    assert not np.allclose(logits(models[0], images), logits(models[1], images))


@pytest.mark.parametrize("size", [SIZE, 48, 96])
def test_images_of_another_size_by_openvino(size):
    """It has no antialiasing for the position embeddings of a smaller one."""
    openvino = pytest.importorskip("openvino")
    module, images = network("test_vit", 0), torch.randn(3, 3, size, size)
    before = module.pos_embed.clone()
    core, content = openvino.Core(), network_to_onnx(module, size).SerializeToString()
    compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.inference_mode():
        want = module(images).numpy()
    assert np.abs(compiled(images.numpy())["logits"] - want).max() < 5e-5 * np.abs(want).max()
    assert torch.equal(module.pos_embed, before)


def test_networks_of_equal_shapes_that_compute_differently():
    class Scaled(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.linear, self.factor = torch.nn.Linear(3, 2), factor

        def forward(self, images):
            return self.factor * self.linear(images.mean(dim=(2, 3)))

    modules = [Scaled(factor).eval().requires_grad_(False) for factor in (1.0, 3.0)]
    images = torch.randn(2, 3, SIZE, SIZE)
    for module, model in zip(modules, networks_to_onnx(modules, SIZE), strict=True):
        assert np.allclose(logits(model, images), module(images), atol=1e-5)


def test_networks_whose_layers_share_a_weight():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def forward(self, images):
            return self.second(self.first(images.mean(dim=(2, 3))))

    modules = [Tied().eval().requires_grad_(False) for _ in range(2)]
    images = torch.randn(2, 3, SIZE, SIZE)
    for module, model in zip(modules, networks_to_onnx(modules, SIZE), strict=True):
        assert np.allclose(logits(model, images), module(images), atol=1e-5)


def test_a_network_that_cannot_be_written():
    class Refuses(torch.nn.Module):
        def forward(self, images):
            return images if float(images.sum()) > 0 else -images

    with pytest.raises(UserError, match="PyTorch's exporter can't write it as ONNX"):
        network_to_onnx(Refuses(), SIZE)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r'pip install "ens-vision\[export\]"'):
        network_to_onnx(torch.nn.Identity(), SIZE)
