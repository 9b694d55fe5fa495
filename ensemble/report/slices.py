"""Where accuracy is worse than elsewhere, as `ens slices` found it, with a map of the images."""

from pathlib import Path
from typing import Any

import numpy as np

from ensemble.errors import UserError
from ensemble.escape import escaped
from ensemble.report.run import RunResults
from ensemble.report.strips import axis, strip
from ensemble.report.thumbnails import sheet, thumbnails
from ensemble.slices.predicted import checksums
from ensemble.slices.result import MOST_SHOWN, Map, Slices, read_slices
from ensemble.tables.slices import looked_at, p_cell

PICTURED = 8  # slices whose images are shown
TILE = 32  # px of the side of an image of the map
COLOURED = 12  # classes: of more, those with the most mistakes have a colour


def section(results: RunResults) -> dict[str, Any] | None:
    """A table of the slices, the wrong images of the first ones, and the map. None if ens slices was not run."""
    try:
        found = read_slices(results.run)
        if found is None:
            return None
        stale = checksums(results.run, found.made_of) != found.made_of
    except UserError as error:
        return {"missing": str(error)}
    lows = [each.accuracy.low for each in found.found]
    least = float(np.floor(10 * min(lows, default=0.0)) / 10)
    return {
        "found": found,
        "rows": [
            {"slice": each, "strip": strip(each.accuracy.low, each.accuracy.value, each.accuracy.high, least, 1.0)}
            for each in found.found[:MOST_SHOWN]
        ],
        "axis": axis(least, 1.0, lambda tick: f"{100 * tick:g}"),
        "cards": _cards(found, results.files),
        "looked_at": looked_at(found),
        "p_cell": p_cell,
        "stale": stale,
        "problem": results.files_problem,
        "map": None if found.map is None else _map(found.map, results.classes, results.files),
    }


def _cards(found: Slices, files: dict[str, Path]) -> list[list[dict[str, Any]]]:
    """Of each of the first slices its wrong images, as `cards` of cards.html takes them."""
    pictured = found.found[:PICTURED]
    ids = list(dict.fromkeys(example.id for each in pictured for example in each.examples))
    pictures = dict(zip(ids, thumbnails([files.get(name) for name in ids]), strict=True))
    return [
        [
            {
                "id": example.id,
                "picture": pictures[example.id],
                "label": example.label,
                "predicted": example.predicted,
                "right": False,
                "row": None,
                "why": "",
                "p_label": example.p_label,
                "p_predicted": example.p_predicted,
            }
            for example in each.examples
        ]
        for each in pictured
    ]


def _map(flat: Map, classes: tuple[str, ...], files: dict[str, Path]) -> dict[str, Any]:
    """The points in the order in which they are drawn: those predicted rightly by class, then the others by class."""
    label, predicted = np.array(flat.label), np.array(flat.predicted)
    wrong = label != predicted
    order = np.lexsort((label, wrong))
    place = np.argsort(order)
    columns = max(1, int(np.ceil(np.sqrt(len(order)))))
    hues = _hues(label, wrong, len(classes))
    layers = []
    for is_wrong in (False, True):
        for c in np.unique(label[wrong == is_wrong]).tolist():
            rows = order[(label[order] == c) & (wrong[order] == is_wrong)]
            points = [(flat.x[row], 1000 - flat.y[row]) for row in rows]
            layers.append({"label": c, "hue": hues.get(c), "wrong": is_wrong, "points": points})
    return {
        "source": flat.source,
        "shown": len(order),
        "of": flat.of,
        "layers": layers,
        "legend": [(c, classes[c], hue) for c, hue in hues.items()],
        "others": len(np.unique(label)) - len(hues),
        "sheet": sheet([files.get(flat.ids[row]) for row in order], TILE, columns) if files else "",
        "data": {
            "ids": [escaped(flat.ids[row]) for row in order],
            "label": label[order].tolist(),
            "predicted": predicted[order].tolist(),
            "confidence": [flat.confidence[row] for row in order],
            "classes": [escaped(name) for name in classes],
            "slices": [sorted(place[list(inside)].tolist()) for inside in flat.slices],
            "columns": columns,
        },
    }


def _hues(label: np.ndarray, wrong: np.ndarray, classes: int) -> dict[int, int]:
    """The classes that have a colour -> its hue in degrees."""
    counts, mistakes = np.bincount(label, minlength=classes), np.bincount(label[wrong], minlength=classes)
    there = np.flatnonzero(counts)
    chosen = np.sort(there[np.lexsort((-counts[there], -mistakes[there]))][:COLOURED])
    return {int(c): round(360 * number / len(chosen)) for number, c in enumerate(chosen)}
