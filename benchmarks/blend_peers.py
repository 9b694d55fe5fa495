"""What `blend.py` compares: ens's methods, its kernels on the peers' own input, and the peers as their users call them.

Each system is fit(data) -> Fitted; what it imports on its own is imported inside, so that a missing peer stops nothing.
"""

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ensemble.blend import methods
from ensemble.blend.methods import greedy, vote
from ensemble.blend.recipe import Recipe

ROUNDS = 25  # AutoGluon's own number
AUTOGLUON = "autogluon.core.models.greedy_ensemble.ensemble_selection"
STRENGTHS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C


@dataclass(frozen=True)
class Data:
    """Logits z float32 (M, N, C), their softmax p float32, labels and folds int64 (N,), and rows for scores alone."""

    z: np.ndarray
    p: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    fresh_z: np.ndarray
    fresh_labels: np.ndarray


def probabilities(z: np.ndarray) -> np.ndarray:
    """Softmax of z float32 (M, N, C), a member at a time."""
    out = np.empty_like(z)
    for member, p in zip(z, out, strict=True):
        np.exp(member - member.max(axis=1, keepdims=True), out=p)
        p /= p.sum(axis=1, keepdims=True)
    return out


@dataclass(frozen=True)
class Fitted:
    """predict: z float32 (M, n, C) -> probabilities (n, C)."""

    predict: Callable[[np.ndarray], np.ndarray]
    note: str = ""


@dataclass(frozen=True)
class System:
    name: str
    what: str
    fit: Callable[[Data], Fitted]
    needs: str = "numpy"
    ens: bool = False


def systems(names: list[str], classes: int, large: bool) -> list[System]:
    """All systems for a case; `names` are ens's methods, with ":metric" where they are for one."""
    out = [
        System("best single", "member of the least OOF log loss", best_single),
        System("mean of logits", "softmax of the mean", mean_of_logits),
        System("mean of probabilities", "unweighted soft voting", mean_of_probabilities),
        System("autogluon", f"EnsembleSelection, log loss, {ROUNDS} rounds", autogluon("log_loss"), AUTOGLUON),
        System("slsqp", "SciPy, numeric gradient of the mixture's log loss", slsqp, "scipy.optimize"),
        System(
            "slsqp:true-class",
            "the same with the true class's column and its exact gradient",
            slsqp_true,
            "scipy.optimize",
        ),
    ]
    for c in STRENGTHS:
        out.append(
            System(f"logistic:{c:g}", f"LogisticRegression(C={c:g}) on log p", logistic(c), "sklearn.linear_model")
        )
    if not large:
        what = f"EnsembleSelection, macro F1, {ROUNDS} rounds"
        out.append(System("autogluon:macro_f1", what, autogluon("f1_macro"), AUTOGLUON))
    if classes == 2:
        out.append(System("hillclimbers", "climb_hill, log loss", hillclimbers, "hillclimbers"))
    out += [System(f"ens {name}", "from logits", ens(name), ens=True) for name in names]
    out.append(System("ens kernel:vote", "simplex_weights, from p", kernel_vote, ens=True))
    out.append(System("ens kernel:greedy", f"select_log_loss, {ROUNDS} rounds, from p", kernel_greedy, ens=True))
    return out


def mixture(weights: np.ndarray, note: str = "") -> Fitted:
    """The weighted mean of the members' probabilities."""
    from scipy.special import softmax

    def predict(z: np.ndarray) -> np.ndarray:
        return np.asarray(sum(w * softmax(member, axis=1) for w, member in zip(weights, z, strict=True) if w != 0))

    return Fitted(predict, note or f"{np.count_nonzero(weights > 1e-6)} of {len(weights)} members")


def true_class(data: Data) -> np.ndarray:
    """Each member's probability of each row's class, float64 (N, M), at least 1e-15."""
    p = data.p[:, np.arange(len(data.labels)), data.labels].T
    return np.maximum(p, 1e-15, dtype=np.float64)


def best_single(data: Data) -> Fitted:
    best = int(np.log(true_class(data)).mean(axis=0).argmax())
    return mixture(np.eye(len(data.z))[best])


def mean_of_logits(data: Data) -> Fitted:
    from scipy.special import softmax

    return Fitted(lambda z: softmax(z.mean(axis=0, dtype=np.float64), axis=1))


def mean_of_probabilities(data: Data) -> Fitted:
    return mixture(np.full(len(data.z), 1 / len(data.z)))


