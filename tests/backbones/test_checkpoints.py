"""Weights files as others save them: containers, prefixes, pickles, transformers of another size."""

import argparse
import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ensemble.backbones import timm_model
from ensemble.backbones.checkpoints import read_checkpoint
from ensemble.config import Backbone
from ensemble.errors import UserError


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return timm_model.create("test_resnet", 5, 64)


@pytest.fixture
def load(tmp_path, resnet):
    """load(held, name): the first weights of a network made of a file that holds it, and the line that is said."""

    def write_and_load(held, name="own.pth"):
        torch.save(held, tmp_path / name)
        lines = []
        model = timm_model.create("test_resnet", 3, 64, weights=tmp_path / name, on_loaded=lines.append)
        state = model.state_dict()
        body = {key: value for key, value in resnet.state_dict().items() if not key.startswith("fc.")}
        same = all(torch.equal(state[key], value) for key, value in body.items())
        assert not model.fc.weight.any() and len(lines) == 1
        return same, lines[0].removeprefix(f"{tmp_path / name}: ")

    return write_and_load


def refusal(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def other(state):
    return {key: value + 1 for key, value in state.items()}


LOADED = "tensors loaded"
LEFT = "left aside: fc.weight, fc.bias, none missing"


@pytest.mark.parametrize("name", ["own.pth", "own.pt", "own.bin", "own.ckpt", "own.pth.tar", "own", "own.weights"])
def test_every_ending_is_read_by_its_contents(load, resnet, name):
    same, line = load(resnet.state_dict(), name)
    assert same and re.fullmatch(rf"\d+ {LOADED}, {LEFT}", line)


def test_safetensors_under_another_name(resnet, tmp_path):
    for name in ("own.bin", "own.pth", "own"):
        save_file(resnet.state_dict(), tmp_path / name)
        model = timm_model.create("test_resnet", 3, 64, weights=tmp_path / name)
        assert torch.equal(model.conv1[0].weight, resnet.conv1[0].weight)


def test_the_old_form_of_torchs_files(resnet, tmp_path):
    torch.save(resnet.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    model = timm_model.create("test_resnet", 3, 64, weights=tmp_path / "old.pth")
    assert torch.equal(model.conv1[0].weight, resnet.conv1[0].weight)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "model.",
        "_orig_mod.",
        "backbone.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "module.model.backbone.",
    ],
)
def test_prefixes_are_taken_off_however_nested(load, resnet, prefix):
    same, line = load(prefixed(resnet.state_dict(), prefix))
    assert same and re.fullmatch(rf"\d+ {LOADED} \(without the prefix '{re.escape(prefix)}'\), {LEFT}", line)


def test_prefixes_in_a_safetensors_file(resnet, tmp_path):
    save_file(prefixed(resnet.state_dict(), "module."), tmp_path / "own.safetensors")
    model = timm_model.create("test_resnet", 3, 64, weights=tmp_path / "own.safetensors")
    assert torch.equal(model.conv1[0].weight, resnet.conv1[0].weight)


@pytest.mark.parametrize("container", ["state_dict", "state_dict_ema", "model_ema", "model"])
def test_containers(load, resnet, container):
    held = {"epoch": 3, "arch": "resnet", "optimizer": {"state": {}}, container: OrderedDict(resnet.state_dict())}
    same, line = load(held)
    assert same and f"{LOADED} (its {container}), {LEFT}" in line


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema"])
@pytest.mark.parametrize("plain", ["state_dict", "model"])
def test_the_moving_average_comes_first(load, resnet, average, plain):
    held = {plain: other(resnet.state_dict()), average: prefixed(resnet.state_dict(), "module.")}
    same, line = load(held)
    assert same and f"(its {average}, without the prefix 'module.')" in line
    same, line = load({plain: resnet.state_dict(), average: None})
    assert same and f"(its {plain})" in line


def test_a_container_in_another(load, resnet):
    same, line = load({"model": {"state_dict": prefixed(resnet.state_dict(), "model.")}})
    assert same and "(its model[state_dict], without the prefix 'model.')" in line


