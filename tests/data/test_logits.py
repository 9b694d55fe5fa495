"""Logits with ids: kept, aligned, and refused where they are not whole."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ensemble.data.logits import Logits, load_logits
from ensemble.errors import UserError

IDS = ("가/한 글.png", "b.png", "007")


def logits(ids=IDS, shape=(2, 3, 4), **changes):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    fields = {"ids": np.array(ids), "views": ("identity", "hflip"), "classes": ("NA", "007", "개", "d")}
    return Logits(**{**fields, "values": values, "meta": {"made by": "시험"}, **changes})


def assert_same(one, other):
    assert one.ids.tolist() == other.ids.tolist()
    assert (one.views, one.classes, one.meta) == (other.views, other.classes, other.meta)
    assert one.values.dtype == other.values.dtype == np.float32
    assert np.array_equal(one.values, other.values)


@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 2, 3, 4)])
def test_logits_come_back_to_the_bit(tmp_path, shape):
    kept = logits(shape=shape)
    kept.save(tmp_path / "deep" / "oof.safetensors")
    assert_same(load_logits(tmp_path / "deep" / "oof.safetensors"), kept)


def test_values_that_do_not_lie_in_order_are_kept_in_order(tmp_path):
    kept = logits(values=np.asfortranarray(logits().values))
    kept.save(tmp_path / "oof.safetensors")
    assert_same(load_logits(tmp_path / "oof.safetensors"), kept)


@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 2, 3, 4)])
def test_align_puts_rows_into_the_order_asked_for(shape):
    kept = logits(shape=shape)
    aligned = kept.align(np.array(["007", IDS[0]]))
    assert aligned.ids.tolist() == ["007", IDS[0]]
    assert np.array_equal(aligned.values, kept.values[..., [2, 0], :])
    assert (aligned.views, aligned.classes, aligned.meta) == (kept.views, kept.classes, kept.meta)


def test_align_names_the_first_missing_id():
    with pytest.raises(UserError) as caught:
        logits().align(np.array(["b.png", "x.png", "y.png"]), "runs/art/swin")
    assert str(caught.value) == "runs/art/swin: no row for id 'x.png' (2 of 3 are missing)"


def test_repeated_id():
    with pytest.raises(ValueError, match=r"^id 'b.png' is there twice$"):
        logits(ids=("b.png", "a.png", "b.png"))


@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 3, 4), (2, 3, 5), (3, 4), (1, 1, 2, 3, 4)])
def test_shape_mismatch_says_both(shape):
    with pytest.raises(ValueError) as caught:
        logits(shape=shape)
    assert str(caught.value) == f"values are float32 {shape}, want float32 ([K,] V, N, C) = (2, 3, 4)"


def test_other_precision_is_refused():
    with pytest.raises(ValueError, match=r"^values are float64 \(2, 3, 4\), want float32"):
        logits(values=np.zeros((2, 3, 4)))


def refusal(path):
    with pytest.raises(UserError) as caught:
        load_logits(path)
    return str(caught.value)


def test_missing_file(tmp_path):
    assert refusal(tmp_path / "no.safetensors") == f"{tmp_path / 'no.safetensors'}: no such file"


def test_file_cut_short_anywhere(tmp_path):
    path = tmp_path / "swin" / "fold3" / "oof.safetensors"
    logits().save(path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        line = refusal(path)
        again = f"ens train-folds {tmp_path}/config.toml trains that fold again"
        assert line.startswith(f"{path}: ")
        assert line.endswith(f"; lost: the out-of-fold logits of swin, fold 3; {again}")


def test_other_safetensors_files_are_no_logits(tmp_path):
    path = tmp_path / "oof.safetensors"
    save_file({"fc.weight": np.zeros(3)}, path)
    assert refusal(path).startswith(f"{path}: not a whole logits file (")
    save_file({"fc.weight": np.zeros(3)}, path, {"views": "[]"})
    assert refusal(path).startswith(f"{path}: not a whole logits file (")


def test_file_with_a_repeated_id_or_too_few_rows(tmp_path):
    path = tmp_path / "oof.safetensors"
    logits(ids=("a", "b", "c")).save(path)
    tensors = load_file(path)
    header = {"views": json.dumps(["identity", "hflip"]), "classes": json.dumps(list("wxyz")), "meta": "{}"}
    save_file({**tensors, "id_bytes": np.frombuffer(b"aba", dtype=np.uint8)}, path, header)
    assert refusal(path).startswith(f"{path}: not a whole logits file (id 'a' is there twice); ")
    save_file({**tensors, "values": tensors["values"][:, :2].copy()}, path, header)
    assert "(values are float32 (2, 2, 4), want float32 ([K,] V, N, C) = (2, 3, 4))" in refusal(path)
