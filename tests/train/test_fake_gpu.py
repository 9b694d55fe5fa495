"""What training and evaluation compute on a GPU, on one that isn't there: torch's fake tensors have a device, a dtype
and a shape but no numbers, and fail as real ones do where those of the CPU meet those of the GPU."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ensemble.backbones import timm_model
from ensemble.backbones.heads import GaussianHead, vote
from ensemble.config.tables import Train
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.device import array_on
from ensemble.inference.geometry import Geometry
from ensemble.inference.network_input import _scale_and_shift, view_of
from ensemble.inference.views import cut, expand, is_wide
from ensemble.train.augment.crops import gather
from ensemble.train.augment.mix import mix
from ensemble.train.augment.policy import Augmentation, Draws, draw, finish
from ensemble.train.augment.trivial import OPS, numbers_on
from ensemble.train.discriminant import Classes, lda
from ensemble.train.heads import _Problem
from ensemble.train.losses import LOSSES, make_loss
from ensemble.train.numerics import Numerics
from ensemble.train.step import gradients, targets_of

GPU = torch.device("cuda:0")
SHAPES = np.array([[60 + 7 * row, 80 - 3 * row] for row in range(6)])
EVERYTHING = Augmentation((0.05, 1.0), True, True, 30.0, 0.3, True, 0.5)
NORMAL = ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


@pytest.fixture
def fake(monkeypatch):
    """Tensors that are made meanwhile are fake ones. Pinned memory takes a driver, and so does a backward pass."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
    remembered = (numbers_on, _scale_and_shift)  # for each device
    with FakeTensorMode(allow_non_fake_inputs=True):
        for function in remembered:
            function.cache_clear()
        yield
    for function in remembered:
        function.cache_clear()


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype, device=GPU)


def images(dtype=torch.float32):
    return zeros(6, 3, 32, 32, dtype=dtype).contiguous(memory_format=torch.channels_last)


def test_the_two_devices_cannot_meet(fake):
    with pytest.raises(RuntimeError, match=r"two different devices|same device"):
        images() + torch.zeros(32)


def test_crops_and_all_that_follows_them(fake):
    sizes = SHAPES.prod(axis=1) * 3
    starts = array_on(np.concatenate([[0], np.cumsum(sizes)[:-1]]), GPU)
    draws = draw(np.random.default_rng(0), SHAPES, 32, EVERYTHING)
    crops = gather(zeros(int(sizes.sum()), dtype=torch.uint8), starts, array_on(SHAPES, GPU), draws, 32)
    assert (crops.device, crops.dtype, tuple(crops.shape)) == (GPU, torch.uint8, (6, 3, 32, 32))
    for op in range(len(OPS)):
        every = Draws(draws.matrices, draws.factors, np.full(6, op), np.full(6, 0.5), draws.hidden)
        finished = finish(images(torch.uint8), every, *NORMAL)
        assert (finished.device, finished.dtype) == (GPU, torch.float32)
    mixed, partner, share = mix(np.random.default_rng(0), images(), 0.2, 1.0)
    assert {mixed.device, partner.device, share.device} == {GPU}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("answers", [np.arange(6) % 3, np.full((6, 3), 1 / 3, dtype=np.float32)])
def test_a_step_with_each_loss(fake, loss, answers):
    with GPU:
        model = timm_model.create("test_resnet", 3, 32)
    mixed = array_on(np.arange(6)[::-1].copy(), GPU), zeros(6)
    row_losses = make_loss(loss, np.ones(3), GPU, Train().label_smoothing)
    targets = targets_of(answers, np.ones(6, dtype=np.float32), row_losses, mixed, GPU)
    numerics = Numerics("float32", "channels_last", False, 4, 0.0)
    assert gradients(model, images(), targets, 4, numerics).device == GPU


def test_all_views(fake):
    geometry = Geometry(24, 30, 32)
    for name in [*expand(["d4", "ten-crop", "multi-scale"]), "rotate20", "scale0.8*rotate-20", "size40"]:
        sides = geometry.at(40) if "size40" in name else geometry
        side = sides.wide_size if is_wide(name) else sides.decode_size
        view = cut(zeros(2, 3, side, side, dtype=torch.uint8), name, geometry)
        assert (view.device, view.shape[-1]) == (GPU, sides.image_size)
    preprocess = Preprocess(32, 36, "bicubic", *NORMAL)
    squares = {preprocess.decoding: zeros(5, 36, 36, 3, dtype=torch.uint8)}
    for rows in (slice(1, 5), array_on(np.arange(3), GPU)):
        view = view_of(squares, preprocess, "hflip", rows, 16)
        assert (view.device, view.dtype, len(view)) == (GPU, torch.float32, 16)


def test_classifiers_of_frozen_features(fake):
    features, count = zeros(2, 30, 20), torch.int64
    problem, rows = _Problem(features, np.arange(30) % 3, 3), np.ones((4, 30))
    weights = problem.row_weights(rows)
    assert problem._logits(zeros(4, 3, 21), problem.spread(weights)).device == GPU
    assert {each.device for each in problem.unscaled(zeros(4, 3, 21), weights)} == {GPU}
    classes = Classes(
        zeros(20), zeros(20), zeros(30, 20), zeros(30, dtype=count), zeros(30), zeros(3, 20), zeros(3), zeros(20, 20)
    )
    assert lda(classes, 0.1).weight.device == GPU
    head = GaussianHead(zeros(3, 20), zeros(3), zeros(3, 4, 20), zeros(3, 4))
    assert head(features[0]).device == GPU
    assert vote(zeros(7, 5), zeros(7, 5, dtype=count), zeros(7, 5), zeros(3), 0.1).device == GPU
