"""What each of several processes computes of a batch adds up to what one process computes of it."""

import numpy as np
import pytest
import torch

from ensemble.backbones import timm_model
from ensemble.backbones.fine_tuning import freeze, train_mode
from ensemble.config import Train
from ensemble.data.pixels.decode import Pixels
from ensemble.inference.eval_model import logits_of, prepared
from ensemble.inference.formats import Inference
from ensemble.launch.ranks import ALONE, Ranks
from ensemble.train.augment.mix import apply_mixing, draw_mixing
from ensemble.train.augment.policy import finish
from ensemble.train.batch_norms import measuring, synchronized
from ensemble.train.batches import cutter, drawer
from ensemble.train.losses import make_loss
from ensemble.train.shares import shares
from ensemble.train.step import targets_of

CPU = torch.device("cpu")
ORDER = np.array([[5, 2, 9, 0, 3, 8, 11], [7, 1, 4, 10, 6, 0, 2]])
LABELS, WEIGHTS = np.arange(12), np.linspace(0.5, 1.5, 12, dtype=np.float32)
SETTINGS = Train(crop_area=(0.2, 0.8), rotate=25.0, color_jitter=0.3, trivial_augment=True, erase=0.5)


@pytest.fixture(scope="module")
def pixels():
    shapes = np.tile([36, 40], (12, 1))
    flat = np.random.default_rng(0).integers(0, 256, 12 * 36 * 40 * 3, dtype=np.uint8)
    return Pixels((flat,), np.zeros(12, np.int32), np.arange(12) * 36 * 40 * 3, shapes)


def made(pixels, ranks, mixup, cutmix):
    """Of each batch: the rows that were cut out, the network's input, and the targets."""
    rng, mix_rng = np.random.default_rng(0), np.random.default_rng(1)

    def mixing():
        return draw_mixing(mix_rng, ORDER.shape[1], 32, mixup, cutmix)

    stream = shares(ORDER, drawer(rng, pixels, 32, SETTINGS), mixing, cutter(pixels, CPU, 1), 32, 0, ranks)
    for share in stream:
        inputs = finish(share.crops, share.draws, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
        images, mixed = apply_mixing(inputs, share.mixing)
        loss = make_loss("cross_entropy", np.ones(12), CPU)
        yield share.rows, images, targets_of(LABELS[share.rows], WEIGHTS[share.rows], loss, mixed, CPU)


@pytest.mark.parametrize("alphas", [(0.0, 0.0), (0.4, 0.0), (0.4, 1.0)])
@pytest.mark.parametrize("count", [2, 3])
def test_shares_are_the_parts_of_the_batch_of_one_process(pixels, alphas, count):
    whole = list(made(pixels, ALONE, *alphas))
    parts = [list(made(pixels, Ranks(rank, count), *alphas)) for rank in range(count)]
    for step, (rows, images, targets) in enumerate(whole):
        assert np.array_equal(rows, ORDER[step])
        assert [len(part[step][1]) for part in parts] == {2: [3, 4], 3: [2, 2, 3]}[count]
        torch.testing.assert_close(torch.cat([part[step][1] for part in parts]), images, rtol=0, atol=1e-5)
        for number, target in enumerate(targets):  # the labels, and those of the partners
            of_parts = [part[step][2][number] for part in parts]
            assert torch.equal(torch.cat([each.answers for each in of_parts]), target.answers)
            assert torch.equal(torch.cat([each.weights for each in of_parts]), target.weights)
        for part in parts:  # nothing is cut out twice, nor what nobody needs
            cut, used = part[step][0], {label for target in part[step][2] for label in target.answers.tolist()}
            assert sorted(cut) == sorted(used)


def test_parts_are_as_equal_as_can_be():
    for items, count in ((7, 2), (8, 3), (5, 5), (2, 3), (0, 2)):
        parts = [Ranks(rank, count).part(items) for rank in range(count)]
        assert np.array_equal(np.concatenate(parts), np.arange(items))
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1 and max(sizes) == Ranks(0, count).largest_part(items)


def test_synchronized_batch_norms_are_the_same_network():
    torch.manual_seed(0)
    model = timm_model.create("test_resnet", 3, 32)
    freeze(model, 1)
    train_mode(model)
    with torch.no_grad():
        model(torch.randn(8, 3, 32, 32))  # something measured
    names, images = measuring(model), torch.randn(4, 3, 32, 32)
    want = {name: value.clone() for name, value in model.state_dict().items()}
    before = logits_of(prepared(model, Inference("cpu"), 32, CPU), images)
    converted = synchronized(model)
    assert measuring(converted) == names and names  # those of the frozen stages measure nothing, before and after
    assert all(isinstance(converted.get_submodule(name), torch.nn.SyncBatchNorm) for name in names)
    assert converted.state_dict().keys() == want.keys()
    assert all(torch.equal(value, want[name]) for name, value in converted.state_dict().items())
    torch.testing.assert_close(logits_of(prepared(converted, Inference("cpu"), 32, CPU), images), before)
