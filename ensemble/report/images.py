"""Images worth a look: most confident mistakes, least certain, doubtful labels, best and worst of each class.

An image of two lists is on the page twice: one copy shown in several places (a CSS background, an SVG `use`) can't be
saved, printed or read aloud as an image, and the lists are short. There are at most 132 thumbnails of about 10 kB,
whatever the number of classes.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.blend.probabilities import chunks
from ensemble.errors import UserError
from ensemble.report.relabel import label_errors, votes_text, why_text
from ensemble.report.run import RunResults
from ensemble.report.thumbnails import Thumbnail, image_files, thumbnails

SHOWN = 12  # images of a list
DOUBTFUL = 24
FEW_CLASSES = 12  # of more classes, this many of the lowest recall are shown
EACH = 3  # of the best and of the worst of a class


def section(results: RunResults) -> dict[str, Any] | None:
    """Lists of cards, each an image with its label, its prediction, their probabilities and the members' votes."""
    if results.oof is None:
        return {"missing": "No fold is finished yet, so no image has a prediction."}
    files, problem = _files(results)
    errors = label_errors(results, files)
    wrong, unsure = confidently_wrong(results), least_sure(results)
    classes = shown_classes(results)
    each = {c: best_and_worst(results, c) for c in classes}
    doubtful = errors.rows[:DOUBTFUL]
    every = np.unique(np.concatenate([wrong, unsure, doubtful, *(rows for pair in each.values() for rows in pair)]))
    names = [str(results.oof.rows.ids[row]) for row in every]
    pictures = dict(zip(every.tolist(), thumbnails([files.get(name) for name in names]), strict=True))

    def cards(rows: np.ndarray) -> list[dict[str, Any]]:
        return [card(results, int(row), pictures[int(row)]) for row in rows]

    doubts = [
        {
            "suggested": results.classes[errors.suggested[at]],
            "votes": votes_text(errors, at, len(results.oof.members), results.classes),
            "why": why_text(results, errors, at),
        }
        for at in range(len(doubtful))
    ]
    return {
        "problem": problem,
        "wrong": cards(wrong),
        "wrong_of": int((results.predicted != results.oof.rows.labels).sum()),
        "unsure": cards(unsure),
        "doubtful": [image | {"doubt": doubt} for image, doubt in zip(cards(doubtful), doubts, strict=True)],
        "doubtful_of": len(errors),
        "members": len(results.oof.members),
        "by_class": [
            {"name": results.classes[c], "best": cards(best), "worst": cards(worst)}
            for c, (best, worst) in each.items()
        ],
        "classes_left": len(results.classes) - len(classes),
    }


def confidently_wrong(results: RunResults, count: int = SHOWN) -> np.ndarray:
    """The rows that are predicted wrongly, the most confident first, int64 (at most count,)."""
    assert results.oof is not None
    wrong = np.flatnonzero(results.predicted != results.oof.rows.labels)
    confidence = results.probabilities[wrong, results.predicted[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:count]


def least_sure(results: RunResults, count: int = SHOWN) -> np.ndarray:
    """The rows whose two largest probabilities are the closest, right or wrong, int64 (at most count,)."""
    margins = np.empty(len(results.probabilities))
    for part in chunks(*results.probabilities.shape):
        two = np.partition(results.probabilities[part], -2, axis=1)
        margins[part] = two[:, -1] - two[:, -2]
    return np.argsort(margins, kind="stable")[:count]


def best_and_worst(results: RunResults, c: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of label c that are predicted c with the highest probabilities, and those where c is the least probable,
    int64; no row is in both."""
    assert results.oof is not None
    rows = np.flatnonzero(results.oof.rows.labels == c)
    rows = rows[np.argsort(-results.probabilities[rows, c], kind="stable")]
    best = rows[:EACH][results.predicted[rows[:EACH]] == c]
    worst = rows[::-1][:EACH]
    return best, worst[~np.isin(worst, best)]


def shown_classes(results: RunResults) -> list[int]:
    """All classes that have a row; if they are many, those of the lowest recall."""
    assert results.oof is not None
    labels = results.oof.rows.labels
    counts = np.bincount(labels, minlength=len(results.classes))
    there = np.flatnonzero(counts)
    if len(there) <= FEW_CLASSES:
        return [int(c) for c in there]
    right = np.bincount(labels[results.predicted == labels], minlength=len(results.classes))
    return [int(c) for c in there[np.argsort(right[there] / counts[there], kind="stable")][:FEW_CLASSES]]


def card(results: RunResults, row: int, picture: Thumbnail) -> dict[str, Any]:
    """What is shown with an image."""
    assert results.oof is not None
    label, predicted = int(results.oof.rows.labels[row]), int(results.predicted[row])
    votes = Counter(int(member.predicted[row]) for member in results.single)
    return {
        "id": str(results.oof.rows.ids[row]),
        "picture": picture,
        "label": results.classes[label],
        "predicted": results.classes[predicted],
        "right": label == predicted,
        "p_label": float(results.probabilities[row, label]),
        "p_predicted": float(results.probabilities[row, predicted]),
        "votes": [
            (count, results.classes[c]) for c, count in sorted(votes.items(), key=lambda vote: (-vote[1], vote[0]))
        ],
    }


def _files(results: RunResults) -> tuple[dict[str, Path], str]:
    """The files by id, and why there are none."""
    try:
        return image_files(results.config), ""
    except UserError as error:
        return {}, str(error)
