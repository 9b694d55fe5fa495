"""timm backbones: names, weights, preprocessing, what is left to train."""

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from ensemble.backbones import fine_tuning, timm_model
from ensemble.backbones.weights import digest, member_weights, shared_rows, source_of
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.errors import UserError
from ensemble.files.atomic import write_text
from ensemble.files.sealed import write_json
from ensemble.run import Run

HALF = (0.5, 0.5, 0.5)
WEIGHTS = Path(__file__).resolve().parents[3] / "shared" / "weights"


def refusal(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return str(caught.value)


@pytest.fixture
def resnet():
    torch.manual_seed(0)
    return timm_model.create("test_resnet", 5, 64)


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
    start, nearest = refusal(timm_model.check_name, "mobilenetv2_10").split("; nearest: ")
    assert start == "unknown timm model 'mobilenetv2_10'"
    assert "mobilenetv2_100" in nearest.split(", ") and len(nearest.split(", ")) == 3
    assert refusal(timm_model.check_name, "zzzzzzzz") == "unknown timm model 'zzzzzzzz'"
    assert refusal(timm_model.create, "test_resnett", 3, 64).startswith(
        "unknown timm model 'test_resnett'; nearest: tes"
    )


def test_unknown_tag_is_answered_with_the_known_ones():
    line = "timm has no weights 'test_resnet.in22k'; for test_resnet it has: test_resnet.r160_in1k"
    assert refusal(timm_model.check_name, "test_resnet.in22k") == line
    timm_model.check_name("test_resnet.r160_in1k")


def test_hub_weights_that_do_not_exist():
    line = refusal(timm_model.create, "test_vit_relpos", 3, 64, pretrained=True)
    assert line.startswith("the pretrained weights of 'test_vit_relpos' could not be loaded (")
    assert line.endswith("); name a local file with weights = ..., or train from scratch with pretrained = false")


# ---- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [3, 5])
def test_local_weights_give_the_body_and_leave_the_head_fresh(resnet, weights, classes):
    loaded = timm_model.create("test_resnet", classes, 64, weights=weights())
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
    assert timm_model.create("test_resnet", 3, 64, pretrained=True, weights=weights()).fc.out_features == 3


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
        refusal(timm_model.create, "test_resnet", 3, 64, weights=path)
        == f"{path}: does not fit 'test_resnet': {problem}"
    )


def test_weights_of_another_architecture(weights):
    path = weights()
    line = refusal(timm_model.create, "test_efficientnet", 3, 64, weights=path)
    assert line.startswith(f"{path}: does not fit 'test_efficientnet': it lacks 'conv_stem.weight' (")


def test_weights_file_cut_short_or_of_another_kind(weights):
    path = weights()
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:100], whole[:3], b"", b"PK\x03\x04 a pickle in a zip" * 10):
        path.write_bytes(part)
        assert refusal(timm_model.read_state, path).startswith(f"{path}: not a whole safetensors file (")


def test_missing_weights_file(tmp_path):
    path = tmp_path / "no.safetensors"
    line = f"{path}: no such weights file (without a weights line, timm fetches its own)"
    assert refusal(timm_model.create, "test_resnet", 3, 64, weights=path) == line


def test_digest_is_the_sha_256_of_the_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(tmp_path / "file") == known


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="no folder of real weights beside the checkout")
def test_real_weights_fit_another_class_count():
    path = WEIGHTS / "mobilenetv2_050.greenwaves.safetensors"
    model = timm_model.create("mobilenetv2_050", 7, 64, weights=path)
    assert torch.equal(model.conv_stem.weight, load_file(path)["conv_stem.weight"])
    assert model.classifier.out_features == 7


# ---- weights of another run ----------------------------------------------------------------------------------------


@pytest.fixture
def source(resnet, tmp_path):
    """source(finished): a run of 3 folds with a member of test_resnet, whose bn1.bias is the number of its fold."""

    def write(finished=(0, 1, 2), begun=()):
        run = tmp_path / "food"
        write_json(Run(run).member("small").settings_json, {"timm": "test_resnet.r160_in1k", "image_size": 96})
        rows = [("a", 0), ("b", 1), ("c", 2), ("d", 2), ("e", -1)]
        lines = "".join(f"{name},x,{fold}\n" for name, fold in rows)
        write_text(Run(run).folds_csv, f"id,label,fold\n{lines}")
        for fold in {*finished, *begun}:
            directory = Run(run).member("small").fold(fold)
            directory.path.mkdir()
            if fold in finished:
                state = {**resnet.state_dict(), "bn1.bias": torch.full((32,), float(fold))}
                save_file(state, directory.model_file)
                directory.mark_done([directory.model_file])
        return run / "small"

    return write


