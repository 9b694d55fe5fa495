"""The forms that a network is evaluated in: folded and exact, or faster and held to the exact one."""

import copy

import numpy as np
import pytest
import timm
import torch

from ensemble.backbones import timm_model
from ensemble.backbones.heads import linear_head
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.errors import UserError
from ensemble.inference import choose_format
from ensemble.inference.choose_format import CHANGED, LOSS, choose_inference, find_speeds, margins
from ensemble.inference.eval_model import EvalModel, folded, half_precision_copy, logits_of, prepared
from ensemble.inference.formats import Inference, formats, load_inference, save_inference
from ensemble.inference.predict import Group, forward_views

CPU = torch.device("cpu")


def network(name, size=64, classes=5):
    """A network whose batch norms have something to fold."""
    torch.manual_seed(0)
    model = timm_model.create(name, classes, size)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    return model.eval()


def norms(model):
    return sum(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())


# ---- folding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("resnet18", 0), ("mobilenetv3_small_050", 0), ("test_efficientnet", 0), ("densenet121", 62),
        ("resnetv2_50d", None), ("repvgg_a0", None), ("test_vit", 0), ("test_convnext", 0),
    ],
)  # fmt: skip
def test_folding_changes_nothing_but_the_batch_norms(name, left):
    model = network(name)
    before = copy.deepcopy(model.state_dict())
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        want, got = model(images), folded(model, 64)(images)
    assert torch.allclose(got, want, atol=1e-4 * want.abs().max().item())
    if left is not None:
        assert norms(folded(model, 64)) == left  # a dense block's first norm is fed by many convolutions at once
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Twice(torch.nn.Module):
    """The convolution's output goes to the batch norm, and past it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.BatchNorm2d(3)
        self.pretrained_cfg = {"classifier": ()}

    def forward(self, images):
        values = self.conv(images)
        return (self.norm(values) + values).mean((2, 3))


class Swapped(torch.nn.Module):
    """Named in another order than they run: norm first, then the convolution that feeds nothing."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.BatchNorm2d(3)
        self.pretrained_cfg = {"classifier": ()}

    def forward(self, images):
        return self.conv(self.norm(images)).mean((2, 3))


@pytest.mark.parametrize("kind", [Twice, Swapped])
def test_a_batch_norm_that_cannot_be_folded_stays(kind):
    torch.manual_seed(0)
    model = kind().eval()
    model.norm.running_mean.fill_(0.7)
    model.norm.running_var.fill_(3.0)
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(folded(model, 8)(images), model(images))
    assert norms(folded(model, 8)) == 1


class Headed(torch.nn.Module):
    """As Twice, below a new classifier, which is all zeros and gives the same logits whatever comes before."""

    def __init__(self):
        super().__init__()
        self.body, self.head = Twice(), torch.nn.Linear(3, 2)
        self.pretrained_cfg = {"classifier": "head"}
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, images):
        return self.head(self.body(images))


def test_a_classifier_of_zeros_does_not_hide_a_wrong_fold():
    torch.manual_seed(0)
    model = Headed().eval()
    model.body.norm.running_mean.fill_(0.7)
    found = folded(model, 8)
    assert norms(found) == 1 and not found.head.weight.any()


def test_a_classifier_comes_out_of_folding_as_it_was():
    model = network("test_resnet")
    torch.nn.init.zeros_(model.fc.weight)
    found = folded(model, 64)
    assert norms(found) == 0 and not found.fc.weight.any() and torch.equal(found.fc.bias, model.fc.bias)


def test_a_folded_convolution_by_hand():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1, eps=0)).eval()
    for parameter, value in zip([*model.parameters()], (2.0, 1.0, 3.0, 0.5), strict=True):
        torch.nn.init.constant_(parameter, value)
    model[1].running_mean.fill_(4.0)
    model[1].running_var.fill_(9.0)
    three = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1, bias=False), model).eval()
    three.pretrained_cfg = {"classifier": ()}
    fused = folded(three, 4)
    # (2 x + 1 - 4) / 3 * 3 + 0.5 = 2 x - 2.5
    assert fused[1][0].weight.item() == pytest.approx(2.0) and fused[1][0].bias.item() == pytest.approx(-2.5)
    assert isinstance(fused[1][1], torch.nn.Identity)


# ---- formats -------------------------------------------------------------------------------------------------------


