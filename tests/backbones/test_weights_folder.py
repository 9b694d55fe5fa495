"""Which architectures the files of a folder are."""

import json

import pytest
import torch
from safetensors.torch import save_file

from ensemble.backbones.weights_folder import weights_in
from ensemble.errors import UserError


def save(path, architecture=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    config = None if architecture is None else {"config": json.dumps({"architecture": architecture})}
    save_file({"x": torch.zeros(1)}, path, config)


def found(folder):
    files, notes = weights_in(folder)
    return {file.name: file.timm for file in files}, notes


def test_a_header_says_the_architecture_and_the_name_adds_the_tag(tmp_path):
    save(tmp_path / "mine.safetensors", "resnet18")
    save(tmp_path / "resnet18.a1_in1k.safetensors", "resnet18")
    save(tmp_path / "resnet50.safetensors", "resnet34")
    assert found(tmp_path) == (
        {"mine": "resnet18", "resnet18-a1_in1k": "resnet18.a1_in1k", "resnet50": "resnet34"},
        [],
    )


def test_names_begin_with_the_longest_architecture_that_timm_has(tmp_path):
    for name in ("resnet50_a1_0-14fe96d1.pth", "mobilenetv1_100.coral.pt", "resnet50d-weights.bin", "README.md"):
        (tmp_path / name).write_bytes(b"x")
    save(tmp_path / "vit_tiny_patch16_224" / "model.safetensors")
    assert found(tmp_path)[0] == {
        "mobilenetv1_100-coral": "mobilenetv1_100",
        "resnet50_a1_0-14fe96d1": "resnet50",
        "resnet50d-weights": "resnet50d",
        "vit_tiny_patch16_224": "vit_tiny_patch16_224",
    }


def test_what_is_left_out_is_named(tmp_path):
    save(tmp_path / "resnet18.safetensors")
    save(tmp_path / "unknown.safetensors", "resnet18000")
    (tmp_path / "resnet18.pth").write_bytes(b"x")
    (tmp_path / "resnet34.safetensors").write_bytes(b"x")
    (tmp_path / "resnetlike.pth").write_bytes(b"x")
    names, notes = found(tmp_path)
    assert names == {"resnet18": "resnet18"}
    assert len(notes) == 4
    assert notes[0] == f"{tmp_path / 'resnet18.pth'}: left out, since resnet18.safetensors has the same name"
    assert notes[1].startswith(f"{tmp_path / 'resnet34.safetensors'}: not a whole safetensors file (")
    assert notes[2] == (
        f"{tmp_path / 'resnetlike.pth'}: no architecture of timm is named like the beginning of 'resnetlike'; left out"
    )
    assert "its header says architecture 'resnet18000', which timm does not know; left out" in notes[3]


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(UserError, match="0 weights files in it, none of which ens recognises"):
        weights_in(tmp_path)
    with pytest.raises(UserError, match="No such file or directory; --weights-dir wants a folder"):
        weights_in(tmp_path / "none")
    with pytest.raises(UserError, match="Not a directory; --weights-dir wants a folder"):
        weights_in(tmp_path / "README.md")