def test_each_fold_starts_from_the_sources_own(source):
    member = source()
    for fold in range(7):
        file = member_weights(member, fold, "test_resnet")
        assert file == (member / f"fold{fold % 3}" / "model.safetensors")
        model = timm_model.create("test_resnet", 7, 64, weights=file)  # of other classes, at another size
        assert model.bn1.bias.tolist() == [fold % 3] * 32 and model.fc.out_features == 7


def test_a_file_is_every_folds_start(source, weights):
    file = source() / "fold1" / "model.safetensors"
    assert [member_weights(file, fold, "test_resnet") for fold in (0, 1, 5)] == [file] * 3
    assert member_weights(weights(), 4, "any") == weights()  # whose architecture is only seen when it is loaded


def test_a_link_to_a_member_is_the_member(source, tmp_path):
    member = source()
    (tmp_path / "link").symlink_to(member)
    assert member_weights(tmp_path / "link", 4, "test_resnet") == (member / "fold1" / "model.safetensors")


def test_source_of_another_architecture(source):
    member = source()
    end = "holds a 'test_resnet.r160_in1k', but the backbone is a 'test_vit': the architectures must be the same"
    assert refusal(member_weights, member, 0, "test_vit") == f"{member}: {end}"
    file = member / "fold0" / "model.safetensors"
    assert refusal(member_weights, file, 0, "test_vit") == f"{file}: {end}"
    assert member_weights(file, 0, "test_resnet.other") == file


def test_unfinished_source(source):
    member = source(finished=(1,), begun=(0,))
    command = f"ens train-folds {member.parent / 'config.toml'}"
    line = f"{member}: fold0 is unfinished, fold2 is missing; train it to its end first: {command}"
    assert refusal(member_weights, member, 1, "test_resnet") == line
    assert refusal(source_of, member) == refusal(digest, member) == line


def test_directories_that_are_no_member(source, tmp_path):
    member = source()
    run, fold = member.parent, member / "fold0"
    assert refusal(member_weights, run, 0, "x") == f"{run}: is a run; name one of its members, as {run}/NAME (small)"
    line = f"{fold}: is one fold; name its file {fold / 'model.safetensors'}, or its member {member}"
    assert refusal(member_weights, fold, 0, "x") == line
    line = (
        f"{tmp_path}: is no member of a run (it has no settings.json); want a safetensors file, or a directory such as "
        "runs/art/convnext"
    )
    assert refusal(digest, tmp_path) == line


def test_source_is_named_by_its_files_contents(source, tmp_path):
    member = source()
    files = [(member / f"fold{fold}" / "model.safetensors") for fold in range(3)]
    each = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert len(set(each)) == 3 and source_of(member) == each and source_of(files[1]) == each[1]
    assert digest(member) == hashlib.sha256(f"{each[0]}\n{each[1]}\n{each[2]}\n".encode()).hexdigest()
    member.parent.rename(tmp_path / "moved")
    assert json.loads(json.dumps(source_of(tmp_path / "moved" / "small"))) == each
    missing = tmp_path / "no.safetensors"
    line = f"{missing}: no such weights file (without a weights line, timm fetches its own)"
    assert refusal(source_of, missing) == refusal(digest, missing) == line


def test_rows_that_the_source_saw(source, weights):
    """Its folds: a 0, b 1, c 2, d 2, and e is trained on in all of them."""
    member = source()
    ids = np.array(["a", "b", "c", "d", "e", "new"])
    assert shared_rows(member, ids) == 5 and shared_rows(member, ids[5:]) == 0
    assert shared_rows(member, ids, np.array([0, 1, 2, 2, -1, 0])) == 0  # the same split: fold 1 starts from fold 1
    assert shared_rows(member, ids, np.array([0, 1, 2, 2, 0, 0])) == 1  # e, which is held out here
    assert shared_rows(member, ids, np.array([3, 1, 2, 0, -1, 0])) == 1  # d; fold 3 starts from fold 0, held out there
    fold0 = member / "fold0" / "model.safetensors"
    assert shared_rows(fold0, ids, np.array([0, 1, 2, 2, -1, 0])) == 3  # b, c, d
    assert shared_rows(fold0, ids) == 5
    assert shared_rows(weights(), ids, np.array([0, 1, 2, 2, -1, 0])) == 0


