"""Networks that other engines compute: nearly torch's logits, the same bits in any batch, only after a check."""

import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ensemble.backbones import timm_model
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.device import in_layout
from ensemble.errors import UserError
from ensemble.inference import compiled, formats
from ensemble.inference.choose_format import choose_inference, find_speeds
from ensemble.inference.compiled import compile_network, installed
from ensemble.inference.eval_model import EvalModel, exact_logits_of, folded, logits_of, prepared
from ensemble.inference.formats import Inference, engine_formats, inference_in, load_inference, save_inference
from ensemble.inference.member import missing_engines
from ensemble.inference.predict import Group, forward_views

CPU = torch.device("cpu")
PREPROCESS = Preprocess(32, 36, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


def each_engine(name):
    return pytest.param(name, marks=pytest.mark.skipif(name not in installed(), reason=f"{name} is not installed"))


@pytest.fixture(scope="module")
def networks():
    """Two networks of one architecture."""
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        made.append(folded(timm_model.create("test_efficientnet", 5, 32), 32).requires_grad_(False))
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """One for all tests, so that the architecture is exported once."""
    folder = tmp_path_factory.getbasetemp() / "engines"
    monkeypatch.setenv("ENS_CACHE", str(folder))
    return folder


@pytest.mark.skipif("openvino" not in installed(), reason="openvino is not installed")
def test_position_embeddings_of_another_size_are_those_of_torch():
    torch.manual_seed(0)
    network = folded(timm_model.create("test_vit", 5, 64), 64).requires_grad_(False)
    images = in_layout(torch.randn(2, 3, 48, 48))
    with torch.inference_mode():
        assert torch.allclose(compile_network(network, "openvino", "float32", 64)(images), network(images), atol=1e-5)


@pytest.mark.parametrize("engine", [each_engine("openvino"), each_engine("onnxruntime")])
def test_an_engine_gives_the_logits_of_torch_and_the_same_bits_in_any_batch(networks, engine):
    images = in_layout(torch.randn(16, 3, 32, 32))
    for network in networks:  # one graph, each network's own weights
        compute = compile_network(network, engine, "float32", 32)
        with torch.inference_mode():
            want, got = network(images), compute(images)
            assert got.dtype == torch.float32 and got.shape == (16, 5)
            assert torch.allclose(got, want, atol=1e-5) and not torch.equal(got, torch.zeros_like(got))
            for shift in (1, 7):
                other = compute(in_layout(images.roll(shift, 0)))
                assert torch.equal(other.roll(-shift, 0), got)
            alone = images.clone()
            alone[1:] = 0
            assert torch.equal(compute(alone)[0], got[0])
            one = compute(images[:1])
            assert one.shape == (1, 5) and torch.allclose(one, want[:1], atol=1e-5)
            larger = torch.randn(2, 3, 48, 48)  # a view of another size
            assert torch.allclose(compute(in_layout(larger)), network(larger), atol=1e-5)


@pytest.mark.parametrize("engine", [each_engine("openvino"), each_engine("onnxruntime")])
def test_any_number_of_threads_gives_the_same_bits(networks, engine):
    squares = {PREPROCESS.decoding: torch.randint(0, 256, (70, 36, 36, 3), dtype=torch.uint8)}
    group = Group(PREPROCESS, ("identity", "hflip"), (prepared(networks[0], Inference("cpu", engine=engine), 32, CPU),))
    usual = torch.get_num_threads()
    values = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            model = prepared(networks[0], Inference("cpu", engine=engine), 32, CPU)
            group = Group(PREPROCESS, ("identity", "hflip"), (model,))
            values.append(forward_views(group, squares, 16, CPU)[0])
        finally:
            torch.set_num_threads(usual)
    assert np.array_equal(*values) and len(np.unique(values[0])) > 500


@pytest.mark.parametrize("engine", [each_engine("openvino")])
def test_threads_share_a_network(networks, engine):
    compute = compile_network(networks[0], engine, "float32", 32)
    batches = [in_layout(torch.randn(4, 3, 32, 32)) for _ in range(8)]
    want = [compute(batch) for batch in batches]
    found = {}
    workers = [
        threading.Thread(target=lambda k=k: found.update({k: [compute(batches[k]) for _ in range(5)]}))
        for k in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(each, want[k]) for k in range(8) for each in found[k])


@pytest.mark.parametrize("engine", [each_engine("openvino"), each_engine("onnxruntime")])
def test_rows_near_a_tie_are_computed_by_torch(networks, engine):
    squares = {PREPROCESS.decoding: torch.randint(0, 256, (20, 36, 36, 3), dtype=torch.uint8)}

    def values(inference):
        return forward_views(
            Group(PREPROCESS, ("identity",), (prepared(networks[0], inference, 32, CPU),)), squares, 16, CPU
        )[0][0]

    exact, fast = values(Inference("cpu")), values(Inference("cpu", engine=engine))
    mixed = values(Inference("cpu", settle=1e9, engine=engine))
    assert not np.array_equal(exact, fast) and np.array_equal(exact, mixed) and np.allclose(exact, fast, atol=1e-5)


def test_a_network_with_an_engine_has_both_ways():
    network = EvalModel(Inference("cpu", engine="openvino"), torch.nn.Flatten(), lambda images: images.flatten(1) + 1)
    images = torch.zeros(2, 3, 1, 1)
    assert torch.equal(logits_of(network, images), torch.ones(1, 2, 3))
    assert torch.equal(exact_logits_of(network, images), torch.zeros(1, 2, 3))


# ---- graphs that are kept ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [each_engine("onnxruntime")])
def test_a_graph_is_exported_once_and_again_where_it_is_damaged(networks, engine, cache, monkeypatch):
    images = in_layout(torch.randn(2, 3, 32, 32))
    want = compile_network(networks[0], engine, "float32", 32)(images)
    files = list((cache / "graphs").glob("*.safetensors"))  # of both sizes
    exported = []
    make = compiled.graph_of
    monkeypatch.setattr(compiled, "graph_of", lambda *words: exported.append(1) or make(*words))
    for damage, times in ((False, 0), (True, 1)):
        for file in files if damage else ():
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        monkeypatch.setattr(compiled, "_graphs", {})
        assert torch.equal(compile_network(networks[0], engine, "float32", 32)(images), want)
        assert len(exported) == times


# ---- formats -------------------------------------------------------------------------------------------------------


def test_formats_have_names():
    for name in ("float32", "bfloat16", "openvino float32", "openvino bfloat16", "onnxruntime float32"):
        assert inference_in(name, CPU).format == name
    assert inference_in("openvino bfloat16", CPU) == Inference("cpu", "bfloat16", engine="openvino")
    assert inference_in("openvino bfloat16", CPU).input_dtype == torch.float32
    assert inference_in("bfloat16", CPU).input_dtype == torch.bfloat16


def test_engines_that_are_not_installed_offer_no_format(monkeypatch):
    monkeypatch.setattr(compiled, "installed", lambda: ("onnxruntime",))
    assert engine_formats(CPU) == ["onnxruntime float32"] and engine_formats(CPU, ["openvino"]) == []
    monkeypatch.setattr(compiled, "installed", lambda: ("openvino", "onnxruntime"))
    assert engine_formats(torch.device("cuda")) == []
    monkeypatch.setattr(formats, "formats", lambda device: ["float32"])
    assert engine_formats(CPU) == ["openvino float32", "onnxruntime float32"]
    monkeypatch.setattr(formats, "formats", lambda device: ["float32", "bfloat16"])
    assert set(engine_formats(CPU)) == {"openvino float32", "openvino bfloat16", "onnxruntime float32"}


@pytest.mark.parametrize("engine", [each_engine("onnxruntime")])
def test_an_engine_that_cannot_compute_a_network_is_left_out(networks, engine, monkeypatch):
    def fails(*words):
        raise ValueError("no such operation")

    monkeypatch.setattr(compiled, "_onnxruntime", fails)
    line = r"^ONNX Runtime can't compute a network \(no such operation\); where it is not installed, torch does$"
    with pytest.raises(UserError, match=line):
        compile_network(networks[0], engine, "float32", 32)(torch.zeros(1, 3, 32, 32))
    speeds, _ = find_speeds(lambda: networks[0], 32, 2, ["float32", "onnxruntime float32"], CPU)
    assert set(speeds) == {"float32"}


def test_an_engine_is_chosen_by_the_check_that_formats_pass():
    labels = np.arange(400) % 4
    exact = (np.random.default_rng(0).normal(size=(1, 400, 4)) + 3 * np.eye(4)[labels]).astype(np.float32)
    speeds = {"openvino bfloat16": 400.0, "openvino float32": 200.0, "float32": 100.0}
    wrong = {"openvino bfloat16": 1.1, "openvino float32": 1.000001}
    chosen, _ = choose_inference(speeds, exact, lambda name: exact * np.float32(wrong[name]), labels, CPU)
    assert (chosen.engine, chosen.dtype, chosen.changed) == ("openvino", "float32", 0.0)


def test_an_engine_that_fails_at_another_view_costs_no_trained_fold():
    def compute(name):
        raise UserError("OpenVINO can't compute a network")

    exact, labels = np.eye(4, dtype=np.float32)[np.arange(400) % 4][None], np.arange(400) % 4
    chosen, values = choose_inference({"openvino float32": 200.0, "float32": 100.0}, exact, compute, labels, CPU)
    assert chosen == Inference("cpu") and values is exact


def test_an_engine_of_a_newer_ens_is_missing_too(tmp_path):
    file = tmp_path / "inference.json"
    save_inference(file, Inference("cpu", engine="tensorrt"))
    network = SimpleNamespace(inference_json=file, member=SimpleNamespace(name="net"))
    assert missing_engines([network], CPU).startswith("net: was evaluated with tensorrt, which is not installed here")


def test_what_torch_computes_is_stored_as_before(tmp_path):
    file = tmp_path / "inference.json"
    save_inference(file, Inference("cpu", "bfloat16", 0.1))
    assert "engine" not in json.loads(file.read_text())
    chosen = Inference("cpu", "float32", 1e-5, engine="onnxruntime")
    save_inference(file, chosen)
    assert json.loads(file.read_text())["engine"] == "onnxruntime"


def test_without_the_engine_torch_computes_in_float32(tmp_path, monkeypatch):
    file = tmp_path / "inference.json"
    chosen = Inference("cpu", "float32", 1e-5, engine="onnxruntime")
    save_inference(file, chosen)
    monkeypatch.setattr(compiled, "installed", lambda: ("onnxruntime",))
    assert load_inference(file, CPU) == chosen and formats.missing_engine(file, CPU) is None
    monkeypatch.setattr(compiled, "installed", lambda: ())
    assert load_inference(file, CPU) == Inference("cpu") and formats.missing_engine(file, CPU) == "onnxruntime"
    assert formats.missing_engine(file, torch.device("cuda")) is None
