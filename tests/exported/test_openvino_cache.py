"""Compiled graphs in the machine's cache: given again to the bit, and never damaged, old or different ones."""

import os

import numpy as np
import pytest
from exported_file import content, description

from ensemble.data.cache.store import clear
from ensemble.exported import engines, openvino_cache
from ensemble.exported.model import load_exported
from ensemble.files.tensors import of_array, write_tensors

openvino = pytest.importorskip("openvino")


class Spied:
    """OpenVINO's core, which counts what it compiles. imported: what is given in place of what it imports."""

    def __init__(self):
        self.core, self.compiled, self.imported = openvino.Core(), 0, None

    def compile_model(self, *more):
        self.compiled += 1
        return self.core.compile_model(*more)

    def import_model(self, *more):
        return self.imported or self.core.import_model(*more)

    def __getattr__(self, name):
        return getattr(self.core, name)


@pytest.fixture
def core(monkeypatch):
    spied = Spied()
    monkeypatch.setattr(engines, "openvino_core", lambda: spied)
    return spied


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("ENS_CACHE", str(folder))
    return folder


def entries(cache):
    return sorted((cache / "compiled").glob("*"))


def probabilities(path):
    drawn = np.random.default_rng(1)
    squares = {f"squares_{side}": drawn.integers(0, 256, (3, side, side, 3), dtype=np.uint8) for side in (32, 40)}
    return np.concatenate([each.ravel() for each in load_exported(path, 1, "openvino").probabilities(squares)])


def test_a_file_is_compiled_once(exported, cache, core, tmp_path):
    first = probabilities(exported)
    assert np.array_equal(probabilities(exported), first) and core.compiled == 1
    assert len(entries(cache)) == 1
    other = tmp_path / "other.onnx"
    other.write_bytes(content(description(blend="other")))
    probabilities(other)
    load_exported(exported, 2, "openvino")  # with other options
    assert core.compiled == 3 and len(entries(cache)) == 3
    assert clear(cache) > 0 and not (cache / "compiled").exists()


def test_another_version_compiles_anew(exported, cache, core, monkeypatch):
    probabilities(exported)
    monkeypatch.setattr(openvino, "get_version", lambda: "2031.1.0")
    probabilities(exported)
    assert core.compiled == 2 and len(entries(cache)) == 2


@pytest.mark.parametrize("whole", [False, True])
def test_a_damaged_entry_is_compiled_anew(exported, cache, core, whole):
    first = probabilities(exported)
    [entry] = entries(cache)
    sound = entry.read_bytes()
    if whole:  # with a checksum of its own, and no graph
        write_tensors(entry, {"graph": of_array(np.arange(100, dtype=np.uint8))}, {})
    else:
        entry.write_bytes(sound[:-50] + bytes([sound[-50] ^ 1]) + sound[-49:])
    assert np.array_equal(probabilities(exported), first) and core.compiled == 2
    assert np.array_equal(probabilities(exported), first) and core.compiled == 2


def test_what_computes_something_else_is_not_kept(exported, cache, core, tmp_path):
    sharper = content().replace(np.float32(9.0).tobytes(), np.float32(8.5).tobytes())
    core.imported = core.core.compile_model(
        core.core.read_model(sharper), "CPU", engines.openvino_options(1, "float32")
    )
    probabilities(exported)
    assert core.compiled == 1 and entries(cache) == []


def test_nothing_is_kept_without_a_cache_or_beyond_its_room(exported, cache, core, monkeypatch, tmp_path):
    monkeypatch.setenv("ENS_CACHE", str(tmp_path / "none"))
    first = probabilities(exported)
    assert not (tmp_path / "none").exists()
    monkeypatch.setenv("ENS_CACHE", str(cache))
    monkeypatch.setattr(openvino_cache, "MOST_BYTES", 10)
    for threads in (1, 2):
        load_exported(exported, threads, "openvino")
    assert len(entries(cache)) == 1  # the last one
    load_exported(exported, 2, "openvino")
    assert core.compiled == 3
    (cache / "compiled").chmod(0o500)
    assert np.array_equal(probabilities(exported), first)
    (cache / "compiled").chmod(0o700)


def test_a_cache_that_may_only_be_read_serves(exported, cache, core, monkeypatch):
    first = probabilities(exported)

    def refused(path):
        raise PermissionError(path)

    monkeypatch.setattr(os, "utime", refused)  # as where another user has made it
    assert np.array_equal(probabilities(exported), first) and core.compiled == 1
