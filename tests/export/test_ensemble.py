"""A whole ensemble as one graph: members of different networks, heads, views and sizes of views."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from recorder import Recorder

from ensemble.backbones import timm_model
from ensemble.backbones.heads import GaussianHead, NeighboursHead, linear_head
from ensemble.blend import Blend
from ensemble.blend.methods import Chain
from ensemble.blend.methods.mean import Mean
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.errors import RunFailure, UserError
from ensemble.events import SILENT
from ensemble.export import ensemble_onnx, parity
from ensemble.export.ensemble_module import EnsembleModule
from ensemble.export.ensemble_onnx import ensemble_to_onnx
from ensemble.export.formats import Artifact
from ensemble.inference.eval_model import EvalModel, prepared
from ensemble.inference.formats import Inference
from ensemble.inference.member import LoadedMember

CLASSES, ROWS = 3, 5
CPU = torch.device("cpu")
VIEWS = (("identity", "size40", "hflip"), ("rot90", "top-left", "scale1.15"))


def network(name, size, seed):
    torch.manual_seed(seed)
    return prepared(timm_model.create(name, CLASSES, size), Inference("cpu"), size, CPU)


def heads(features):
    draw = torch.Generator().manual_seed(0)

    def tensor(*shape):
        return torch.randn(*shape, generator=draw) / 4

    gaussian = GaussianHead(
        tensor(CLASSES, features), tensor(CLASSES), tensor(CLASSES, 2, features), tensor(CLASSES, 2)
    )
    rows = torch.nn.functional.normalize(tensor(20, features))
    neighbours = {"mean": tensor(features), "scale": torch.ones(features), "neighbours": rows}
    neighbours |= {"labels": torch.arange(20) % CLASSES, "weights": torch.ones(20), "prior": torch.full((3,), 1 / 3)}
    neighbours |= {"chosen": torch.tensor([4.0, 0.2, 1.5])}
    return linear_head(tensor(CLASSES, features), tensor(CLASSES)), gaussian, NeighboursHead(neighbours)


@pytest.fixture(scope="module")
def loaded():
    """A member of three networks, and one whose three folds share a network, with a head of each kind."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    first = Preprocess(32, 36, "bicubic", mean, std)
    second = Preprocess(48, 54, "bicubic", std, mean)
    trunk = network("test_vit", 48, 3).exact
    shared = EvalModel(Inference("cpu"), trunk, None, heads(trunk.num_features))
    return (
        LoadedMember("resnet", first, tuple(network("test_resnet", 32, seed) for seed in range(3))),
        LoadedMember("probe", second, (shared,)),
    )


@pytest.fixture(scope="module")
def blend():
    weights = ((0.5, 0.25, 0.25), (0.2, 0.3, 0.5))
    return Blend("mean", "log_loss", ("resnet", "probe"), VIEWS, ("a", "b", "c"), weights, Chain("mean", Mean()))


@pytest.fixture(scope="module")
def ensemble(blend, loaded):
    return EnsembleModule(blend, loaded)


@pytest.fixture(scope="module")
def content(ensemble):
    return ensemble_to_onnx(ensemble, CLASSES, {}, SILENT)


def squares(ensemble):
    draw = np.random.default_rng(0)
    return {
        name: draw.integers(0, 256, (ROWS, decoding.size, decoding.size, 3), dtype=np.uint8)
        for name, decoding in ensemble.inputs.items()
    }


def test_the_graph_gives_the_probabilities_of_prediction(blend, loaded, ensemble, content):
    given = squares(ensemble)
    [want] = parity.run_probabilities(blend, loaded, given, ensemble.inputs, SILENT)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert {value.name for value in session.get_inputs()} == {"squares_36", "squares_45", "squares_54"}
    for count in (1, ROWS):
        some = {name: pixels[:count] for name, pixels in given.items()}
        found, members = session.run(["probabilities", "member_probabilities"], some)
        assert np.abs(found - want[:count]).max() < 1e-5
        assert members.shape == (2, count, CLASSES) and np.allclose(members.sum(-1), 1, atol=1e-6)
    assert np.abs(want - want.mean(axis=0)).max() > 1e-3  # networks that tell images apart
    with torch.inference_mode():
        whole = ensemble(*(torch.from_numpy(pixels) for pixels in given.values()))
    assert np.abs(whole[0].numpy() - want).max() < 1e-5


def test_a_graph_holds_each_tensor_once(ensemble, content):
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model)
    contents = [(tensor.data_type, tuple(tensor.dims), tensor.raw_data) for tensor in model.graph.initializer]
    assert len(set(contents)) == len(contents)
    networks = sum(p.numel() * 4 for p in ensemble.networks.parameters())
    assert len(content) < networks + 400_000  # its views of two sizes and the heads share their networks
    assert not any(entry.value_info for entry in [model.graph])