@pytest.mark.parametrize("name", ["soup", "refit0"])
def test_a_soup_and_a_refit_saw_the_rows_of_all_folds(source, name):
    member = source()
    file = (member / "fold0").rename(member / name) / "model.safetensors"
    assert shared_rows(file, np.array(["a", "b", "c", "d", "e", "new"]), np.array([0, 1, 2, 2, -1, 0])) == 4


@pytest.mark.parametrize("name", timm.list_models("test_*"))
def test_every_architecture_takes_the_weights_that_it_was_saved_with(name, tmp_path):
    torch.manual_seed(0)
    one = timm_model.create(name, 3, 64)
    save_file(one.state_dict(), tmp_path / "own.safetensors")
    two = timm_model.create(name, 4, 64, weights=tmp_path / "own.safetensors").state_dict()
    head = f"{one.pretrained_cfg['classifier']}."
    assert all(torch.equal(two[key], value) for key, value in one.state_dict().items() if not key.startswith(head))


# ---- input ---------------------------------------------------------------------------------------------------------


def test_preprocessing_is_the_backbones_own():
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert timm_model.preprocess_for("mobilenetv1_100", 224, None) == Preprocess(224, 256, "bicubic", HALF, HALF)
    assert timm_model.preprocess_for("mobilenetv2_100", 160, None) == Preprocess(160, 182, "bicubic", *imagenet)
    assert timm_model.preprocess_for("test_resnet", 64, None) == Preprocess(64, 67, "bilinear", HALF, HALF)
    clip = timm_model.preprocess_for("vit_base_patch16_clip_224.openai", 224, (300, 200))
    assert clip.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4) and clip.crop == (300, 200)
    assert clip.decode_size == int(224 / 0.9)


@pytest.mark.parametrize("size", [64, 96])
def test_backbone_of_fixed_input_size_is_made_for_the_size_asked(size):
    model = timm_model.create("test_vit", 3, size)
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
    fine_tuning.freeze(resnet, asked)
    assert trainable(resnet) == below(resnet, *prefixes)


def test_last_stage_of_a_transformer_has_its_norm():
    model = timm_model.create("test_vit", 3, 64)
    fine_tuning.freeze(model, 1)
    assert trainable(model) == below(model, "blocks.5.", "norm.", "head.")


