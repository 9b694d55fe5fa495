"""timm backbones: names, weights, preprocessing, what is left to train."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ensemble import backbones
from ensemble.data.pixels import Preprocess
from ensemble.errors import UserError

HALF = (0.5, 0.5, 0.5)
WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "weights"


def refusal(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return str(caught.value)


@pytest.fixture
def resnet():
    torch.manual_seed(0)
    return backbones.create("test_resnet", 5, 64)


@pytest.fixture
def weights(resnet, tmp_path):
    """write(**changes): a weights file of a small ResNet with 5 classes; a change of None leaves its key out."""

    def write(changes=None):
        state = {key: value for key, value in {**resnet.state_dict(), **(changes or {})}.items() if value is not None}
        save_file(state, tmp_path / "own.safetensors")
        return tmp_path / "own.safetensors"

    return write


# ---- names ---------------------------------------------------------------------------------------------------------


def test_unknown_name_is_answered_with_the_nearest():
    start, nearest = refusal(backbones.check_name, "mobilenetv2_10").split("; nearest: ")
    assert start == "unknown timm model 'mobilenetv2_10'"
    assert "mobilenetv2_100" in nearest.split(", ") and len(nearest.split(", ")) == 3
    assert refusal(backbones.check_name, "zzzzzzzz") == "unknown timm model 'zzzzzzzz'"
    assert refusal(backbones.create, "test_resnett", 3, 64).startswith(
        "unknown timm model 'test_resnett'; nearest: tes"
    )


def test_unknown_tag_is_answered_with_the_known_ones():
    line = "timm has no weights 'test_resnet.in22k'; for test_resnet it has: test_resnet.r160_in1k"
    assert refusal(backbones.check_name, "test_resnet.in22k") == line
    backbones.check_name("test_resnet.r160_in1k")


def test_hub_weights_that_do_not_exist():
    line = refusal(backbones.create, "test_vit_relpos", 3, 64, pretrained=True)
    assert line.startswith("the pretrained weights of 'test_vit_relpos' could not be had (")
    assert line.endswith("); give a local file with weights = ..., or train from scratch with pretrained = false")


# ---- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [3, 5])
def test_local_weights_give_the_body_and_leave_the_head_fresh(resnet, weights, classes):
    loaded = backbones.create("test_resnet", classes, 64, weights=weights())
    state = loaded.state_dict()
    for key, value in resnet.state_dict().items():
        if not key.startswith("fc."):
            assert torch.equal(state[key], value), key
    assert loaded.fc.weight.shape == (classes, resnet.fc.in_features)
    assert not loaded.fc.weight.any() and not loaded.fc.bias.any()  # zero: all classes are alike at the start
    assert loaded(torch.zeros(2, 3, 64, 64)).shape == (2, classes)


def test_head_of_a_network_from_scratch_is_random(resnet):
    assert resnet.fc.weight.std() > 0


def test_local_weights_come_before_the_hub(weights):
    assert backbones.create("test_resnet", 3, 64, pretrained=True, weights=weights()).fc.out_features == 3


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"layer1.0.conv1.weight": None}, "it lacks 'layer1.0.conv1.weight' (1 such)"),
        ({"extra.a": torch.zeros(1), "extra.b": torch.zeros(1)}, "it has an unknown 'extra.a' (2 such)"),
        ({"bn1.weight": torch.zeros(9)}, "'bn1.weight' is (9,), the model wants (32,)"),
    ],
)
def test_weights_that_do_not_fit(weights, changes, problem):
    path = weights(changes)
    assert (
        refusal(backbones.create, "test_resnet", 3, 64, weights=path)
        == f"{path}: does not fit 'test_resnet': {problem}"
    )


def test_weights_of_another_architecture(weights):
    path = weights()
    line = refusal(backbones.create, "test_efficientnet", 3, 64, weights=path)
    assert line.startswith(f"{path}: does not fit 'test_efficientnet': it lacks 'conv_stem.weight' (")


def test_weights_file_cut_short_or_of_another_kind(weights):
    path = weights()
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:100], whole[:3], b"", b"PK\x03\x04 a pickle in a zip" * 10):
        path.write_bytes(part)
        assert refusal(backbones.read_state, path).startswith(f"{path}: not a whole safetensors file (")


def test_missing_weights_file(tmp_path):
    path = tmp_path / "no.safetensors"
    line = f"{path}: no such weights file (without a weights line, timm fetches its own)"
    assert refusal(backbones.create, "test_resnet", 3, 64, weights=path) == line


def test_digest_is_the_sha_256_of_the_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert backbones.digest(tmp_path / "file") == known


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="no folder of real weights beside the checkout")
def test_real_weights_fit_another_class_count():
    path = WEIGHTS / "mobilenetv2_050.greenwaves.safetensors"
    model = backbones.create("mobilenetv2_050", 7, 64, weights=path)
    assert torch.equal(model.conv_stem.weight, load_file(path)["conv_stem.weight"])
    assert model.classifier.out_features == 7


# ---- input ---------------------------------------------------------------------------------------------------------


def test_preprocessing_is_the_backbones_own():
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert backbones.preprocess_for("mobilenetv1_100", 224, None) == Preprocess(224, 256, "bicubic", HALF, HALF)
    assert backbones.preprocess_for("mobilenetv2_100", 160, None) == Preprocess(160, 182, "bicubic", *imagenet)
    assert backbones.preprocess_for("test_resnet", 64, None) == Preprocess(64, 67, "bilinear", HALF, HALF)
    clip = backbones.preprocess_for("vit_base_patch16_clip_224.openai", 224, (300, 200))
    assert clip.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4) and clip.crop == (300, 200)
    assert clip.decode_size == int(224 / 0.9)


@pytest.mark.parametrize("size", [64, 96])
def test_backbone_of_fixed_input_size_is_made_for_the_size_asked(size):
    model = backbones.create("test_vit", 3, size)
    assert model.pretrained_cfg["input_size"] == (3, 160, 160)
    assert model(torch.zeros(1, 3, size, size)).shape == (1, 3)
    assert model.pos_embed.shape[1] == (size // 16) ** 2 + 1


# ---- what is trained -----------------------------------------------------------------------------------------------


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def below(model, *prefixes):
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


@pytest.mark.parametrize(
    "asked, prefixes",
    [
        ("head", ["fc."]),
        (1, ["fc.", "layer4."]),
        (3, ["fc.", "layer4.", "layer3.", "layer2."]),
        (5, [""]),
        (99, [""]),
        ("all", [""]),
    ],
)
def test_freeze_leaves_the_last_stages_and_the_head(resnet, asked, prefixes):
    backbones.freeze(resnet, asked)
    assert trainable(resnet) == below(resnet, *prefixes)


def test_last_stage_of_a_transformer_has_its_norm():
    model = backbones.create("test_vit", 3, 64)
    backbones.freeze(model, 1)
    assert trainable(model) == below(model, "blocks.5.", "norm.", "head.")


def test_frozen_batch_norms_stop_measuring(resnet):
    backbones.freeze(resnet, 1)
    before = copy.deepcopy(resnet.state_dict())
    backbones.train_mode(resnet)
    resnet(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    moved = {name for name, value in resnet.state_dict().items() if not torch.equal(value, before[name])}
    measured = ("running_mean", "running_var", "num_batches_tracked")
    assert moved == {name for name in before if name.startswith("layer4.") and name.endswith(measured)} != set()
    assert resnet.training and resnet.layer4.training and not resnet.layer3.training


def test_train_mode_of_an_open_network_trains_all_of_it(resnet):
    resnet.eval()
    backbones.train_mode(resnet)
    assert all(module.training for module in resnet.modules())


def test_only_trainable_matrices_decay(resnet):
    backbones.freeze(resnet, 1)
    groups = {group["weight_decay"]: group["params"] for group in backbones.parameter_groups(resnet, 0.05)}
    assert set(groups) == {0.0, 0.05}
    assert all(parameter.ndim == 1 for parameter in groups[0.0])
    assert all(parameter.ndim > 1 for parameter in groups[0.05])
    ours = {id(parameter) for name, parameter in resnet.named_parameters() if name.startswith(("fc.", "layer4."))}
    assert {id(parameter) for parameters in groups.values() for parameter in parameters} == ours


@pytest.mark.parametrize(
    "step, decay", [(0, 0.0), (1, 0.0), (2, 1 - 2 ** (-2 / 3)), (8, 1 - 8 ** (-2 / 3)), (10**6, 0.9)]
)
def test_moving_average_forgets_fast_at_first(step, decay):
    model = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(model.weight)
    average = backbones.moving_average(model, 0.9)
    torch.nn.init.ones_(model.weight)
    average.update(model, step=step)
    assert average.module.weight.item() == pytest.approx(1 - decay, abs=1e-6)


def test_a_stage_of_norms_alone_is_no_stage():
    model = backbones.create("test_convnext", 3, 64)
    backbones.freeze(model, 1)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("stages.3.") and name.endswith("conv_dw.weight") for name in trainable)
    assert "head.norm.weight" in trainable and not any(name.startswith("stages.2.") for name in trainable)


def test_local_weights_of_another_image_size_are_resized(tmp_path):
    large = backbones.create("test_vit", 3, 96)
    save_file(large.state_dict(), tmp_path / "large.safetensors")
    small = backbones.create("test_vit", 3, 64, weights=tmp_path / "large.safetensors")
    assert small.pos_embed.shape != large.pos_embed.shape
    assert small.pos_embed.mean().item() == pytest.approx(large.pos_embed.mean().item(), abs=1e-3)
    assert torch.equal(small.blocks[0].mlp.fc1.weight, large.blocks[0].mlp.fc1.weight)


def test_logits_are_the_models_own():
    for name in ("test_resnet", "test_vit", "test_convnext", "test_efficientnet"):
        model = backbones.create(name, 3, 64).eval()
        images = torch.randn(2, 3, 64, 64)
        with torch.inference_mode():
            assert torch.equal(backbones.logits(model, images), model(images))