def test_two_decodings_of_one_side_have_two_names(blend, loaded):
    first = loaded[0]
    other = Preprocess(32, 36, "bilinear", first.preprocess.mean, first.preprocess.std)
    both = [first, LoadedMember("probe", other, first.eval_models)]
    plain = Blend("mean", "log_loss", blend.members, (("identity",),) * 2, blend.classes, ((1.0,),) * 2, blend.chain)
    inputs = EnsembleModule(plain, both).inputs
    assert {name: each.interpolation for name, each in inputs.items()} == {
        "squares_36": "bicubic",
        "squares_36_1": "bilinear",
    }


def test_a_file_that_predicts_otherwise_is_refused(blend, loaded, ensemble):
    given = squares(ensemble)
    want = parity.run_probabilities(blend, loaded, given, ensemble.inputs, SILENT)

    def from_want(change):
        given = {"onnxruntime": want + 1e-7, "openvino": change(want.copy())}
        return Artifact({}, tuple(given), lambda engine: lambda squares: given[engine], lambda path, description: None)

    def swapped(probabilities):
        best = probabilities[0, 0].argmax()
        probabilities[0, 0, [best, best - 1]] = probabilities[0, 0, [best - 1, best]]
        return probabilities

    found = parity.compare(blend, want, from_want(lambda p: p + 1e-6), given, SILENT)
    assert (found.rows, found.changed) == (ROWS, 0) and found.largest == pytest.approx(1e-6, rel=0.1)
    with pytest.raises(
        RunFailure, match=r"^by openvino .* of 5 training images it predicts another class for 1, and a probability"
    ):
        parity.compare(blend, want, from_want(swapped), given, SILENT)
    with pytest.raises(
        RunFailure, match=r"another class for 0, and a probability differs by more than 0\.0001, or .* for 5 \("
    ):
        parity.compare(blend, want, from_want(lambda p: 0.9 * p + 0.1 / CLASSES), given, SILENT)
    with pytest.raises(RunFailure):
        parity.compare(blend, want, from_want(lambda p: p * np.nan), given, SILENT)


def test_a_file_is_refused_though_its_networks_are_sure(blend):
    want = np.tile([1 - 2e-5, 1e-5, 1e-5], (1, ROWS, 1))
    for change, is_near in ((9e-7, True), (2e-5, False)):
        found = want + np.array([-change, change, 0])
        made = Artifact({}, ("onnxruntime",), lambda engine, found=found: lambda squares: found, lambda *_: None)
        if is_near:
            assert parity.compare(blend, want, made, {}, SILENT).largest == pytest.approx(change, rel=0.1)
        else:
            with pytest.raises(RunFailure, match="a small one by more than a tenth of itself, for 5 "):
                parity.compare(blend, want, made, {}, SILENT)


def test_an_engine_that_cannot_read_the_file(blend, loaded, ensemble):
    given, events = squares(ensemble), Recorder()
    want = parity.run_probabilities(blend, loaded, given, ensemble.inputs, SILENT)

    def opened(engine):
        if engine == "openvino":
            raise UserError("the exported file: OpenVINO can't run it")
        return lambda squares: want

    both, one = (Artifact({}, names, opened, lambda *_: None) for names in (("openvino", "onnxruntime"), ("openvino",)))
    assert parity.compare(blend, want, both, given, events).changed == 0
    assert events.messages == ["the exported file: OpenVINO can't run it"]
    with pytest.raises(UserError, match="OpenVINO can't run it"):
        parity.compare(blend, want, one, given, events)


def test_networks_that_are_too_large_for_a_file(ensemble, monkeypatch):
    monkeypatch.setattr(ensemble_onnx, "LIMIT", 10_500_000)
    with pytest.raises(UserError, match=r"the networks have 0\.01 GB, and an ONNX file holds at most 2\.1 GB: expo"):
        ensemble_to_onnx(ensemble, CLASSES, {}, SILENT)


def test_a_member_that_cannot_be_exported_is_named(blend, loaded):
    class Refuses(torch.nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3)) if float(images.sum()) > 0 else images.amax(dim=(2, 3))

    odd = LoadedMember("resnet", loaded[0].preprocess, (EvalModel(Inference("cpu"), Refuses()),))
    with pytest.raises(
        UserError, match=r"^resnet: PyTorch's exporter can't write it as ONNX .*; leave it out: ens blend"
    ):
        ensemble_to_onnx(EnsembleModule(blend, [odd, loaded[1]]), CLASSES, {}, SILENT)
