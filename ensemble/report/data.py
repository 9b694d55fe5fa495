"""The data: how many images each class and fold has, how large they are, and which are copies of each other."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.errors import UserError
from ensemble.machine import cores
from ensemble.report import charts
from ensemble.report.copies import run_copies
from ensemble.report.provenance import experiment
from ensemble.report.run import RunResults
from ensemble.report.thumbnails import thumbnails, upright_size

MANY = 50  # classes: of more, the largest and the smallest are shown, half of this number each
WIDE = 24  # classes, up to which there is a table of folds
SAMPLE = 2000  # files whose sizes are measured
PAIRS = 6
SIDE = 128
AT = (0, 0.05, 0.5, 0.95, 1)


def section(results: RunResults) -> dict[str, Any] | None:
    counts = np.bincount(results.rows.labels, minlength=len(results.classes))
    return {
        "problem": results.files_problem,
        "classes": class_balance(results),
        "left": max(0, len(counts) - MANY),
        "ratio": float(counts.max() / counts.min()) if counts.min() else None,
        "most": results.classes[counts.argmax()],
        "least": results.classes[counts.argmin()],
        "folds": folds_table(results),
        "sizes": sizes(results, results.files),
        "copies": found_copies(results, results.files),
        "relabel": results.provenance["facts"].get("relabel"),
    }


def class_balance(results: RunResults) -> list[dict[str, Any]]:
    """Each class's number of rows and share, in the order of the classes; of many, the largest and the smallest by
    size."""
    counts = np.bincount(results.rows.labels, minlength=len(results.classes))
    order = np.arange(len(counts))
    if len(counts) > MANY:
        by_size = np.argsort(-counts, kind="stable")
        order = np.concatenate([by_size[: MANY // 2], by_size[-MANY // 2 :]])
    return [
        {
            "name": results.classes[c],
            "rows": int(counts[c]),
            "share": float(counts[c] / counts.sum()),
            "bar": float(counts[c] / counts.max()),
        }
        for c in order.tolist()
    ]


def folds_table(results: RunResults) -> list[dict[str, Any]]:
    """For each fold its number of rows, and those of each class; if there are many classes, the least and the most."""
    rows = results.rows
    numbers = np.unique(rows.folds).tolist()
    table = [np.bincount(rows.labels[rows.folds == fold], minlength=len(rows.classes)) for fold in numbers]
    return [
        {
            "fold": fold,
            "rows": int(counts.sum()),
            "counts": counts.tolist() if len(counts) <= WIDE else [],
            "least": int(counts.min()),
            "most": int(counts.max()),
        }
        for fold, counts in zip(numbers, table, strict=True)
    ]


def sizes(results: RunResults, files: dict[str, Path]) -> dict[str, Any] | None:
    """Widths, heights and shorter sides of the upright files, of a seeded sample where they are many. None where no
    file is there."""
    names = [name for name in results.rows.ids.tolist() if name in files]
    if len(names) > SAMPLE:
        names = [names[at] for at in np.sort(np.random.default_rng(0).choice(len(names), SAMPLE, replace=False))]

    def size(name: str) -> tuple[int, int] | None:
        try:
            return upright_size(files[name])
        except UserError:
            return None

    with ThreadPoolExecutor(cores()) as pool:
        found = np.array([pair for pair in pool.map(size, names) if pair is not None], dtype=np.int64)
    if not len(found):
        return None
    short = found.min(axis=1)
    ratio = found.max(axis=1) / short
    inputs = sorted(
        {int(member.settings["image_size"]) for member in results.members if "image_size" in member.settings}
    )
    same = len(np.unique(found, axis=0)) == 1
    chart = None
    if not same:
        bins = int(np.clip(np.unique(short).size, 1, 30))
        label = f"Number of images by the length of their shorter side, from {short.min()} to {short.max()} px"
        log = bool(short.max() > 10 * short.min())
        chart = charts.histogram(short, "sizes", label, "shorter side, px", bins=bins, log=log)
    return {
        "measured": len(found),
        "of": len(results.rows.ids),
        "same": f"{found[0, 0]} × {found[0, 1]}" if same else "",
        "chart": chart,
        "table": [
            ("width, px", [f"{value:.0f}" for value in np.quantile(found[:, 0], AT)]),
            ("height, px", [f"{value:.0f}" for value in np.quantile(found[:, 1], AT)]),
            ("longer side to shorter", [f"{value:.2f}" for value in np.quantile(ratio, AT)]),
        ],
        "enlarged": [(side, int((short < side).sum())) for side in inputs],
    }


def found_copies(results: RunResults, files: dict[str, Path]) -> dict[str, Any]:
    """How many copies and look-alikes there are, how many copies carry two labels or are in two folds, and a few of
    them."""
    found = run_copies(results, results.rows.ids, files)
    pairs = [] if found is None else [*found.copies, *found.look_alikes]
    labels, folds = results.rows.labels, results.rows.folds
    clash = [labels[a] != labels[b] for a, b, _ in pairs]
    split = [folds[a] != folds[b] for a, b, _ in pairs]
    copied = len(pairs) if found is None else len(found.copies)
    order = sorted(
        range(len(pairs)), key=lambda at: (at >= copied, not clash[at], not split[at], pairs[at][2] == "exact", at)
    )
    shown = [pairs[at] for at in order[:PAIRS]]
    names = [str(results.rows.ids[row]) for pair in shown for row in pair[:2]]
    pictures = thumbnails([files.get(name) for name in names], SIDE)
    return {
        "searched": found is not None,
        "near": found is not None and found.near,
        "file": experiment(results),
        "text": "" if found is None else found.text,
        "pairs": copied,
        "clash": sum(clash[:copied]),
        "split": sum(split[:copied]),
        "shown": [
            {
                "kind": kind,
                "pictures": [
                    {
                        "picture": pictures[2 * at + side],
                        "id": names[2 * at + side],
                        "label": results.classes[labels[row]],
                        "fold": int(folds[row]),
                    }
                    for side, row in enumerate((a, b))
                ],
            }
            for at, (a, b, kind) in enumerate(shown)
        ],
    }
