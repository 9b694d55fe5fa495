"""Images worth a look: most confident mistakes, least certain, doubtful labels, best and worst of each class.

The three lists are one gallery, in which an image stands once. Best and worst images may be in it too: one copy shown
in several places (a CSS background, an SVG `use`) can't be saved, printed or read aloud as an image. There are at most
264 thumbnails of about 14 kB, whatever the number of classes.
"""

from collections import Counter
from typing import Any

import numpy as np
from markupsafe import Markup

from ensemble.blend.probabilities import chunks
from ensemble.plural import pluralize
from ensemble.report.cells import as_json, cell_rows
from ensemble.report.classes import MOST_MATRIX
from ensemble.report.relabel import label_errors, why_text
from ensemble.report.run import RunResults
from ensemble.report.thumbnails import Thumbnail, thumbnails

SHOWN = 24  # images of a list
DOUBTFUL = 24
FEW_CLASSES = 12  # of more classes, this many of the lowest recall are shown
EACH = 3  # of the best and of the worst of a class


def section(results: RunResults) -> dict[str, Any] | None:
    """Three lists of images in one gallery, the best and worst of each class, and the images of the confusion matrix.
    Each is a card: an image with its label, its prediction, their probabilities and the members' votes."""
    if results.oof is None:
        return {"missing": "No fold is finished yet, so no image has a prediction."}
    errors = label_errors(results, results.files)
    ranked = {
        "wrong": confidently_wrong(results),
        "unsure": least_sure(results),
        "doubtful": errors.rows[:DOUBTFUL],
    }
    classes = shown_classes(results)
    each = {c: best_and_worst(results, c) for c in classes}
    listed = np.array(list(dict.fromkeys(row for rows in ranked.values() for row in rows.tolist())), dtype=np.int64)
    shown = np.unique(np.concatenate([listed, *(rows for pair in each.values() for rows in pair)]))
    cells = cell_rows(results, shown) if len(results.classes) <= MOST_MATRIX else {}
    every = np.unique(np.concatenate([shown, *cells.values()]))
    names = [str(results.oof.rows.ids[row]) for row in every]
    pictures = dict(zip(every.tolist(), thumbnails([results.files.get(name) for name in names]), strict=True))
    whys = {int(row): why_text(results, errors, at) for at, row in enumerate(errors.rows[:DOUBTFUL])}

    def cards(rows: np.ndarray) -> list[dict[str, Any]]:
        return [card(results, int(row), pictures[int(row)], whys.get(int(row), "")) for row in rows]

    return {
        "problem": results.files_problem,
        "lists": _lists(results, ranked, len(errors)),
        "gallery": [image | {"attributes": _attributes(results, image, ranked)} for image in cards(listed)],
        "members": len(results.oof.members),
        "classes": results.classes,
        "by_class": [
            {"name": results.classes[c], "best": cards(best), "worst": cards(worst)}
            for c, (best, worst) in each.items()
        ],
        "classes_left": len(results.classes) - len(classes),
        "cells": _cells(cells, {image["row"]: image for image in cards(every)}, set(shown.tolist())),
    }


def _lists(results: RunResults, ranked: dict[str, np.ndarray], doubtful: int) -> list[dict[str, Any]]:
    """The lists' titles, what they hold, and how much of it is shown."""
    assert results.oof is not None
    wrong = int((results.predicted != results.oof.rows.labels).sum())
    of = f"The {len(ranked['wrong'])} most confident of {pluralize(wrong, 'wrong prediction')}."
    if wrong <= len(ranked["wrong"]):
        of = f"{pluralize(wrong, 'prediction is', 'predictions are')} wrong." if wrong else "No prediction is wrong."
    hard = " Each is a hard image, a class that was not learned, or a wrong label." if wrong else ""
    doubts = "No label is doubtful."
    if doubtful:
        part = f"; the {DOUBTFUL} most doubtful are shown" if doubtful > DOUBTFUL else ""
        doubts = (
            f"{pluralize(doubtful, 'label is', 'labels are')} doubtful{part}: a copy of the image has another label, "
            "or another class is ten times as probable, and either that class is as probable as it usually is for its "
            "own images or no member predicts the label. If the labels are sound, most of these are hard images and "
            "not errors, so look at each before you change any."
        )
    notes = {
        "wrong": ("Most confident mistakes", of + hard),
        "unsure": ("Least certain", "The two most probable classes have the closest probabilities, right or wrong."),
        "doubtful": ("Doubtful labels", doubts),
    }
    return [
        {"key": key, "title": title, "note": note, "shown": len(ranked[key])} for key, (title, note) in notes.items()
    ]


def _attributes(results: RunResults, image: dict[str, Any], ranked: dict[str, np.ndarray]) -> Markup:
    """What the page's script filters and sorts a card by: its lists with its rank in each, classes and probability."""
    row = image["row"]
    ranks = {key: int(np.flatnonzero(rows == row)[0]) for key, rows in ranked.items() if row in rows}
    label, predicted = (results.classes.index(image[key]) for key in ("label", "predicted"))
    made = Markup(' data-lists="{}" data-label="{}" data-predicted="{}" data-p="{:.6f}" data-id="{}"').format(
        " ".join(ranks), label, predicted, image["p_label"], image["id"]
    )
    return made + Markup("").join(Markup(' data-{}="{}"').format(key, rank) for key, rank in ranks.items())


def _cells(cells: dict[tuple[int, int], np.ndarray], cards: dict[int, dict[str, Any]], shown: set[int]) -> Markup:
    """JSON: the rows of each cell, and each row's card; its picture is left out where the page shows it already."""
    images = {}
    for row in sorted({int(row) for rows in cells.values() for row in rows}):
        image = cards[row]
        images[row] = {key: image[key] for key in ("id", "label", "predicted", "right", "p_label", "p_predicted")}
        images[row] |= {"problem": image["picture"].problem, "src": "" if row in shown else image["picture"].uri}
    return as_json({"cells": {f"{a} {b}": rows.tolist() for (a, b), rows in cells.items()}, "images": images})


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


def card(results: RunResults, row: int, picture: Thumbnail, why: str = "") -> dict[str, Any]:
    """What is shown with an image. why: which copy of it has another label."""
    assert results.oof is not None
    label, predicted = int(results.oof.rows.labels[row]), int(results.predicted[row])
    votes = Counter(int(member.predicted[row]) for member in results.single)
    return {
        "row": row,
        "why": why,
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
