"""What can be seen to be wrong with predictions that ens did not make: warning lines, never errors."""

from collections.abc import Sequence

import numpy as np

from ensemble.blend.oof import Rows
from ensemble.blend.probabilities import chunks, softmax, true_class

CHANCE = 1e-6  # a difference less likely than this is not luck
SAME = 1e-6  # probabilities that differ by less are the same
PERFECT_ROWS = 100
GAIN = 0.1  # least gain in accuracy for which another order of the columns is proposed
MOST_CLASSES = 2000  # beyond this no order is looked for: its confusion matrix has 4 million cells
SHOWN_CLASSES = 20


def suspicious(rows: Rows, names: Sequence[str], z: np.ndarray, external_names: Sequence[str]) -> list[str]:
    """Warning lines on the external members among `names`; z: logits float32 (M, N, C) of all of them on `rows`.

    A member is suspected if its output is the same for all rows, if it looks trained on these rows (no error on 100
    rows or more, or less than a quarter of the best other member's), if it knows no more than the classes' shares, if
    it would be far better with its columns in another order, or if it is the same as another member.
    """
    labels, external = rows.labels, set(external_names)
    predicted = z.argmax(axis=2)
    errors = (predicted != labels).sum(axis=1)
    lines = []
    for m, name in enumerate(names):
        if name not in external:
            continue
        if len(labels) > 1 and _all_same(z[m], z[m, :1]):
            lines.append(f"warning: {name}: its output is the same for all {len(labels)} rows")
            continue
        lines += _too_good(m, names, errors, len(labels))
        lines += _disordered(rows, name, z[m], predicted[m])
    for a, name in enumerate(names):
        for b in range(a + 1, len(names)):
            if (name in external or names[b] in external) and _all_same(z[a], z[b]):
                lines.append(f"warning: {name} and {names[b]} are the same predictions; leave one out")
    return lines


def _all_same(one: np.ndarray, other: np.ndarray) -> bool:
    """True if no probability of logits (N, C) differs from that of the other's, (N, C) or (1, C), by 1e-6 or more."""
    return all(
        np.abs(softmax(one[part]) - softmax(other[part] if len(other) > 1 else other)).max() < SAME
        for part in chunks(*one.shape)
    )


def _too_good(m: int, names: Sequence[str], errors: np.ndarray, rows: int) -> list[str]:
    """errors: int64 (M,), the wrong rows of each member."""
    from scipy.stats import binomtest

    ask = "are its predictions out of fold, or on rows that it was trained on?"
    if errors[m] == 0 and rows >= PERFECT_ROWS:
        return [f"warning: {names[m]}: no error at all on {rows} rows; {ask}"]
    others = [other for other in range(len(names)) if other != m]
    if not others:
        return []
    best = min(others, key=lambda other: int(errors[other]))
    if 4 * errors[m] >= errors[best]:
        return []
    if binomtest(int(errors[m]), rows, int(errors[best]) / rows, alternative="less").pvalue >= CHANCE:
        return []
    return [
        f"warning: {names[m]}: wrong on {errors[m]} of {rows} rows, the best other member ({names[best]}) on "
        f"{errors[best]}; {ask}"
    ]


def _disordered(rows: Rows, name: str, z: np.ndarray, predicted: np.ndarray) -> list[str]:
    """z: float32 (N, C) and its predicted classes int64 (N,)."""
    right = float((predicted == rows.labels).mean())
    shares = np.bincount(rows.labels, minlength=len(rows.classes)) / len(rows.labels)
    largest = int(shares.argmax())
    order, reordered = _better_order(rows, predicted, max(right, float(shares.max())))
    head = f"warning: {name}: right on {right:.1%} of the rows"
    if right <= shares.max() and not _informed(z, rows.labels, shares):
        head += f", no more than by always saying {rows.classes[largest]!r} ({shares.max():.1%})"
        if order is None:
            return [f"{head}; are its columns in another order?"]
    elif order is None:
        return []
    tail = f"; are its columns in another order? It would be right on {reordered:.1%}"
    if len(order) <= SHOWN_CLASSES:
        return [f"{head}{tail} if those read as {', '.join(rows.classes)} were {', '.join(order)}"]
    return [f"{head}{tail} in the best one"]


def _informed(z: np.ndarray, labels: np.ndarray, shares: np.ndarray) -> bool:
    """True if the log loss is below that of the classes' shares: with rare classes, no more rows need be right."""
    known = shares[shares > 0]
    return float(-np.log(true_class(z[None], labels)).mean()) < -float((known * np.log(known)).sum())


def _better_order(rows: Rows, predicted: np.ndarray, chance: float) -> tuple[list[str] | None, float]:
    """What the columns, in their order, would be for the most rows to be right, and the share of rows right then; None
    unless that is at least 0.1 above `chance` and, counting all C! orders, no luck."""
    from scipy.optimize import linear_sum_assignment
    from scipy.special import gammaln, rel_entr

    count, total = len(rows.classes), len(rows.labels)
    if count > MOST_CLASSES or chance + GAIN > 1:
        return None, chance
    confusion = np.bincount(predicted * count + rows.labels, minlength=count * count).reshape(count, count)
    columns, meant = linear_sum_assignment(confusion, maximize=True)
    hits = int(confusion[columns, meant].sum())
    share = hits / total
    luck = gammaln(count + 1) - total * (rel_entr(share, chance) + rel_entr(1 - share, 1 - chance))  # Chernoff's bound
    if share < chance + GAIN or luck >= np.log(CHANCE):
        return None, chance
    return [rows.classes[c] for c in meant], share