def test_what_stands_beside_the_network_is_left_and_named(load, resnet):
    held = prefixed(resnet.state_dict(), "model.") | {"criterion.weight": torch.ones(5), "head.0.bias": torch.ones(2)}
    same, line = load({"state_dict": held, "lr_schedulers": [], "hyper_parameters": {"lr": 0.1}})
    assert same and "left aside: fc.weight, fc.bias and 2 more, none missing" in line


def test_without_a_classifier(load, resnet):
    same, line = load({key: value for key, value in resnet.state_dict().items() if not key.startswith("fc.")})
    assert same and line.endswith("no classifier in it, none missing")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(load, resnet, value):
    state = {key: tensor.clone() for key, tensor in resnet.state_dict().items()}
    state["bn1.weight"][0] = value
    with pytest.raises(UserError, match=r"own.pth: 'bn1.weight' holds NaN or infinite numbers, .*: take an earlier"):
        load(state)


def test_files_from_before_batches_were_counted(load, resnet):
    same, _ = load({key: value for key, value in resnet.state_dict().items() if "num_batches" not in key})
    assert same


def test_timms_own_checkpoints_hold_their_arguments(load, resnet):
    same, line = load({"state_dict": resnet.state_dict(), "args": argparse.Namespace(lr=0.1), "epoch": 3})
    assert same and "(its state_dict)" in line


# what is refused


def test_anything_missing_beside_the_classifier(load, resnet, tmp_path):
    state = prefixed(resnet.state_dict(), "module.")
    del state["module.bn1.bias"]
    path = tmp_path / "own.pth"
    assert refusal(load, state) == f"{path}: does not fit 'test_resnet': it lacks 'bn1.bias' (1 such)"
    renamed = {key.replace("layer1", "stage1"): value for key, value in resnet.state_dict().items()}
    line = refusal(load, renamed)
    count = sum(key.startswith("stage1") for key in renamed)
    counted = sum(key.startswith("stage1") and "num_batches" not in key for key in renamed)
    first = next(key for key in renamed if key.startswith("stage1"))
    assert line == (
        f"{path}: does not fit 'test_resnet': it lacks {first.replace('stage1', 'layer1')!r} ({counted} such) and has "
        f"an unknown {first!r} ({count} such)"
    )


class Widget:
    def __reduce__(self):
        return Path.touch, (Path(__file__).parent / "must-not-be-made",)


def test_a_pickle_of_other_objects_is_never_run(tmp_path, resnet):
    path = tmp_path / "own.pth"
    torch.save({"state_dict": resnet.state_dict(), "config": Widget()}, path)
    line = refusal(timm_model.create, "test_resnet", 3, 64, weights=path)
    assert line.startswith(f"{path}: holds Python objects besides tensors (") and "Path" in line
    assert line.endswith("; save the network's weights alone: torch.save(model.state_dict(), FILE)")
    torch.save(resnet, path)
    assert refusal(timm_model.create, "test_resnet", 3, 64, weights=path).startswith(
        f"{path}: holds Python objects besi"
    )
    assert not (Path(__file__).parent / "must-not-be-made").exists()