def test_frozen_batch_norms_stop_measuring(resnet):
    fine_tuning.freeze(resnet, 1)
    before = copy.deepcopy(resnet.state_dict())
    fine_tuning.train_mode(resnet)
    resnet(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    moved = {name for name, value in resnet.state_dict().items() if not torch.equal(value, before[name])}
    measured = ("running_mean", "running_var", "num_batches_tracked")
    assert moved == {name for name in before if name.startswith("layer4.") and name.endswith(measured)} != set()
    assert resnet.training and resnet.layer4.training and not resnet.layer3.training


def test_train_mode_of_an_open_network_trains_all_of_it(resnet):
    resnet.eval()
    fine_tuning.train_mode(resnet)
    assert all(module.training for module in resnet.modules())


def test_only_trainable_matrices_decay(resnet):
    fine_tuning.freeze(resnet, 1)
    groups = {group["weight_decay"]: group["params"] for group in fine_tuning.parameter_groups(resnet, 0.05)}
    assert set(groups) == {0.0, 0.05}
    assert all(parameter.ndim == 1 for parameter in groups[0.0])
    assert all(parameter.ndim > 1 for parameter in groups[0.05])
    ours = {id(parameter) for name, parameter in resnet.named_parameters() if name.startswith(("fc.", "layer4."))}
    assert {id(parameter) for parameters in groups.values() for parameter in parameters} == ours


LAYERS = {"test_resnet": 6, "test_vit": 8, "test_convnext": 11, "test_efficientnet": 7}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_decay_lowers_the_rate_from_the_head_to_the_stem(name):
    model = timm_model.create(name, 3, 64)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = fine_tuning.parameter_groups(model, 0.05, layer_decay=0.5)
    found = {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
    assert found.keys() == dict(model.named_parameters()).keys()
    scales = [found[name] for name, _ in model.named_parameters()]
    assert scales == sorted(scales)  # parameters are named from the stem to the head
    assert sorted(set(scales)) == [0.5**layer for layer in reversed(range(LAYERS[name]))]
    head = model.pretrained_cfg["classifier"]
    assert found[f"{head}.weight"] == found[f"{head}.bias"] == 1
    decay = {names[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert all(decay[name] == (0.05 if value.ndim > 1 else 0) for name, value in model.named_parameters())


def test_layer_decay_leaves_frozen_parameters_out(resnet):
    fine_tuning.freeze(resnet, 1)
    groups = fine_tuning.parameter_groups(resnet, 0.05, layer_decay=0.5)
    assert {id(parameter) for group in groups for parameter in group["params"]} == {
        id(parameter) for name, parameter in resnet.named_parameters() if name.startswith(("fc.", "layer4."))
    }
    assert {group["lr_scale"] for group in groups} == {0.5, 1}


def test_without_layer_decay_groups_have_no_scale(resnet):
    assert [set(group) for group in fine_tuning.parameter_groups(resnet, 0.05)] == [{"params", "weight_decay"}] * 2


def test_an_optimizer_keeps_the_scales(resnet):
    optimizer = torch.optim.AdamW(fine_tuning.parameter_groups(resnet, 0.05, layer_decay=0.5), lr=1.0)
    kept = {name: value.clone() for name, value in resnet.named_parameters()}
    for group in optimizer.param_groups:
        group["lr"] = 1e-3 * group.get("lr_scale", 1.0)
    for parameter in resnet.parameters():
        parameter.grad = torch.ones_like(parameter)  # Adam's first step is then the rate itself
    optimizer.step()
    moved = {name: (kept[name] - value).abs().max().item() for name, value in resnet.named_parameters()}
    assert moved["fc.bias"] == pytest.approx(1e-3, rel=1e-3)
    assert moved["bn1.bias"] == pytest.approx(1e-3 / 32, rel=1e-3)


def test_head_lr_multiplies_the_classifiers_rate_alone(resnet):
    names = {id(parameter): name for name, parameter in resnet.named_parameters()}

    def scales(**options):
        groups = fine_tuning.parameter_groups(resnet, 0.05, **options)
        return {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}

    found = scales(head_lr=5)
    assert found.keys() == set(names.values())
    assert {name for name, scale in found.items() if scale == 5} == {"fc.weight", "fc.bias"}
    assert {scale for name, scale in found.items() if not name.startswith("fc.")} == {1}
    both, plain = scales(head_lr=5, layer_decay=0.5), scales(layer_decay=0.5)
    assert both == {name: scale * (5 if name.startswith("fc.") else 1) for name, scale in plain.items()}


def test_frozen_batch_norms_keep_their_statistics_and_learn_their_scale(resnet):
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    fine_tuning.train_mode(resnet, freeze_bn=True)
    resnet(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())
    assert resnet.bn1.weight.grad.abs().sum() > 0
    fine_tuning.train_mode(resnet)
    resnet(torch.randn(4, 3, 64, 64))
    assert not torch.equal(resnet.bn1.running_mean, before["bn1.running_mean"])


# ---- stochastic depth ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "mobilenetv3_small_050"])
def test_drop_path_skips_blocks_in_training_only(name):
    torch.manual_seed(0)
    plain = timm_model.create(name, 3, 64)
    torch.manual_seed(0)
    model = timm_model.create(name, 3, 64, drop_path=0.5)
    assert model.training and all(
        torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True)
    )
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model.eval()(images), plain.eval()(images))
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.ones_(module.eval().weight)  # timm starts a ResNet's blocks at 0: skipped or not
        assert not torch.equal(model(images), model(images))


@pytest.mark.parametrize("name", ["vgg11", "densenet121", "mobilenetv1_100", "lcnet_050", "test_efficientnet"])
def test_networks_without_stochastic_depth(name):
    """The first two refuse the rate by themselves; the others take it and have no block with a shortcut."""
    line = f"{name!r} takes no drop_path (now 0.25): timm has no stochastic depth for it; set it to 0"
    assert refusal(timm_model.create, name, 3, 64, drop_path=0.25) == line


def test_drop_path_at_a_size_that_the_network_cannot_take():
    line = refusal(timm_model.create, "test_vit", 3, 70, drop_path=0.25)
    assert (
        line == "'test_vit' does not work at image_size = 70: Input height (70) should be divisible by patch size (16)."
    )


# ---- features and classifier ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *timm.list_models("test_*"),
        *("mobilenetv3_small_100", "resnet18", "convnext_atto", "vit_tiny_patch16_224", "test_vit.r160_in1k"),
    ],
)
def test_classifier_of_the_embedding_is_the_logits(name):
    torch.manual_seed(0)
    model = timm_model.create(name, 3, 64)
    timm_model.check_embedding(model, 64)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        features, whole = timm_model.embed(model, images), timm_model.logits(model, images)
        layer = timm_model.classifier(model)
        assert features.dtype == torch.float32 and features.shape == (2, layer.in_features)
        assert whole.std() > 0 and torch.equal(layer(features), whole)


