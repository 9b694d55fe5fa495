"""How well images that are none of the classes are told, and the test images that are most unlike the training ones."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context

from ensemble.blend import list_blends, load_blend
from ensemble.data.samples import read_images
from ensemble.errors import UserError
from ensemble.files.reading import read_text
from ensemble.ood.choose import FALSE_ALARMS
from ensemble.ood.detector import Detector
from ensemble.ood.saved import load_detector
from ensemble.overview.ledger import entries
from ensemble.report.charts import SERIES, SETTINGS, new_chart, svg
from ensemble.report.run import RunResults
from ensemble.report.thumbnails import thumbnails
from ensemble.tta.certainty import certainty_path

SHOWN = 12  # test images


def section(results: RunResults) -> dict[str, Any] | None:
    """Of each blend with a detector the candidates, and a chart of the scores. None where ens unknown was not run."""
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    for name in list_blends(results.run):
        if not results.run.detector_file(name).is_file():
            continue
        try:
            saved = load_detector(results.run, name, load_blend(results.run, name))
        except UserError as error:
            problems.append(str(error))
            continue
        test, scores = _most_unlike(results, name)
        found.append({
            "name": name, "trials": saved.trials, "best": saved.trials[0], "rows": len(saved.detector.row_scores),
            "chart": _chart(saved.detector, scores, len(found)), "test": test, "images": len(scores),
        })  # fmt: skip
    return {"detectors": found, "problems": problems} if found or problems else None


def _chart(detector: Detector, test: np.ndarray, number: int) -> Markup:
    """The scores of the training rows, and of the test images, with the threshold."""
    figure, (axes,) = new_chart(5.2, 2.4)
    rows = detector.row_scores
    ends = np.concatenate([rows, test])
    bins = np.linspace(ends.min(), ends.max() + 1e-9, 41).tolist()
    with rc_context(SETTINGS):
        axes.hist(rows, bins, density=True, color=SERIES[0], alpha=0.7, label="training images, out of fold")
        if len(test):
            axes.hist(test, bins, density=True, histtype="step", color=SERIES[1], linewidth=1.5, label="test images")
        if detector.least_rate <= FALSE_ALARMS:
            axes.axvline(detector.threshold(FALSE_ALARMS), color=SERIES[2], linestyle="--", label="1 % false alarms")
        axes.set_xlabel("how unlike the training images")
        axes.set_yticks([])
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)  # above: the histogram fills all
    return svg(figure, f"unknown{number}", "distribution of the scores of training and test images")


def _most_unlike(results: RunResults, blend: str) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The test images with the largest scores, as their last prediction with --unknown by this blend says, and all its
    scores float64 (n,); none where there was no such prediction, or its files are gone or of another one since."""
    nothing: tuple[list[dict[str, Any]], np.ndarray] = [], np.zeros(0)
    try:
        last = {entry.values.get("file", ""): entry.values for entry in entries(results.run.path)}  # the newest of each
        newest = sorted(last.values(), key=lambda values: values.get("written", ""))
        for values in reversed([values for values in newest if values.get("blend") == blend]):
            submission = Path(values.get("file", ""))
            path = certainty_path(submission)
            # A table of before `ens unknown` was run again holds the scores of another detector.
            if not path.is_file() or any(
                _is_newer(file, path) for file in (submission, results.run.detector_file(blend))
            ):
                continue
            table = [row for row in csv.DictReader(io.StringIO(read_text(path))) if row.get("unknown_score")]
            if not table:
                continue
            scores = np.array([float(row["unknown_score"]) for row in table])
            first = [table[row] for row in np.argsort(-scores, kind="stable")[:SHOWN]]
            return _pictured(first, values.get("images", "")), scores
    except (UserError, ValueError, KeyError, csv.Error):
        pass
    return nothing


def _is_newer(file: Path, certainty: Path) -> bool:
    """Whether a file was written after the table, which then is of an earlier prediction."""
    return file.is_file() and file.stat().st_mtime > certainty.stat().st_mtime


def _pictured(rows: list[dict[str, str]], images: str) -> list[dict[str, Any]]:
    """images: "" where the ledger doesn't tell."""
    try:
        ids, paths, _ = read_images(Path(images)) if images else ((), (), None)
        files = dict(zip(ids, paths, strict=True))
    except UserError:
        files = {}
    pictures = thumbnails([files.get(row["id"]) for row in rows])
    return [
        {"id": row["id"], "class": row["class"], "score": float(row["unknown_score"]), "marked": row["unknown"] == "1",
         "picture": picture}
        for row, picture in zip(rows, pictures, strict=True)
    ]  # fmt: skip