def test_files_that_are_damaged_or_hold_no_state(tmp_path, resnet):
    path = tmp_path / "own.pth"
    torch.save(resnet.state_dict(), path)
    whole = path.read_bytes()
    for data in (b"", b"PK", whole[:100], whole[: len(whole) // 2], b"\x80\x02junk", b"<html>404</html>"):
        path.write_bytes(data)
        line = refusal(timm_model.create, "test_resnet", 3, 64, weights=path)
        assert line.startswith(f"{path}: not a whole PyTorch checkpoint (") and "\n" not in line
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "a")
    assert refusal(read_checkpoint, path, []).startswith(f"{path}: not a whole PyTorch checkpoint (")
    torch.save({"epoch": 3, "lr": 0.1}, path)
    assert refusal(read_checkpoint, path, []).startswith(f"{path}: holds no state dict (it holds 'epoch', 'lr'); save")
    torch.save([torch.zeros(3)], path)
    assert refusal(read_checkpoint, path, []).startswith(f"{path}: holds a list, not a state dict; save")
    path.unlink()
    assert refusal(read_checkpoint, path, []) == (
        f"{path}: no such weights file (without a weights line, timm fetches its own)"
    )


def test_names_of_torchvision_are_told_apart(tmp_path):
    from torchvision.models import mobilenet_v3_small

    path = tmp_path / "torchvision.pth"
    torch.save(mobilenet_v3_small().state_dict(), path)
    line = refusal(timm_model.create, "mobilenetv3_small_100", 3, 64, weights=path)
    start, end = line.split(" and has an ")
    assert start.startswith(f"{path}: does not fit 'mobilenetv3_small_100': it lacks 'conv_stem.weight' (")
    assert re.fullmatch(r"unknown 'features\.0\.0\.weight' \(\d+ such\)", end)


# transformers at another size


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3", "test_vit4"])
@pytest.mark.parametrize("sizes", [(96, 64), (64, 96)])
def test_position_embeddings_are_resampled(tmp_path, name, sizes):
    torch.manual_seed(0)
    there = timm_model.create(name, 3, sizes[0])
    torch.save({"model": prefixed(there.state_dict(), "module.")}, tmp_path / "own.pth")
    lines = []
    here = timm_model.create(name, 4, sizes[1], weights=tmp_path / "own.pth", on_loaded=lines.append)
    assert "1 resized to the image size" in lines[0] and here(torch.zeros(1, 3, sizes[1], sizes[1])).shape == (1, 4)
    prefix = 0 if there.no_embed_class else there.num_prefix_tokens
    assert torch.equal(here.pos_embed[:, :prefix], there.pos_embed[:, :prefix])
    means = [model.pos_embed[0, prefix:].mean(dim=0) for model in (here, there)]
    assert torch.allclose(*means, atol=0.01)
    blocks = [key for key in there.state_dict() if key.startswith("blocks.")]
    assert all(torch.equal(here.state_dict()[key], there.state_dict()[key]) for key in blocks)


def test_a_flat_position_embedding_stays_flat(tmp_path):
    there = timm_model.create("test_vit", 3, 96)
    with torch.no_grad():
        there.pos_embed[:] = 0.25
    save_file(there.state_dict(), tmp_path / "own.safetensors")
    here = timm_model.create("test_vit", 3, 64, weights=tmp_path / "own.safetensors")
    assert here.pos_embed.shape == (1, 17, 64) and torch.allclose(here.pos_embed, torch.tensor(0.25))


def test_positions_that_timm_does_not_convert_are_resampled_too(tmp_path):
    there = timm_model.create("cait_xxs24_224", 3, 96)
    with torch.no_grad():
        there.pos_embed[:] = torch.linspace(0, 1, 6).repeat_interleave(6)[:, None]  # darker to brighter, row by row
    torch.save(there.state_dict(), tmp_path / "own.pth")
    here = timm_model.create("cait_xxs24_224", 3, 64, weights=tmp_path / "own.pth")
    rows = here.pos_embed.reshape(4, 4, -1)
    assert torch.allclose(rows, rows[:, :1, :1]) and (rows[1:, 0, 0] > rows[:-1, 0, 0]).all()
    assert rows.mean().item() == pytest.approx(0.5, abs=1e-3)


def test_relative_positions_of_windows_are_resampled(tmp_path):
    """A Swin of 7 x 7 windows at 224 px has 4 x 4 ones at 128 px."""
    there = timm_model.create("swin_tiny_patch4_window7_224", 3, 224)
    torch.save(there.state_dict(), tmp_path / "own.pth")
    here = timm_model.create("swin_tiny_patch4_window7_224", 3, 128, weights=tmp_path / "own.pth")
    key = "layers.0.blocks.0.attn.qkv.weight"
    assert torch.equal(here.state_dict()[key], there.state_dict()[key])
    assert here(torch.zeros(1, 3, 128, 128)).shape == (1, 3)


# names


@pytest.mark.parametrize(
    "name", ["timm/resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k", "hf_hub:timm/resnet18.a1_in1k"]
)
def test_timms_repositories_on_the_hub_are_its_own_names(name):
    assert Backbone(name="a", timm=name).timm == "resnet18.a1_in1k"


@pytest.mark.parametrize("name", ["hf-hub:someone/net", "someone/resnet18", "local-dir:/nets/a"])
def test_other_repositories_are_refused_by_name(name):
    line = refusal(timm_model.check_name, Backbone(name="a", timm=name).timm)
    assert line.startswith(f"timm model {name!r}: of the hub's repositories ens knows only timm's") and "\n" not in line