APART = "cannot be taken apart into features and a linear classifier:"


@pytest.mark.parametrize(
    "name, reason",
    [
        ("deit_tiny_distilled_patch16_224", "it ends in head (Linear) and head_dist (Linear), not in one Linear"),
        ("resnetv2_18", "it ends in head.fc (Conv2d), not in one Linear"),
        ("efficientvit_m0", "more than its classifier lies between features and logits"),  # a batch norm
        ("shvit_s1", "more than its classifier lies between features and logits"),
        ("caformer_s18", "more than its classifier lies between features and logits"),  # a layer of its own
    ],
)
def test_networks_that_cannot_be_taken_apart(name, reason):
    model = timm_model.create(name, 3, 64)
    assert refusal(timm_model.check_embedding, model, 64) == f"{name!r} {APART} {reason}"


def test_the_check_sees_through_a_classifier_of_zeros(weights):
    model = timm_model.create("test_resnet", 3, 64, weights=weights())
    timm_model.check_embedding(model, 64)
    plain = model.forward_head
    model.forward_head = lambda features, pre_logits=False: 2 * plain(features, pre_logits)  # 0 is 0 all the same
    assert refusal(timm_model.check_embedding, model, 64).startswith(f"'test_resnet' {APART} more than")


@pytest.mark.parametrize(
    "step, decay", [(0, 0.0), (1, 0.0), (2, 1 - 2 ** (-2 / 3)), (8, 1 - 8 ** (-2 / 3)), (10**6, 0.9)]
)
def test_moving_average_forgets_fast_at_first(step, decay):
    model = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(model.weight)
    average = fine_tuning.moving_average(model, 0.9)
    torch.nn.init.ones_(model.weight)
    average.update(model, step=step)
    assert average.module.weight.item() == pytest.approx(1 - decay, abs=1e-6)


def test_a_stage_of_norms_alone_is_no_stage():
    model = timm_model.create("test_convnext", 3, 64)
    fine_tuning.freeze(model, 1)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("stages.3.") and name.endswith("conv_dw.weight") for name in trainable)
    assert "head.norm.weight" in trainable and not any(name.startswith("stages.2.") for name in trainable)


def test_local_weights_of_another_image_size_are_resized(tmp_path):
    large = timm_model.create("test_vit", 3, 96)
    save_file(large.state_dict(), tmp_path / "large.safetensors")
    small = timm_model.create("test_vit", 3, 64, weights=tmp_path / "large.safetensors")
    assert small.pos_embed.shape != large.pos_embed.shape
    assert small.pos_embed.mean().item() == pytest.approx(large.pos_embed.mean().item(), abs=1e-3)
    assert torch.equal(small.blocks[0].mlp.fc1.weight, large.blocks[0].mlp.fc1.weight)


def test_logits_are_the_models_own():
    for name in ("test_resnet", "test_vit", "test_convnext", "test_efficientnet"):
        model = timm_model.create(name, 3, 64).eval()
        images = torch.randn(2, 3, 64, 64)
        with torch.inference_mode():
            assert torch.equal(timm_model.logits(model, images), model(images))
