"""What a student is told: the teachers' answers to its own images, worked out by hand, and the loss that compares."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from ensemble.errors import RunFailure
from ensemble.inference.eval_model import EvalModel
from ensemble.inference.formats import Inference
from ensemble.train.losses import make_loss
from ensemble.train.step import Target
from ensemble.train.teacher import Teacher, TeacherNetwork, distillation, soft_targets, with_teacher

LOSS = make_loss("cross_entropy", np.ones(2), torch.device("cpu"))


class Means(torch.nn.Module):
    """Logits of two classes: the mean of the first channel and that of the second."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, images):
        self.sizes.append(tuple(images.shape))
        return images.mean((2, 3))[:, :2]


def network(scale=(1.0, 1.0, 1.0), shift=(0.0, 0.0, 0.0), size=4):
    model = Means()
    scale, shift = (torch.tensor(values).view(3, 1, 1) for values in (scale, shift))
    return TeacherNetwork(EvalModel(Inference("cpu"), model), size, scale, shift)


def grey(*values):
    """Images of 4 px whose first channel is one of `values` and whose others are 0."""
    images = torch.zeros(len(values), 3, 4, 4)
    images[:, 0] = torch.tensor(values).view(-1, 1, 1)
    return images


def test_loss_by_hand():
    """T = 2 and z = (2 ln 3, 0): softmax(z / 2) = (3/4, 1/4). KL of (1/2, 1/2) from it is ln(4/3) / 2, times 4."""
    losses = distillation(2.0)
    z = torch.tensor([[2 * math.log(3), 0.0], [0.0, 0.0]])
    found = losses(z, torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    assert found.tolist() == pytest.approx([2 * math.log(4 / 3), 0.0], abs=1e-6)
    certain = losses(z, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))  # 0 log 0 is 0
    assert certain.tolist() == pytest.approx([4 * math.log(4 / 3), 4 * math.log(2)], abs=1e-6)


def test_gradient_of_the_loss_does_not_shrink_with_the_temperature():
    """Near agreement it is (z - z_teacher) / C, of logits with mean 0, at every temperature."""
    for temperature in (1.0, 4.0, 20.0):
        z = torch.tensor([[0.01, -0.01]], requires_grad=True)
        distillation(temperature)(z, torch.full((1, 2), 0.5)).sum().backward()
        assert z.grad.tolist()[0] == pytest.approx([0.005, -0.005], rel=1e-3)


def test_teachers_see_the_students_images_normalised_for_them_and_their_logits_are_averaged():
    """Value v: the first teacher sees v, the second 2 v + 1, so that the mean logit is (3 v + 1) / 2 against 0 and
    1/2. At temperature 2 they are halved."""
    teacher = Teacher((network(), network((2.0, 1.0, 1.0), (1.0, 1.0, 0.0))), 1.0, 2.0)
    found = soft_targets(teacher, grey(0.0, 1.0))
    logit = torch.tensor([[0.5, 0.5], [2.0, 0.5]])
    torch.testing.assert_close(found, (logit / 2).softmax(1))
    assert not found.requires_grad


def test_a_teacher_of_another_size_gets_the_images_in_its_own():
    teacher = Teacher((network(size=4), network(size=6)), 1.0, 1.0)
    images = grey(*range(20))
    found = soft_targets(teacher, images)
    assert [each.eval_model.exact.sizes for each in teacher.networks] == [
        [(16, 3, 4, 4), (4, 3, 4, 4)],
        [(16, 3, 6, 6), (4, 3, 6, 6)],
    ]
    torch.testing.assert_close(found, images.mean((2, 3))[:, :2].softmax(1))


@pytest.mark.parametrize("has_fast", [True, False])
def test_only_a_network_with_a_faster_copy_gets_its_format(has_fast):
    seen = []

    def answer(images):
        seen.append(images.dtype)
        return images.float().mean((2, 3))[:, :2]

    exact, fast = Means(), Means()
    exact.forward = fast.forward = answer
    eval_model = EvalModel(Inference("cpu", "bfloat16"), exact, fast if has_fast else None)
    soft_targets(Teacher((dataclasses.replace(network(), eval_model=eval_model),), 1.0, 1.0), grey(0.0))
    assert seen == [torch.bfloat16 if has_fast else torch.float32]


def test_labels_and_teachers_share_the_weight_of_an_image():
    """A mixed image has two labels; its teacher answers it once, and weighs as much as both together."""
    first, second = torch.tensor([0, 1]), torch.tensor([1, 0])
    targets = [Target(first, torch.tensor([0.7, 0.0]), LOSS), Target(second, torch.tensor([0.1, 2.0]), LOSS)]
    found = with_teacher(Teacher((network(),), 0.75, 1.0), grey(0.0, 1.0), targets)
    assert [target.answers.tolist() for target in found[:2]] == [[0, 1], [1, 0]]
    weights = torch.stack([target.weights for target in found])
    torch.testing.assert_close(weights, torch.tensor([[0.175, 0.0], [0.025, 0.5], [0.6, 1.5]]))
    torch.testing.assert_close(found[2].answers, torch.tensor([[0.0, 0.0], [1.0, 0.0]]).softmax(1))
    assert [target.row_losses is LOSS for target in found] == [True, True, False]
    (alone,) = with_teacher(Teacher((network(),), 1.0, 1.0), grey(0.0, 1.0), targets)
    assert alone.weights.tolist() == pytest.approx([0.8, 2.0])


@pytest.mark.parametrize("words", ["CUDA out of memory", None])
def test_teachers_without_memory_end_the_job_in_one_line(words):
    def fail(images):
        raise torch.OutOfMemoryError(words) if words else RuntimeError("a bug")

    model = Means()
    model.forward = fail
    teacher = Teacher((dataclasses.replace(network(), eval_model=EvalModel(Inference("cpu"), model)),), 1.0, 1.0)
    says = "^out of memory in the teachers' networks; lower batch_size, or name fewer with --teachers$"
    with pytest.raises(RunFailure if words else RuntimeError, match=says if words else "^a bug$"):
        soft_targets(teacher, grey(0.0))
