"""The table of blend methods: one more line in it, and a method is there everywhere."""

from dataclasses import dataclass

import numpy as np
import pytest
from click.testing import CliRunner
from test_blend_run import make_run

from ensemble.blend import BlendOptions, blend_run, load_blend, methods, params, read_result
from ensemble.blend.methods.method import Method
from ensemble.blend.probabilities import softmax
from ensemble.blend.recipe import Recipe
from ensemble.cli import ens
from ensemble.errors import UserError
from ensemble.report.members import _weights
from ensemble.run import Run


@dataclass(frozen=True)
class Best:
    """What a toy method learns: which member has the least log loss, as weights (M,), and that log loss."""

    weights: np.ndarray
    loss: float


def fit_best(training):
    rows = np.arange(len(training.labels))
    losses = [-np.log(softmax(member)[rows, training.labels]).mean() for member in training.z]
    return Best(np.eye(len(losses))[int(np.argmin(losses))], float(min(losses)))


BEST = Method(
    name="best",
    fit=fit_best,
    apply=lambda learned, z: softmax(np.tensordot(learned.weights, z.astype(np.float64), axes=1)),
    load=lambda saved, members, classes: Best(params.simplex(saved, members), params.number(saved, "loss")),
    describe=lambda learned, metric: [f"the best member alone, {learned.loss:.3f} nats"],
    weights_of=lambda learned, members: [{"weight": float(weight)} for weight in learned.weights],
    reading="The best member has all the weight.",
    sparse=True,
)


@pytest.fixture
def best(monkeypatch):
    monkeypatch.setitem(methods.METHODS, "best", BEST)


def test_a_method_of_the_table_is_fitted_saved_loaded_and_shown(tmp_path, best):
    run = tmp_path / "run"
    make_run(run)
    done = CliRunner().invoke(ens, ["blend", "--help"])
    assert "trees|best|auto]" in done.output.replace("\n", "").replace(" ", "")
    done = CliRunner().invoke(ens, ["blend", str(run), "--method", "best"])
    assert done.exit_code == 0, done.output + str(done.exception)
    assert "the best member alone, " in done.output and "the blend's own temperature" in done.output
    saved, result = load_blend(Run(run), "best"), read_result(Run(run), "best")
    assert (saved.method, len(saved.members)) == ("best", 1)  # the others have no part in it
    assert saved.chain.learned.weights.tolist() == [1.0] and saved.chain.learned.loss > 0
    assert sorted(own["weight"] for own in result.weights.values()) == [0.0, 1.0]
    assert _weights(result)["reading"] == "The best member has all the weight."
    z = np.random.default_rng(0).normal(size=(1, 2, 5, 3)).astype(np.float32)
    assert saved.apply(list(z)) == pytest.approx(methods.apply(saved.chain, z.mean(axis=1)))


def test_auto_tries_what_the_table_holds_unless_it_is_slow(tmp_path, best):
    run = tmp_path / "run"
    make_run(run)
    tried = blend_run(Run(run), BlendOptions("auto")).fitted.chain.choice.tried
    assert list(tried) == ["mean", "pool", "vote", "greedy", "stack", "best"]


def test_a_method_that_is_gone_is_refused(tmp_path, monkeypatch):
    run = tmp_path / "run"
    make_run(run)
    with monkeypatch.context() as patch:
        patch.setitem(methods.METHODS, "best", BEST)
        blend_run(Run(run), BlendOptions("best"))
    with pytest.raises(
        UserError, match="blend method 'best' is not one of: mean, pool, vote, greedy, stack, trees, auto"
    ):
        load_blend(Run(run), "best")
    done = CliRunner().invoke(ens, ["blend", str(run), "--method", "best"])
    assert done.exit_code == 2 and "'best' is not one of 'mean', 'pool'" in done.output


@pytest.mark.parametrize("name", methods.METHODS)
def test_what_a_method_learned_comes_back_from_its_saved_values(name):
    """Without a detour by way of the disk: the fields are the keys."""
    draw = np.random.default_rng(0)
    labels = draw.integers(3, size=90)
    z = (draw.normal(size=(3, 90, 3)) + 2 * np.eye(3)[labels]).astype(np.float32)
    chain = methods.fit(
        Recipe(name, "accuracy", np.array([0.2, 0.3, 0.5])), z, labels, np.arange(90) % 3, np.arange(90)
    )
    again = methods.load(name, chain.params(), 3, 3)
    assert type(again.learned) is type(chain.learned) and again.params().keys() == chain.params().keys()
    assert np.array_equal(methods.apply(again, z), methods.apply(chain, z))
    assert methods.notes(again, "accuracy") == methods.notes(chain, "accuracy")
