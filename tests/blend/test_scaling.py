"""Vector scaling and Dirichlet calibration of a blend: the fit, the choice, and every place that a blend goes to."""

from dataclasses import dataclass

import numpy as np
import pytest
from click.testing import CliRunner
from report_runs import noisy_logits, write_run
from test_blend_run import make_run

from ensemble.blend import BlendOptions, blend_run, load_blend, methods, read_result, scaling
from ensemble.blend.described import read_described
from ensemble.blend.methods.method import Method
from ensemble.blend.oof import read_rows
from ensemble.blend.recipe import Recipe
from ensemble.blend.refitted import cross_fitted
from ensemble.cli import ens
from ensemble.errors import UserError
from ensemble.files.sealed import write_json
from ensemble.run import Run
from ensemble.scoring.row_values import row_losses
from ensemble.tables.calibration import calibration_lines


def rows_of(probs, draw):
    return (probs.cumsum(axis=1) < draw.random((len(probs), 1))).sum(axis=1)


def test_a_bias_by_hand():
    # all rows at .5, eight of ten of class 0, and one row's weight of either: 8.5 of 11
    x, labels = np.full((10, 2), np.log(0.5)), np.repeat([0, 1], [8, 2])
    for family in scaling.FAMILIES:
        weights, bias = scaling.solve(family, 1e-9, x, labels)
        found = scaling.apply(scaling.Scaling(family, weights, bias, 1e-9), np.full((1, 2), 0.5))
        assert found[0] == pytest.approx([8.5 / 11, 2.5 / 11], abs=1e-4)
    # so strong a penalty that nothing is left to learn, but for the diagonal, which Dirichlet's leaves free
    weights, bias = scaling.solve("vector", 1e6, x, labels)
    assert weights == pytest.approx([1, 1], abs=1e-5) and bias == pytest.approx([0, 0], abs=1e-5)
    weights, bias = scaling.solve("dirichlet", 1e6, x, labels)
    assert weights[[0, 1], [1, 0]] == pytest.approx([0, 0], abs=1e-5) and weights[0, 0] < weights[1, 1]


@pytest.mark.parametrize("family", scaling.FAMILIES)
def test_the_fit_is_the_best_near_it(family):
    draw = np.random.default_rng(0)
    probs = draw.dirichlet([1, 1, 1], size=300)
    x, labels = np.log(probs), rows_of(probs**2 / (probs**2).sum(axis=1, keepdims=True), draw)
    weights, bias = scaling.solve(family, 0.01, x, labels)
    off = 1 - np.eye(3) if family == "dirichlet" else 1

    def loss(w, b):
        fitted = scaling.apply(scaling.Scaling(family, w, b, 0.01), probs)
        away = off * (w - (np.eye(3) if family == "dirichlet" else 1))
        loss = (300 * row_losses(labels, fitted).mean() - np.log(fitted).mean()) / 301
        return loss + 0.005 * ((away**2).sum() + (b**2).sum())

    for _ in range(20):
        step = 1e-2 * draw.normal(size=weights.shape), 1e-2 * draw.normal(size=3)
        assert loss(weights, bias) < loss(weights + step[0], bias + step[1])


@pytest.mark.parametrize(("odds", "power", "family"), [(1, 1, "none"), ([4, 1, 1], 1, "vector")])
def test_auto_takes_what_pays(odds, power, family):
    draw = np.random.default_rng(1)
    probs = draw.dirichlet([0.5, 0.5, 0.5], size=1500)
    right = probs * np.asarray(odds)
    labels = rows_of(right / right.sum(axis=1, keepdims=True), draw)
    rows = np.arange(1500)
    found = scaling.fit(np.log(probs), labels, rows % 5, rows)
    assert found.scaling_family == family
    if family == "vector":
        after = scaling.apply(found, probs)
        assert after.mean(axis=0) == pytest.approx(np.bincount(labels) / 1500, abs=0.01)
        assert scaling.describe(found).startswith("calibration: vector scaling, a factor and a bias for each class")


