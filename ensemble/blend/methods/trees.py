"""Boosted trees: corrections to the plain mean of logits which depend on what the members say, not one weight each.

Friedman, "Greedy function approximation: a gradient boosting machine" (Annals of Statistics, 2001), with the Newton
steps of LogitBoost (Friedman, Hastie & Tibshirani, "Additive logistic regression", Annals of Statistics, 2000) and
other rows for each tree (Friedman, "Stochastic gradient boosting", 2002). It starts from the plain mean at its best
temperature: no tree at all is the plain mean, and each tree is drawn towards no change by a ridge.

One function serves all classes. The score of class c is

    beta * mean_m z_mc  +  sum_t tree_t(log p_1c, .., log p_Mc, lean_c)

where p_m is member m's softmax and lean_c says how much commoner class c is than the mean has it; so a row gives C
examples, not one, and a class without rows is treated as its lean and the others' rows have it. Measured on 7 members,
1,698 rows, 7 classes, mean log loss of 5 folds: the mean 0.212; these trees 0.192 (0.191 to 0.193 in 3 seeds), with 10
to 50 stages; one tree a class on all M x C logits 0.203 at best; scikit-learn's GradientBoostingClassifier on those,
from the same start, whose steps have no ridge, 0.204 at best and 2.3 after 100 stages. What one member says of another
class than c is not seen: members that confuse the classes' names are for `stack`.

The number of stages is the least whose inner cross-validated log loss is within one standard error (of the paired
difference, over groups where there are groups) of the best one's.
`z` is float32 (M, N, C).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.blend import params as saved
from ensemble.blend.methods.method import Method, member_weights
from ensemble.blend.methods.pool import inverse_temperature
from ensemble.blend.probabilities import chunks, log_softmax, softmax
from ensemble.scoring.cross_fit import simplest, usable_folds
from ensemble.scoring.row_values import row_losses

STAGES, STEP = 100, 10  # 0, STEP, 2 * STEP, .. STAGES trees are tried
RATE, DEPTH, LEAST, RIDGE = 0.1, 3, 10, 5.0  # learning rate; of a tree: depth, examples a leaf, ridge on leaf values
NODES = 2 ** (DEPTH + 1) - 1
EXAMPLES = 20_000  # for a tree: at most so many (and at most half) of the N x C
MOST_STAGES = 10_000  # in a saved blend
LARGEST = 5_000_000  # of N x C (of 30 members, two minutes of one core): where there are more, rows drawn at random

Tree = dict[str, np.ndarray]
UNSPLIT: Tree = {
    "left": np.full(NODES, -1),
    "right": np.full(NODES, -1),
    "feature": np.zeros(NODES, dtype=np.int64),
    "threshold": np.zeros(NODES, dtype=np.float32),
    "value": np.zeros(NODES),
    "gain": np.zeros(NODES),
}


@dataclass(frozen=True)
class Trees:
    """What boosting learns.

    left, right, feature, threshold, value, gain: (stages, NODES), the nodes of each tree, see `nodes`.
    inner_log_loss: on held-out rows; None where there were fewer than two clusters.
    beta: the plain mean's inverse temperature.
    lean: float32 (C,), see `origin`.
    stages: the number of trees.
    weights: float64 (M,), for the reader: each member's share of what the splits on members gained, which also counts
    where a member is corrected for; uniform where there is none.
    """

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    value: np.ndarray
    gain: np.ndarray
    inner_log_loss: float | None
    beta: float
    lean: np.ndarray
    stages: int
    weights: np.ndarray


def fit(z: np.ndarray, labels: np.ndarray, folds: np.ndarray, clusters: np.ndarray, seed: int = 0) -> Trees:
    """Choose the number of stages by inner cross-validation over `folds`, then boost on all rows.

    labels, folds, clusters: int64 (N,); rows of one cluster (group) must stand in one fold. With fewer than two
    clusters the answer is the plain mean. The same seed gives the same answer, also with the classes in another order;
    rows or members in another order meet other random draws, so that the answer is close, not equal.
    """
    members, rows, classes = z.shape
    kept: Any = slice(None)
    if rows * classes > LARGEST:
        kept = np.sort(np.random.default_rng(seed).choice(rows, max(1, LARGEST // classes), replace=False))
    labels, clusters = labels[kept], clusters[kept]
    folds, everything = usable_folds(folds[kept], clusters), np.arange(len(labels))
    mean, log_p, stages = z.mean(axis=0)[kept], [log_softmax(member[kept]) for member in z], 0
    inner_log_loss: float | None = None
    if len(np.unique(folds)) > 1:
        held = np.empty((STAGES // STEP + 1, len(labels)))
        for fold in np.unique(folds):
            test, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            beta, lean = origin(mean[train], labels[train])
            for stage, (_, scores) in enumerate(boost(beta * mean, [*log_p, lean], labels, train, STAGES, seed)):
                if stage % STEP == 0:
                    held[stage // STEP, test] = row_losses(labels[test], softmax(scores[test]))
        chosen = simplest(held, clusters)
        stages, inner_log_loss = chosen * STEP, float(held[chosen].mean())
    beta, lean = origin(mean, labels)
    trees = [tree for tree, _ in boost(beta * mean, [*log_p, lean], labels, everything, stages, seed)]
    arrays = {key: np.stack([tree[key] for tree in trees])[1:] for key in trees[0]}
    gain = np.bincount(arrays["feature"].ravel(), arrays["gain"].ravel(), members)[:members]
    weights = gain / gain.sum() if gain.sum() > 0 else np.full(members, 1 / members)
    return Trees(**arrays, inner_log_loss=inner_log_loss, beta=beta, lean=lean, stages=stages, weights=weights)


def apply(learned: Trees, z: np.ndarray) -> np.ndarray:
    """Blended probabilities, float64 (N, C), rows sum to 1."""
    _, rows, classes = z.shape
    out = np.empty((rows, classes))
    trees = [{key: getattr(learned, key)[stage] for key in UNSPLIT} for stage in range(learned.stages)]
    for part in chunks(rows, classes):
        scores = learned.beta * z[:, part].mean(axis=0).astype(np.float64)
        columns = [*(log_softmax(member[part]) for member in z if trees), learned.lean]
        for tree in trees:
            scores += values(tree, columns)
        out[part] = softmax(scores)
    return out


def load(params: Mapping[str, Any], members: int, classes: int) -> Trees:
    """Raises ValueError that names what is not as `fit` makes it."""
    stages = saved.count(params, "stages")
    if stages > MOST_STAGES:
        raise ValueError(f"stages is {stages}, want at most {MOST_STAGES}")
    shape, kinds = (stages, NODES), {key: array.dtype.kind for key, array in UNSPLIT.items()}
    learned = Trees(
        **{key: saved.array(params, key, shape, kind) for key, kind in kinds.items()},
        inner_log_loss=saved.optional_number(params, "inner_log_loss"),
        beta=saved.number(params, "beta"),
        lean=saved.array(params, "lean", (classes,)),
        stages=stages,
        weights=saved.array(params, "weights", (members,)),
    )
    _require_walks(learned, members)
    return learned


def _require_walks(learned: Trees, members: int) -> None:
    """Raise ValueError unless every walk from a tree's root ends, and looks at what `members` members have.

    What is past a tree's last node is not met.
    """
    met = np.zeros((learned.stages, NODES), dtype=np.bool_)
    met[:, 0] = True
    for node in range(NODES):
        inner = np.flatnonzero(met[:, node] & (learned.left[:, node] >= 0))
        for side in (learned.left, learned.right):
            child = side[inner, node]
            if ((child <= node) | (child >= NODES)).any():  # else a walk might be without end
                raise ValueError("a tree's nodes are not in order")
            met[inner, child] = True
        feature = learned.feature[inner, node]
        if ((feature < 0) | (feature > members)).any():
            raise ValueError(f"a tree looks at a feature that {members} members don't have")


def describe(learned: Trees, metric: str) -> list[str]:
    return [f"inner cross-validation chose {learned.stages} stages of trees on top of the plain mean"]


def origin(mean: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """beta, and lean float32 (C,): the log of how many rows each class has over how many the mean (N, C) expects."""
    rows, classes = mean.shape
    beta, expected = inverse_temperature(mean, labels), np.zeros(classes)
    for part in chunks(rows, classes):
        expected += softmax(beta * mean[part]).sum(axis=0, dtype=np.float64)
    found = np.bincount(labels, minlength=classes)
    return beta, np.log((found + RIDGE) / (expected + RIDGE)).astype(np.float32)


def boost(
    start: np.ndarray, columns: Sequence[np.ndarray], labels: np.ndarray, train: np.ndarray, stages: int, seed: int
) -> Iterator[tuple[Tree, np.ndarray]]:
    """An unsplit tree of 0 with the scores `start` (N, C); then each tree with the scores it brings all rows to.

    columns: what trees see, each float32 (N, C) or (C,). With p the softmax of the scores so far, a tree is fitted, on
    some of the rows `train`, to (y - p) / p(1 - p) with weights p(1 - p): its leaves then hold Newton steps. The array
    of scores is one and the same all along.
    """
    from sklearn.tree import DecisionTreeRegressor

    scores, draw = start.astype(np.float64), np.random.default_rng(seed)
    rows, classes = scores.shape
    size = max(1, min(len(train) // 2, EXAMPLES // classes))
    yield UNSPLIT, scores
    for _ in range(stages):
        bag = draw.choice(train, size, replace=False)
        p = softmax(scores[bag])
        weight, residual = p * (1 - p) + 1e-3, -p  # + 1e-3: an example that the scores are sure of has a part too
        residual[np.arange(size), labels[bag]] += 1
        x = np.stack([np.broadcast_to(c if c.ndim == 1 else c[bag], p.shape).ravel() for c in columns]).T
        fitted = DecisionTreeRegressor(
            max_depth=DEPTH, min_samples_leaf=LEAST, max_features="sqrt", random_state=int(draw.integers(1 << 31))
        ).fit(x, (residual / weight).ravel(), weight.ravel())
        tree = nodes(fitted)
        for part in chunks(rows, classes):
            scores[part] += values(tree, [c if c.ndim == 1 else c[part] for c in columns])
        yield tree, scores


def nodes(fitted: Any) -> Tree:
    """The nodes of a DecisionTreeRegressor, root first, each array (NODES,); what is past the last one is never met.

    left, right int64: children, -1 in a leaf. An example goes left where its `feature` is at most `threshold` (float32,
    rounded down, which for float32 features changes nothing). value float64: the leaf's mean, by ridge and rate drawn
    to 0. gain float64: what the split took off the weighted squared error.
    """
    t = fitted.tree_
    left, right, n = t.children_left, t.children_right, t.weighted_n_node_samples
    error, threshold = n * t.impurity, t.threshold.astype(np.float32)
    arrays = {
        "left": left,
        "right": right,
        "feature": np.maximum(t.feature, 0),
        "threshold": np.where(threshold > t.threshold, np.nextafter(threshold, np.float32(-np.inf)), threshold),
        "value": RATE * t.value[:, 0, 0] * n / (n + RIDGE),
        "gain": np.where(left < 0, 0.0, error - error[left] - error[right]),
    }
    return {key: np.pad(array, (0, NODES - len(array))) for key, array in arrays.items()}


def values(tree: Tree, columns: Sequence[np.ndarray], node: int = 0) -> np.ndarray:
    """A tree's value for each example, (N, C) or of a shape that broadcasts to it; columns as in `boost`."""
    if tree["left"][node] < 0:
        return np.asarray(tree["value"][node])
    low, high = (values(tree, columns, int(tree[side][node])) for side in ("left", "right"))
    return np.where(columns[tree["feature"][node]] <= tree["threshold"][node], low, high)


METHOD = Method(
    name="trees",
    fit=lambda training: fit(training.z, training.labels, training.folds, training.clusters),
    apply=apply,
    load=load,
    describe=describe,
    weights_of=lambda learned, members: member_weights(learned.weights),
    reading="Shares of what the trees' splits gained by each member.",
    scaled=True,
    slow=True,
)