def test_a_copy_in_half_precision_keeps_its_classifier_and_its_logits_in_float32():
    model = network("test_resnet")
    own = prepared(model, Inference("cpu", "bfloat16"), 64, CPU)
    assert own.fast is not None and timm_model.classifier(own.fast).weight.dtype == torch.float32
    kinds = {parameter.dtype for parameter in own.fast.parameters()}
    assert kinds == {torch.float32, torch.bfloat16}
    assert {parameter.dtype for parameter in own.exact.parameters()} == {torch.float32}
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        exact, fast = logits_of(own, images), logits_of(own, images.bfloat16())
    assert exact.dtype == fast.dtype == torch.float32 and exact.shape == (1, 2, 5)
    assert not torch.equal(exact, fast) and torch.allclose(exact, fast, atol=0.1 * exact.abs().max().item())


def test_heads_give_the_logits_of_all_folds():
    model = network("test_resnet")
    exact = prepared(model, Inference("cpu"), 64, CPU).exact
    layer = timm_model.classifier(exact)
    heads = [(layer.weight, layer.bias), (2 * layer.weight, layer.bias + 1)]
    probe = EvalModel(
        Inference("cpu"), exact, None, tuple(linear_head(*(part.detach() for part in head)) for head in heads)
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        plain, both = timm_model.logits(exact, images), logits_of(probe, images)
    assert probe.outputs == 2 and torch.equal(both[0], plain)
    assert torch.allclose(both[1], 2 * (plain - layer.bias) + layer.bias + 1, atol=1e-5)


def test_speeds_are_of_the_formats_that_the_processor_has():
    speeds, _ = find_speeds(lambda: network("test_resnet"), 32, 4, formats(CPU), CPU)
    assert set(speeds) == set(formats(CPU)) and formats(CPU)[0] == "float32"
    assert list(speeds.values()) == sorted(speeds.values(), reverse=True) and min(speeds.values()) > 0


def test_a_format_is_as_much_faster_as_in_its_worst_round(monkeypatch):
    """float32's first turn was unlucky: 20 images/s."""
    turns = {torch.float32: iter([20.0, 100.0, 80.0]), torch.bfloat16: iter([150.0, 150.0, 96.0])}
    names = ["float32", "bfloat16"]
    monkeypatch.setattr(choose_format, "_speed", lambda model, images: next(turns[images.dtype]))
    monkeypatch.setattr(choose_format, "was_busy", lambda begun: True)
    assert find_speeds(lambda: network("test_resnet"), 32, 4, names, CPU) == (
        {"bfloat16": 120.0, "float32": 100.0},
        True,
    )


# ---- what is chosen ------------------------------------------------------------------------------------------------

LABELS = np.arange(4000) % 4
rng = np.random.default_rng(0)
EXACT = (rng.normal(size=(2, 4000, 4)) + 3 * np.eye(4)[LABELS]).astype(np.float32)
SPEEDS = {"bfloat16": 300.0, "float32": 100.0}


def noisy(error, seed=1):
    return lambda dtype: (EXACT + np.random.default_rng(seed).normal(0, error, EXACT.shape)).astype(np.float32)


def test_a_format_with_small_errors_is_taken_and_settled():
    how, values = choose_inference(SPEEDS, EXACT, noisy(0.01), LABELS, CPU)
    own = noisy(0.01)("bfloat16")
    assert how.dtype == "bfloat16" and how.device == "cpu"
    assert how.settle == pytest.approx(4 * 0.01 * np.sqrt(2), rel=0.05)  # of the difference of two errors
    again = margins(own) < how.settle
    assert how.again == pytest.approx(again.mean()) and 0.005 < how.again < 0.05
    assert np.array_equal(values[again], EXACT[again]) and np.array_equal(values[~again], own[~again])
    assert (own.argmax(-1) != EXACT.argmax(-1)).any() and how.changed == 0.0  # settling mended all that had changed
    assert how.loss <= LOSS and CHANGED == 0.001


@pytest.mark.parametrize(
    ("speeds", "compute"),
    [
        ({"bfloat16": 300.0, "float32": 100.0}, lambda dtype: EXACT * 1.1),  # the same classes, other probabilities
        ({"bfloat16": 109.0, "float32": 100.0}, noisy(0.01)),  # not worth it
        ({"bfloat16": 110.5, "float32": 100.0}, noisy(0.01)),  # not worth it with what is computed again
        ({"bfloat16": 300.0, "float32": 100.0}, noisy(0.6)),  # most rows would be computed again
        ({"bfloat16": 300.0, "float32": 100.0}, lambda dtype: np.full_like(EXACT, np.inf)),  # out of range
        ({"float32": 100.0}, noisy(0.01)),  # nothing else is to be tried
    ],
)  # fmt: skip
def test_a_format_that_is_not_faithful_or_not_faster_is_left(speeds, compute):
    how, values = choose_inference(speeds, EXACT, compute, LABELS, CPU)
    assert how == Inference("cpu") and values is EXACT


def test_of_two_faithful_formats_the_faster_is_taken():
    speeds = {"bfloat16": 150.0, "float16": 200.0, "float32": 100.0}
    assert choose_inference(speeds, EXACT, noisy(0.01), LABELS, CPU)[0].dtype == "float16"
    errors = {"float16": 0.6, "bfloat16": 0.005}
    found = choose_inference(speeds, EXACT, lambda dtype: noisy(errors[dtype])(dtype), LABELS, CPU)[0]
    assert found.dtype == "bfloat16"


def test_logits_that_are_not_finite_are_left_to_be_reported():
    broken = EXACT.copy()
    broken[0, 3] = np.nan
    assert choose_inference(SPEEDS, broken, noisy(0.01), LABELS, CPU) == (Inference("cpu"), broken)


def test_a_format_is_not_judged_by_a_few_rows():
    for rows, dtype in ((299, "float32"), (300, "bfloat16")):
        own = lambda _, rows=rows: noisy(0.001)("bfloat16")[:, :rows]  # noqa: E731
        assert choose_inference(SPEEDS, EXACT[:, :rows], own, LABELS[:rows], CPU)[0].dtype == dtype


def test_margins_by_hand():
    assert margins(np.array([[1.0, 5.0, 2.0], [3.0, 3.0, 0.0]])).tolist() == [3.0, 0.0]


# ---- settled rows in a pass ----------------------------------------------------------------------------------------


def test_rows_near_a_tie_are_computed_exactly_and_others_are_not():
    model = network("test_resnet", 32)
    preprocess = Preprocess(32, 36, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    squares = {preprocess.decoding: torch.randint(0, 256, (40, 36, 36, 3), dtype=torch.uint8)}
    views = ("identity", "hflip", "rotate20")

    def values(how):
        group = Group(preprocess, views, (prepared(model, how, 32, CPU),))
        return forward_views(group, squares, 16, CPU)[0][0]

    exact, fast = values(Inference("cpu")), values(Inference("cpu", "bfloat16"))
    settle = float(np.median(margins(fast)))
    mixed = values(Inference("cpu", "bfloat16", settle))
    again = margins(fast) < settle
    assert again.any() and not again.all() and not np.array_equal(exact, fast)
    assert np.array_equal(mixed[again], exact[again]) and np.array_equal(mixed[~again], fast[~again])


def test_rows_out_of_the_format_s_range_are_computed_exactly():
    model = network("test_resnet", 32)
    own = prepared(model, Inference("cpu", "bfloat16", 0.0), 32, CPU)

    def overflows(module, inputs, logits):
        logits[:2] = torch.tensor([torch.inf, 0.0, 1.0, 2.0, 3.0])  # a margin of infinity
        logits[2] = torch.tensor([torch.inf, torch.nan, 1.0, 2.0, 3.0])  # and one that is no number
        return logits

    own.fast.register_forward_hook(overflows)
    preprocess = Preprocess(32, 36, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    squares = {preprocess.decoding: torch.randint(0, 256, (16, 36, 36, 3), dtype=torch.uint8)}
    found = forward_views(Group(preprocess, ("identity",), (own,)), squares, 16, CPU)[0][0, 0]
    exact = EvalModel(Inference("cpu"), own.exact)
    want = forward_views(Group(preprocess, ("identity",), (exact,)), squares, 16, CPU)[0][0, 0]
    assert np.array_equal(found[:3], want[:3]) and np.isfinite(found).all() and not np.array_equal(found, want)


# ---- stored --------------------------------------------------------------------------------------------------------


def test_what_was_found_is_read_back_on_the_same_kind_of_device(tmp_path):
    file = tmp_path / "inference.json"
    assert load_inference(file, CPU) == Inference("cpu")
    how = Inference("cpu", "bfloat16", 0.1, 0.02, 0.0005, 0.0001)
    save_inference(file, how)
    assert load_inference(file, CPU) == how
    assert load_inference(file, torch.device("cuda")) == Inference("cuda")
    save_inference(file, Inference("cpu", "float16"))  # found where there are units for it
    assert load_inference(file, CPU) == Inference("cpu")
    file.write_text('{"format": 1}')
    with pytest.raises(UserError, match=r"inference\.json: has the unknown key 'format'; .*delete it: float32 is used"):
        load_inference(file, CPU)


def test_timm_still_gives_its_batch_norms_an_activation():
    """`folded` puts the activation where the norm was: it has to be there under this name."""
    layer = timm.layers.BatchNormAct2d(4)
    assert isinstance(layer.act, torch.nn.Module) and not isinstance(layer.act, torch.nn.Identity)


def test_half_precision_is_that_of_a_copy_not_of_the_network_itself():
    model = network("test_resnet")
    half_precision_copy(model, "bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
