"""A blend as a module and as a graph: the probabilities of every method, with all that may follow it."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ensemble.blend import Blend, methods
from ensemble.blend.methods.greedy import Greedy
from ensemble.blend.probabilities import softmax
from ensemble.blend.recipe import Recipe
from ensemble.blend.sources import Sources
from ensemble.export.blending import Blending, Power
from ensemble.inference.to_onnx import graph_of, with_weights
from ensemble.tta.apply import blend_folds

MEMBERS, ROWS, CLASSES = 3, 300, 4
VIEWS = (("identity",), ("identity", "hflip"), ("identity", "hflip", "rot90"))


def logits_and_labels():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, CLASSES, ROWS)
    z = draw.normal(size=(MEMBERS, ROWS, CLASSES)) * np.array([1, 3, 2])[:, None, None]
    z[:, np.arange(ROWS), labels] += 1.5
    z[0, :, 0] += 2 * (z[1, :, 1] > 1)
    return z.astype(np.float32), labels


def blend_of(method, *, metric="log_loss", shares=None, calibration="temperature"):
    z, labels = logits_and_labels()
    folds = np.arange(ROWS) % 3
    chain = methods.fit(Recipe(method, metric, shares, calibration=calibration), z, labels, folds, np.arange(ROWS))
    weights = ((1.0,), (0.25, 0.75), (0.5, 0.5 - 1e-3, 1e-3))
    return Blend(method, metric, ("a", "b", "c"), VIEWS, ("w", "x", "y", "z"), weights, chain)


def member_logits(networks=(2, 2, 2), rows=50, seed=1):
    draw = np.random.default_rng(seed)
    return [
        draw.normal(size=(count, len(views), rows, CLASSES), scale=3).astype(np.float32)
        for count, views in zip(networks, VIEWS, strict=True)
    ]


def given(logits):
    return {f"logits_{number}": torch.from_numpy(values) for number, values in enumerate(logits)}


def of_module(blend, logits):
    with torch.inference_mode():
        found = Blending(blend, [len(values) for values in logits])(*given(logits).values())
    return [value.numpy() for value in found]


def module_and_graph(blend, logits):
    """What the module gives, and what its graph gives."""
    module, tensors, want = Blending(blend, [len(values) for values in logits]), given(logits), of_module(blend, logits)
    model = with_weights(graph_of(module, tensors, "probabilities", "members", batch_dim=2), module)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    one = session.run(None, {name: values[:, :, :1].numpy() for name, values in tensors.items()})
    assert np.abs(one[0] - want[0][:1]).max() < 1e-6
    return want, session.run(None, {name: values.numpy() for name, values in tensors.items()})


@pytest.mark.parametrize("method", list(methods.METHODS))
def test_every_method(method):
    blend, logits = blend_of(method), member_logits()
    seen = module_and_graph(blend, logits) if method == "trees" else [of_module(blend, logits)]
    for found, members in seen:
        assert np.abs(found - blend_folds(blend, logits)).max() < 1e-6
        assert found.dtype == np.float32
        alone = np.stack([softmax(values.mean(axis=1)).mean(axis=0) for values in logits])
        assert np.abs(members - alone).max() < 1e-6


def test_temperature_priors_and_class_bias():
    shares = np.array([0.5, 0.5, 0.0, 1e-6])
    blend = blend_of("vote", metric="macro_f1", shares=shares / shares.sum())
    chain = replace(blend.chain, metric_bias=replace(blend.chain.metric_bias, metric_bias=np.array([1.0, -1, 0, 2])))
    blend = replace(blend, chain=chain)
    assert chain.temperature is not None and chain.prior_shift is not None
    logits = member_logits()
    for found, _ in module_and_graph(blend, logits):
        assert np.abs(found - blend_folds(blend, logits)).max() < 1e-6
        assert (found[:, 2] == 0).all()


@pytest.mark.parametrize("calibration", ["vector", "dirichlet", "auto"])
def test_a_scaling(calibration):
    blend, logits = blend_of("vote", calibration=calibration), member_logits()
    assert blend.chain.scaling is not None
    for found, _ in module_and_graph(blend, logits):
        assert np.abs(found - blend_folds(blend, logits)).max() < 1e-6
    if calibration != "auto":
        without = replace(blend, chain=replace(blend.chain, scaling=None))
        assert np.abs(blend_folds(without, logits) - blend_folds(blend, logits)).max() > 1e-3


def test_full_matrices_and_members_without_temperatures():
    blend, logits = blend_of("stack"), member_logits()
    draw = np.random.default_rng(2)
    weights = draw.normal(size=(MEMBERS, CLASSES, CLASSES))
    full = replace(blend.chain, learned=replace(blend.chain.learned, weights=weights, bias=draw.normal(size=CLASSES)))
    plain = methods.Chain("greedy", Greedy(np.array([0.5, 0.0, 0.5]), 1, 1, 0))
    for chain, made in ((full, module_and_graph), (plain, lambda *given: [of_module(*given)])):
        changed = replace(blend, chain=chain)
        for found, _ in made(changed, logits):
            assert np.abs(found - blend_folds(changed, logits)).max() < 2e-6


def test_runs_of_different_numbers_of_folds():
    sources = Sources({"b": "../b"}, {"": (0, 0, 1, 1), "b": (3, 0, 2, 1)})
    blend = replace(blend_of("stack"), members=("a", "b/b", "b/c"), sources=sources)
    logits = member_logits((2, 4, 4))
    for found, _ in module_and_graph(blend, logits):
        assert np.abs(found - blend_folds(blend, logits)).max() < 1e-6
    alone = member_logits((2, 4, 1))  # as a member with one network for all sets
    found, _ = of_module(blend, alone)
    assert np.abs(found - blend_folds(blend, alone)).max() < 1e-6


def test_a_power_of_small_probabilities_in_float32():
    """As OpenVINO computes it, where each power is below the least number."""
    found = Power(30.0)(torch.tensor([[0.0050, 0.0045, 0.0005]]))[0].numpy()
    np.testing.assert_allclose(found, [1 / (1 + 0.9**30), 0.9**30 / (1 + 0.9**30), 0], rtol=1e-4, atol=1e-25)