def autogluon(metric: str) -> Callable[[Data], Fitted]:
    def fit(data: Data) -> Fitted:
        from autogluon.core.metrics import get_metric
        from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection

        kind = "multiclass" if data.p.shape[2] > 2 else "binary"
        predictions = list(data.p) if kind == "multiclass" else [np.ascontiguousarray(p[:, 1]) for p in data.p]
        scorer = get_metric(metric, problem_type=kind)
        selection = EnsembleSelection(ensemble_size=ROUNDS, problem_type=kind, metric=scorer)
        selection.fit(predictions, data.labels)
        return mixture(selection.weights_)

    return fit


def slsqp(data: Data) -> Fitted:
    """As notebooks do it, but faster: one product for their loop over members, the log for scikit-learn's scorer."""
    from scipy.optimize import minimize

    members, rows, classes = data.p.shape
    true = np.arange(rows), data.labels
    flat = data.p.reshape(members, -1).astype(np.float64)  # a numeric gradient sees nothing in float32

    def loss(w: np.ndarray) -> float:
        mixed = (w @ flat).reshape(rows, classes)
        return -float(np.log(np.maximum(mixed[true], 1e-15)).mean())

    start = np.full(members, 1 / members)
    one = {"type": "eq", "fun": lambda w: 1 - w.sum()}
    found = minimize(loss, start, method="SLSQP", bounds=[(0, 1)] * members, constraints=one)
    return mixture(found.x, f"{found.nit} iterations, {found.nfev} losses")


def slsqp_true(data: Data) -> Fitted:
    """What a careful user of SciPy would write."""
    from scipy.optimize import minimize

    p = true_class(data)
    rows, members = p.shape

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = np.maximum(p @ w, 1e-15)
        return -float(np.log(mixed).mean()), -(1 / mixed) @ p / rows

    start, options = np.full(members, 1 / members), {"ftol": 1e-10, "maxiter": 500}
    one = {"type": "eq", "fun": lambda w: 1 - w.sum(), "jac": lambda w: -np.ones(members)}
    bounds = [(0, 1)] * members
    found = minimize(loss, start, jac=True, method="SLSQP", bounds=bounds, constraints=one, options=options)
    return mixture(found.x, f"{found.nit} iterations")


def logistic(c: float) -> Callable[[Data], Fitted]:
    """Stacking: L2-regularised regression on all members' log-probabilities, with scikit-learn's 100 iterations.

    With 1000 it takes up to 13 times as long, and fresh log loss moves by .002 at the best C (12 x 20,000 x 18).
    """

    def features(p: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(p, 1e-15)).transpose(1, 0, 2).reshape(p.shape[1], -1)

    def fit(data: Data) -> Fitted:
        from scipy.special import softmax
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=c)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(features(data.p), data.labels)

        def predict(z: np.ndarray) -> np.ndarray:
            probs = np.zeros(z.shape[1:])
            probs[:, model.classes_] = model.predict_proba(features(softmax(z, axis=2)))
            return probs

        return Fitted(predict, f"C={c:g}, {model.n_iter_.max()} iterations")

    return fit


def hillclimbers(data: Data) -> Fitted:
    """It returns the predictions of the test rows, never its weights: the fresh rows go in with the fit."""
    import pandas as pd
    from hillclimbers import climb_hill, partial
    from scipy.special import softmax
    from sklearn.metrics import log_loss

    names = [f"m{m}" for m in range(len(data.p))]
    oof = pd.DataFrame(dict(zip(names, data.p[:, :, 1].astype(np.float64), strict=True)))
    test = pd.DataFrame(dict(zip(names, softmax(data.fresh_z, axis=2)[:, :, 1].astype(np.float64), strict=True)))
    train = pd.DataFrame({"label": data.labels})
    with contextlib.redirect_stdout(io.StringIO()):
        found = climb_hill(train, oof, test, "label", "minimize", partial(log_loss), plot_hill=False)
    return Fitted(lambda _: np.stack([1 - found, found], axis=1))


def ens(name: str) -> Callable[[Data], Fitted]:
    method, _, metric = name.partition(":")

    def fit(data: Data) -> Fitted:
        clusters = np.arange(len(data.labels))
        chain = methods.fit(Recipe(method, metric or "log_loss"), data.z, data.labels, data.folds, clusters)
        chosen = [f"{key} {value}" for key, value in chain.params().items() if isinstance(value, str)]
        return Fitted(lambda z: methods.apply(chain, z), ", ".join(chosen))

    return fit


def kernel_vote(data: Data) -> Fitted:
    weights, gap = vote.simplex_weights(true_class(data))
    return mixture(weights, f"certified within {gap:.1g} nats")


def kernel_greedy(data: Data) -> Fitted:
    """Unsorted, which is AutoGluon's path."""
    weights = greedy.select_log_loss(true_class(data), ROUNDS, sorted_start=False)
    return mixture(weights / weights.sum())
