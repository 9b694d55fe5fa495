"""Files that vouch for themselves: every byte that changes is noticed, in JSON and in safetensors files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from safetensors import safe_open
from safetensors.numpy import save_file

from ensemble.backbones.weights import read_tensors, write_state
from ensemble.errors import UserError
from ensemble.files import sealed
from ensemble.files.atomic import write_text
from ensemble.files.damage import loss_of
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.files.tensors import Tensor, of_array, write_tensors
from ensemble.run import Run
from ensemble.run.vouched import fold_metadata


def fold_of(path):
    """The fold whose directory a file lies in."""
    folder = path.parent
    return Run(folder.parent.parent).member(folder.parent.name).fold(int(folder.name.removeprefix("fold")))


def refused(call, path):
    with pytest.raises(UserError) as caught:
        call(path)
    return str(caught.value)


@pytest.fixture
def described(tmp_path):
    write_json(tmp_path / "a.json", {"classes": ["고양이", "NA"], "lr": 3e-4})
    return tmp_path / "a.json"


@pytest.fixture
def tensors(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {"bytes": np.arange(5, dtype=np.uint8), "values": np.arange(6, dtype=np.float32).reshape(2, 3)}
    write_tensors(path, {name: of_array(value) for name, value in arrays.items()}, {"member": "swin"})
    return path


def test_checksum_is_of_the_file_with_zeros_in_its_place(described):
    text = described.read_text(encoding="utf-8")
    stated = json.loads(text)["checksum"]
    assert text.endswith(f'"checksum": "{stated}"\n}}\n') and stated.startswith("xxh3:")
    blank = text.replace(stated, "xxh3:" + "0" * 32)
    assert stated == "xxh3:" + xxhash.xxh3_128(blank.encode()).hexdigest()


def test_value_comes_back_without_its_checksum(described):
    assert read_json(described) == {"classes": ["고양이", "NA"], "lr": 3e-4}


@pytest.mark.parametrize("change", [lambda byte: byte ^ 1, lambda byte: byte ^ 0x20, lambda byte: 0])
@pytest.mark.parametrize("kind", ["described", "tensors"])
def test_every_byte_that_changes_is_noticed(request, kind, change):
    path = request.getfixturevalue(kind)
    whole = path.read_bytes()
    read = read_json if kind == "described" else lambda path: read_tensors(path)
    for place, byte in enumerate(whole):
        if change(byte) == byte:
            continue
        harmed = bytearray(whole)
        harmed[place] = change(byte)
        path.write_bytes(harmed)
        assert refused(read, path).startswith(
            f"{path}: damaged: its bytes are not those that ens wrote; put it back"
        ), place
        assert refused(sealed.require_sound_file, path) == refused(read, path)
    path.write_bytes(whole)
    assert sealed.require_sound_file(path)


@pytest.mark.parametrize("kind", ["described", "tensors"])
@pytest.mark.parametrize("length", [60, -1])
def test_file_that_was_cut_short(request, kind, length):
    path = request.getfixturevalue(kind)
    path.write_bytes(path.read_bytes()[:length])
    assert refused(read_json if kind == "described" else read_tensors, path).startswith(f"{path}: ")


def test_files_from_before_there_were_checksums(tmp_path):
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "old.safetensors", {"log": "[]"})
    (tmp_path / "old.json").write_text('{"sha256": "abc"}\n')
    assert not sealed.require_sound_file(tmp_path / "old.safetensors")
    assert not sealed.require_sound_file(tmp_path / "old.json")
    assert read_json(tmp_path / "old.json") == {"sha256": "abc"}
    state, metadata = read_tensors(tmp_path / "old.safetensors")
    assert state["w"].tolist() == [1, 1, 1] and metadata == {"log": "[]"}


def test_list_has_no_checksum_of_its_own(tmp_path):
    write_json(tmp_path / "classes.json", ["a", "b"])
    assert (tmp_path / "classes.json").read_text() == '[\n  "a",\n  "b"\n]\n'
    assert read_json(tmp_path / "classes.json") == ["a", "b"]


def test_class_that_looks_like_a_checksum(tmp_path):
    value = {"classes": [sealed.BLANK, "xxh3:" + "a" * 32], "checksum": "of something else"}
    write_json(tmp_path / "a.json", {"classes": value["classes"]})
    assert read_json(tmp_path / "a.json") == {"classes": value["classes"]}


def test_digest_counts_the_checksum_as_zeros(tmp_path, described, tensors):
    assert sealed.digest(tensors) == sealed.file_checksum(tensors)
    assert sealed.digest(described) == sealed.file_checksum(described)
    (tmp_path / "log.jsonl").write_text("{}\n")
    assert sealed.digest(tmp_path / "log.jsonl") == xxhash.xxh3_128(b"{}\n").hexdigest()


def test_digest_of_a_file_longer_than_what_is_read_at_a_time(tmp_path):
    """The checksum of a JSON file lies at its end, where it can fall into two reads."""
    for length in range(2**18 - 60, 2**18 + 4):
        text = sealed.sealed_text("x" * (length - 40) + f"# checksum {sealed.BLANK}\n")
        (tmp_path / "a.toml").write_text(text)
        assert sealed.digest(tmp_path / "a.toml") == sealed.file_checksum(tmp_path / "a.toml")


# ---- safetensors ---------------------------------------------------------------------------------------------------


def test_safetensors_itself_reads_it(tensors):
    with safe_open(tensors, framework="numpy") as file:
        assert file.get_tensor("values").tolist() == [[0, 1, 2], [3, 4, 5]]
        assert file.get_tensor("bytes").tolist() == [0, 1, 2, 3, 4]
        assert file.metadata()["member"] == "swin"


def test_equal_contents_give_equal_bytes(tmp_path, tensors):
    arrays = {"bytes": np.arange(5, dtype=np.uint8), "values": np.arange(6, dtype=np.float32).reshape(2, 3)}
    write_tensors(tmp_path / "b", {name: of_array(value) for name, value in arrays.items()}, {"member": "swin"})
    assert (tmp_path / "b").read_bytes() == tensors.read_bytes()


def test_state_of_every_type_comes_back(tmp_path):
    state = {
        "half": torch.tensor([1.5, -2], dtype=torch.bfloat16),
        "steps": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "none": torch.empty(0, 3),
        "wide": torch.tensor([1e300], dtype=torch.float64),
    }
    write_state(tmp_path / "s.safetensors", state, {"log": "[1]"})
    found, metadata = read_tensors(tmp_path / "s.safetensors")
    assert metadata == {"log": "[1]"} and found.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype, name


@pytest.mark.parametrize(("piece", "said"), [(b"123", "1 bytes too few"), (b"12345", "1 bytes too many")])
def test_pieces_of_another_size_leave_no_file(tmp_path, piece, said):
    with pytest.raises(ValueError, match=f"w: its pieces are {said}"):
        write_tensors(tmp_path / "a.safetensors", {"w": Tensor("F32", (1,), [piece])}, {})
    assert list(tmp_path.iterdir()) == []


# ---- what belongs where --------------------------------------------------------------------------------------------


@pytest.fixture
def folds(tmp_path):
    """Two finished folds of one member."""
    for number in (0, 1):
        fold = Run(tmp_path).member("swin").fold(number)
        write_state(fold.model_file, {"w": torch.full((3,), float(number))}, fold_metadata(fold.model_file))
        write_text(fold.log_file, '{"epoch": 1}\n')
        fold.mark_done([fold.model_file, fold.log_file])
    return tmp_path / "swin"


def test_marker_holds_sizes_and_digests(folds):
    files = read_json(folds / "fold0" / "done.json")["files"]
    model = folds / "fold0" / "model.safetensors"
    assert files["model.safetensors"] == {"bytes": model.stat().st_size, "xxh3": sealed.file_checksum(model)}
    assert files["log.jsonl"] == {"bytes": 13, "xxh3": xxhash.xxh3_128(b'{"epoch": 1}\n').hexdigest()}


def test_weights_of_two_folds_that_were_exchanged(folds):
    one, other = folds / "fold0" / "model.safetensors", folds / "fold1" / "model.safetensors"
    one.rename(folds / "kept")
    other.rename(one)
    (folds / "kept").rename(other)
    again = f"ens train-folds {folds.parent}/config.toml trains that fold again"
    assert refused(read_tensors, one) == (
        f"{one}: holds swin, fold 1: files were exchanged; lost: the weights of swin, fold 0; {again}"
    )
    assert refused(read_tensors, other).startswith(f"{other}: holds swin, fold 0: files were exchanged")


def test_weights_of_the_same_fold_of_another_run(folds):
    path = folds / "fold0" / "model.safetensors"
    write_state(path, {"w": torch.full((3,), 9.0)}, {"member": "swin", "fold": "0"})
    assert refused(read_tensors, path).startswith(f"{path}: not the file that done.json was written with; lost: ")


def test_log_that_was_changed(folds):
    path = folds / "fold0" / "log.jsonl"
    assert fold_of(path).read_log() == [{"epoch": 1}]
    path.write_text('{"epoch": 2}\n')
    line = refused(lambda path: fold_of(path).read_log(), path)
    assert line.startswith(f"{path}: damaged: ") and "; lost: the learning curve of swin, fold 0, and no more; " in line


def test_damaged_marker(folds):
    path = folds / "fold0" / "done.json"
    path.write_text(path.read_text().replace("bytes", "bites", 1))
    assert refused(lambda path: fold_of(path).is_done(), path).endswith(
        f"lost: the mark that swin, fold 0 is whole; ens train-folds {folds.parent}/config.toml writes it again"
    )


@pytest.mark.parametrize("place", ["test-stack.safetensors", ".test-stack/a.safetensors", "logits/test/a.safetensors"])
def test_predictions_are_made_again_of_their_run(place):
    lost, again = loss_of(Path("runs/art/predictions") / place)
    assert (lost, again) == ("predictions", "ens tta-predict runs/art with the same images makes them again")