def test_auto_takes_a_matrix_where_classes_are_confused():
    draw = np.random.default_rng(2)
    probs = draw.dirichlet([0.4, 0.4, 0.4, 0.4], size=3000)
    mixed = np.eye(4) + np.array([[0, 0.8, 0, 0], [-0.8, 0, 0, 0], [0, 0, 0, 0.8], [0, 0, -0.8, 0]])
    logs = np.log(probs) @ mixed.T
    right = np.exp(logs - logs.max(axis=1, keepdims=True))
    labels, rows = rows_of(right / right.sum(axis=1, keepdims=True), draw), np.arange(3000)
    assert scaling.fit(np.log(probs), labels, rows % 5, rows).scaling_family == "dirichlet"


@dataclass(frozen=True)
class Memory:
    """What a toy method learns: the first number of each row that it has seen."""

    seen: np.ndarray


def test_it_learns_from_rows_that_the_blend_has_not_seen(monkeypatch):
    """A method that is sure and right of the rows that it has seen, and sure of class 0 otherwise."""
    draw = np.random.default_rng(3)
    labels, rows = draw.integers(2, size=200), np.arange(200)
    z = draw.normal(size=(1, 200, 2)).astype(np.float32)
    z[0, :, 1] = labels

    def apply(learned, given):
        known = np.isin(given[0, :, 0], learned.seen)
        one = np.where(known & (given[0, :, 1] == 1), 0.99, 0.01)
        return np.stack([1 - one, one], axis=1)

    memory = Method("memory", lambda training: Memory(training.z[0, :, 0]), apply, lambda *_: None, lambda *_: [],
                    lambda *_: [{"weight": 1.0}], "", scaled=True)  # fmt: skip
    monkeypatch.setitem(methods.METHODS, "memory", memory)
    new = draw.normal(size=(1, 50, 2)).astype(np.float32)
    plain = methods.fit(Recipe("memory"), z, labels, rows % 5, rows)
    assert methods.apply(plain, new)[:, 0] == pytest.approx(0.99)
    scaled = methods.fit(Recipe("memory", calibration="vector"), z, labels, rows % 5, rows)
    assert methods.apply(scaled, new)[:, 0] == pytest.approx((labels == 0).mean(), abs=0.02)
    assert methods.apply(scaled, new, calibrated=False)[:, 0] == pytest.approx(0.99)


def test_rows_that_cannot_be_divided_leave_the_blend_as_it_is():
    z = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    labels, one = np.array([0, 1, 2, 0]), np.zeros(4, dtype=np.int64)
    chain = methods.fit(Recipe("mean", calibration="auto"), z, labels, one, one)
    assert chain.scaling == scaling.Scaling("none")
    again = methods.load("mean", chain.params(), 2, 3)
    assert np.array_equal(methods.apply(again, z), methods.apply(chain, z))


def test_too_large_a_matrix_is_refused():
    x = np.zeros((100, 2000))
    with pytest.raises(UserError, match="--calibration dirichlet would take too long with 2,000 classes; take vector"):
        scaling.fit(x, np.arange(100), np.arange(100) % 2, np.arange(100), "dirichlet")


def test_auto_says_that_it_did_not_try_too_large_a_matrix(monkeypatch):
    draw, rows = np.random.default_rng(1), np.arange(1500)
    probs = draw.dirichlet([0.5, 0.5, 0.5], size=1500)
    monkeypatch.setattr(scaling, "MOST_WORK", 1000)
    untried = "; a Dirichlet map would take too long here and was not tried"
    for odds, family in ((np.ones(3), "none"), (np.array([4, 1, 1]), "vector")):
        labels = rows_of(probs * odds / (probs * odds).sum(axis=1, keepdims=True), draw)
        found = scaling.fit(np.log(probs), labels, rows % 5, rows)
        assert found.scaling_family == family and scaling.describe(found).endswith(untried)
        assert scaling.load({k: v for k, v in vars(found).items() if v is not None}, 3).scaling_untried == "dirichlet"
    assert untried not in scaling.describe(scaling.fit(np.log(probs), labels, rows % 5, rows, "vector"))


# ---- of a run ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    make_run(tmp_path / "run")
    return Run(tmp_path / "run")


