"""Images that the networks got most wrong, and most surely right, by the logits of rows that they never saw."""

from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ensemble.blend.oof import Rows, finished, read_member
from ensemble.blend.probabilities import softmax
from ensemble.config import load_config
from ensemble.errors import UserError
from ensemble.plural import pluralize
from ensemble.report.thumbnails import image_files, thumbnails
from ensemble.run import Run
from ensemble.view.messages import without_paths

MOST = 12  # images of a kind


@dataclass
class Gallery:
    """The images of a run. They are found once."""

    run: Run
    _files: dict[str, Path] = field(default_factory=dict)
    _made: tuple[Any, dict[str, Any]] | None = None  # of which folds, and what was made of them

    def images(self, rows: Rows) -> dict[str, Any]:
        """{"note": ..., "groups": [{"title": ..., "images": [{"uri", "width", "height", "id", "label", "predicted",
        "probability", "problem"}]}]}, from the folds that are finished."""
        done = {name: finished(self.run, name, rows) for name in self.run.member_names()}
        done = {name: folds for name, folds in done.items() if folds}
        if self._made is None or self._made[0] != done:
            try:
                self._made = done, self._make(rows, done)
            except UserError as error:  # not kept: the images may be there the next time
                return {"note": without_paths(str(error), self.run), "groups": []}
        return self._made[1]

    def _make(self, rows: Rows, done: dict[str, list[int]]) -> dict[str, Any]:
        """Raises UserError for logits or images that can't be read."""
        if not done:
            return {"note": "There are images as soon as the first fold is finished.", "groups": []}
        found, probabilities = mean_probabilities(self.run, rows, done)
        self._files = self._files or image_files(load_config(self.run.config_toml))
        labels, names = rows.labels[found], rows.classes
        predicted = probabilities.argmax(axis=1)
        sure = probabilities.max(axis=1)
        groups = []
        for title, wanted in (("Most confident mistakes", predicted != labels), ("Most certain", predicted == labels)):
            chosen = np.flatnonzero(wanted)
            chosen = chosen[np.argsort(-sure[chosen], kind="stable")][:MOST]
            ids = [str(rows.ids[row]) for row in found[chosen]]
            pictures = thumbnails([self._files.get(id) for id in ids])
            images = [
                {
                    "uri": picture.uri,
                    "width": picture.width,
                    "height": picture.height,
                    "problem": without_paths(picture.problem, self.run),
                    "id": PurePath(id).name,
                    "label": names[labels[row]],
                    "predicted": names[predicted[row]],
                    "probability": float(sure[row]),
                }
                for row, id, picture in zip(chosen, ids, pictures, strict=True)
            ]
            groups.append({"title": title, "images": images})
        note = (
            f"{pluralize(len(found), 'image')} so far, each predicted by networks that never saw it: the plain mean of "
            f"{pluralize(len(done), 'member')}, as far as finished; the percentages are not calibrated."
        )
        return {"note": note, "groups": groups}


def mean_probabilities(run: Run, rows: Rows, done: dict[str, list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the rows that at least one member has out-of-fold logits of, int64 (n,), and their probabilities
    by the mean logits of those members, float64 (n, C).

    done: member -> its finished folds.

    Raises UserError that names a file that can't be read.
    """
    total = np.zeros((len(rows.ids), len(rows.classes)))
    count = np.zeros(len(rows.ids))
    for name, folds in done.items():
        there = np.isin(rows.folds, folds)
        total[there] += read_member(run, name, rows, folds=folds)[0].mean(axis=0)[there]
        count += there
    found = np.flatnonzero(count)
    return found, softmax(total[found] / count[found, None])
