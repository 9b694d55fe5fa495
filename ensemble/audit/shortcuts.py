"""Whether a class can be told by what is not its content: the size of its images, how they are stored, their colour.

A network finds such a shortcut first, and fails where new images are stored in one way.
"""

from typing import Any

import numpy as np

from ensemble.audit.features import COLOUR, FILE, SIZE, columns_of, held_out_shares, sample
from ensemble.audit.findings import Finding, finding

ROWS = 3000  # that are looked at: the standard error of a share is then below a point
FEWEST = 10  # rows of a class that counts; rarer ones are left aside
CLASSES = 100  # more are not looked at: trees of 1,000 classes take minutes
# Of the way from chance to certainty, at the lower end of the 95 % interval. Size and storage should say nothing.
# Colour says something of many honest classes (polar bears): seven kinds of paintings reached 0.1 of the way.
ENOUGH = {SIZE: 0.15, FILE: 0.15, COLOUR: 0.6}
LOUD = 0.5  # from where size and storage are a warning
WHAT = {
    SIZE: "classes that the size of an image alone tells",
    FILE: "classes that format, mode and bytes a pixel alone tell",
    COLOUR: "classes that mean colour, contrast and sharpness alone tell",
}


def class_shortcuts(values: np.ndarray, labels: np.ndarray, ties: np.ndarray) -> dict[str, dict[str, float]]:
    """For each kind of feature the balanced accuracy that it alone reaches on held-out rows: {kind:
    {balanced_accuracy, low, high, chance}}, with a 95 % interval; nothing where there are too few rows.

    values: float (N, 12) of `features`. labels: str (N,), "" where unknown. ties: int (N,), the same for copies.
    """
    names, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    of_use = (counts >= FEWEST) & (names != "")
    if not 2 <= of_use.sum() <= CLASSES:
        return {}
    rows = sample(np.flatnonzero(of_use[numbers]), ROWS)
    classes, codes, counts = np.unique(numbers[rows], return_inverse=True, return_counts=True)
    if (
        len(classes) < 2
        or counts.min() < 5
        or min(len(np.unique(ties[rows][codes == code])) for code in range(len(classes))) < 5
    ):
        return {}
    scores = {}
    for kind in (SIZE, FILE, COLOUR):
        columns = values[rows][:, columns_of(kind)]
        columns = columns[:, np.ptp(columns, axis=0) > 0]
        if columns.shape[1] == 0:
            continue  # all images are the same in it
        right = held_out_shares(columns, codes, ties[rows]).argmax(axis=1) == codes
        recalls = np.bincount(codes, right) / counts
        error = float(np.sqrt((recalls * (1 - recalls) / counts).sum()) / len(classes))
        score = float(recalls.mean())
        low, high = max(0.0, score - 1.96 * error), min(1.0, score + 1.96 * error)
        scores[kind] = {"balanced_accuracy": score, "low": low, "high": high, "chance": 1 / len(classes)}
        scores[kind] = {key: round(value, 4) for key, value in scores[kind].items()}
    return scores


def check_shortcuts(scores: dict[str, Any], classes: list[str]) -> list[Finding]:
    found = []
    for kind, score in scores.items():
        chance = score["chance"]
        if score["low"] < chance + ENOUGH[kind] * (1 - chance):
            continue
        text = f"{WHAT[kind]}: {100 * score['balanced_accuracy']:.0f} % balanced accuracy, chance {100 * chance:.0f} %"
        advice = {
            SIZE: "a network can learn sharpness or shape instead of the content; find out why sizes differ",
            FILE: "a network can learn the traces of storing; plainer pictures take fewer bytes too: find out which",
            COLOUR: "fine if it is what the classes are about; if it is the light or the camera, jitter colours",
        }[kind]
        loud = kind != COLOUR and score["low"] >= chance + LOUD * (1 - chance)
        level = "warning" if loud else "note"
        found += finding(f"{kind}-tells-class", level, classes, ("", text), advice)
    return found