def test_a_scaled_blend_is_saved_loaded_shown_and_fitted_again_for_the_report(run):
    done = CliRunner().invoke(ens, ["blend", str(run), "--method", "mean", "--calibration", "vector", "--details"])
    assert done.exit_code == 0, done.output + str(done.exception)
    for line in ("calibration: vector scaling", "the scaling gains ", "blend before its scaling", "after its scaling"):
        assert line in done.output
    assert done.output.count("the scaling gains ") == 1
    saved, result = load_blend(run, "mean-vector"), read_result(run, "mean-vector")
    assert saved.calibration == "vector" and saved.chain.scaling.scaling_weights.shape == (3,)
    assert saved.chain.temperature is not None
    assert result.scaling_gain.against == "no scaling"
    before, after = result.calibration["blend before its scaling"], result.calibration["blend"]
    assert before.log_loss - after.log_loss == pytest.approx(result.scaling_gain.value)
    assert result.blend["log_loss"].value == pytest.approx(after.log_loss)
    assert row_losses(read_rows(run).labels, cross_fitted(run, result)).mean() == pytest.approx(after.log_loss)


def test_a_blend_without_a_scaling_is_written_as_before(run):
    blend_run(run, BlendOptions("mean"))
    found = read_described(run, "mean")
    assert found["format"] == 2 and "calibration" not in found
    assert set(found["params"]) | set(found["arrays"]) == {"inverse_temperature"}
    assert found["scores"]["scaling_gain"] is None
    blend_run(run, BlendOptions("mean", calibration="auto"))
    assert read_described(run, "mean-auto")["format"] == 3  # an older ens refuses it, and never leaves the scaling out


def test_a_damaged_scaling_is_named(run):
    blend_run(run, BlendOptions("mean", calibration="dirichlet"))
    found = read_described(run, "mean-dirichlet")
    found["params"]["scaling_family"] = "vector"
    write_json(run.blend_json("mean-dirichlet"), found)
    with pytest.raises(UserError, match=r"scaling_weights is float64 \(3, 3\), want floats \(3,\)\); fit it again"):
        load_blend(run, "mean-dirichlet")


def test_with_priors_a_class_bias_and_auto(run):
    options = BlendOptions("auto", "macro_f1", priors="uniform", calibration="vector")
    result = blend_run(run, options)
    assert result.name == "auto-macro_f1-vector"
    chain = load_blend(run, result.name).chain
    assert chain.choice and chain.scaling and chain.prior_shift and chain.metric_bias
    assert result.by_class is None and "calibration by class" in "\n".join(result.notes)


def test_an_unknown_calibration(run):
    with pytest.raises(UserError, match="calibration 'platt' is not one of: temperature, vector, dirichlet, auto"):
        blend_run(run, BlendOptions("mean", calibration="platt"))


def test_a_class_and_a_group_that_stand_out_are_said(tmp_path):
    """A group whose images are surely taken for another class, and a class that is doubted among single images."""
    labels, groups = np.arange(300) % 3, np.arange(300) // 10
    values = noisy_logits(labels, 3, 6, 0)
    values[groups == 4] = 9.0 * np.eye(3)[(labels[groups == 4] + 1) % 3]
    write_run(tmp_path / "groups", ("a", "b", "c"), labels, groups % 3, {"one": values}, groups=groups)
    done = CliRunner().invoke(ens, ["blend", str(tmp_path / "groups"), "--method", "mean", "--details"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "see --details" not in said  # which are there
    assert "by group: 1 of 30 groups is right more or less often than the confidence says (adjusted p < 0.05)" in said
    assert "error of the probabilities by class, of 30 rows: " in said

    values = 3.0 * np.eye(3)[labels]
    values[1::6] = [3, 0, 0]  # half of b is taken for a
    write_run(tmp_path / "classes", ("a", "b", "c"), labels, np.arange(300) // 3 % 3, {"one": values})
    result = blend_run(Run(tmp_path / "classes"), BlendOptions("mean"))
    assert [each.p < 0.05 for each in result.by_class.classes] == [True, True, True] and result.by_group is None
    assert calibration_lines(result, with_details=True) == []
    assert calibration_lines(result) == [
        "probabilities of 3 classes are wrong by more than chance: see --details, or ens report"
    ]
