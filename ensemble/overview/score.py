"""`ens score`: predictions of images whose labels are known now, beside what the out-of-fold score let expect."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensemble.blend import Blend, list_blends, load_blend
from ensemble.blend.external.members import read_labels
from ensemble.blend.oof import Rows, read_rows
from ensemble.blend.result import read_result, read_scores
from ensemble.data.classes import listed, reader
from ensemble.errors import UserError
from ensemble.overview.ledger import digest, entries
from ensemble.overview.scored_file import PredictedRows, read_predicted
from ensemble.plural import pluralize
from ensemble.run import Run
from ensemble.scoring.bootstrap import Score, bootstrap, scores
from ensemble.scoring.expected import LEAST_ROWS, Sample, expected_range
from ensemble.scoring.metrics import METRICS, computed
from ensemble.scoring.outcomes import Outcome, outcome


@dataclass(frozen=True)
class ScoredMetric:
    """One metric of the file.

    score: with its interval, over all rows as one fold.
    out_of_fold: the score of the blend; None where none is known.
    low, high: where `score` should lie in 95 of 100 cases, if these images are like those of the run; None likewise.
    """

    score: Score
    out_of_fold: Score | None = None
    low: float | None = None
    high: float | None = None

    @property
    def place(self) -> str:
        """ "inside", "below" or "above" what was expected; "" where nothing was."""
        if self.low is None or self.high is None:
            return ""
        return "below" if self.score.value < self.low else "above" if self.score.value > self.high else "inside"


@dataclass(frozen=True)
class ScoredFile:
    """What a file of predictions is worth.

    file, truth: what was compared.
    rows: how many images; groups: how many groups they have, None without groups.
    metrics: those that are computed always, and the one that the blend is for; of classes alone those of classes.
    run, blend: whose out-of-fold scores stand beside; None where no run is known.
    rows_before: how many those are of.
    notes: lines to print.
    """

    file: Path
    truth: Path
    rows: int
    groups: int | None
    metrics: dict[str, ScoredMetric]
    run: Path | None
    blend: str | None
    rows_before: int | None
    notes: tuple[str, ...]


def score_file(file: Path, truth: Path, run: Run | None = None, blend: str | None = None) -> ScoredFile:
    """Score the predictions in `file` by the labels in `truth`, a table of id and label (see `read_labels`).

    file: a submission, a table of probabilities, or a file of RUN/predictions. run: whose out-of-fold scores to set
    beside it; None for the run that the file lies in, if any. blend: its name; None for the one that the file was
    written by, as far as that is known, else the run's only one. Raises UserError that names the file and the id that
    it lacks, a label that is no class, and if the blend can't be told.
    """
    rows = read_labels(truth, with_folds=False)
    run = run if run is not None else _run_of(file)
    if blend is not None and run is None:
        raise UserError(f"--blend {blend}: name its run with --run")
    classes = () if run is None else tuple(run.read_classes())
    found = read_predicted(file, rows.ids.tolist(), rows.classes, classes)
    if classes and found.classes != classes:
        raise UserError(f"{file}: predicts {listed(found.classes)}; the classes of {run} are {listed(classes)}")
    name, notes = (None, ()) if run is None else _blend_of(run, file, blend, found)
    fitted = None if run is None or name is None else load_blend(run, name)
    labels = _labels(rows, truth, found.classes)
    outcomes = [_outcome(labels, found, fitted)]
    drawn = bootstrap(labels, outcomes, rows.clusters, len(found.classes))
    one_fold = np.zeros(len(labels), dtype=np.int64)
    scored = {
        metric: ScoredMetric(score)
        for metric, score in scores(labels, outcomes, one_fold, len(found.classes), drawn)[0].items()
        if found.probabilities is not None or METRICS[metric].needs in ("counts", "costs")
    }
    if found.others:
        others = pluralize(found.others, "prediction has", "predictions have")
        notes += (f"{file.name}: {others} no label in {truth.name}, not scored",)
    result = ScoredFile(
        file, truth, len(labels), len(np.unique(rows.clusters)) if rows.grouped else None, scored,
        None if run is None else run.path, name, None, (*found.notes, *notes),
    )  # fmt: skip
    return result if run is None or name is None else _beside(result, run, name)


def _run_of(file: Path) -> Run | None:
    """The run that the file lies in: RUN/predictions/<file>."""
    run = Run(file.absolute().parent.parent)
    return run if file.absolute().parent.name == "predictions" and run.folds_csv.is_file() else None


def _blend_of(run: Run, file: Path, blend: str | None, found: PredictedRows) -> tuple[str | None, tuple[str, ...]]:
    """The name of the blend whose scores to expect, and lines on it."""
    written = [entry for entry in entries(run.path) if entry.values.get("sha256") == digest(file)]
    note = written[-1].values.get("note", "") if written else ""
    notes = (f"predicted {note}",) if note.startswith("by ") else ()
    name = blend or found.blend or (written[-1].values.get("blend") if written else None)
    names = list_blends(run)
    if name is None and len(names) > 1:
        raise UserError(
            f"{file}: not a submission that {run} has written; name its blend with --blend: {listed(names)}"
        )
    return name or (names[0] if names else None), notes


def _labels(rows: Rows, truth: Path, classes: tuple[str, ...]) -> np.ndarray:
    """int64 (N,), numbers of `classes`, which may spell names otherwise."""
    read = reader(classes)
    numbers = [read(name) for name in rows.classes]
    for label, number in enumerate(numbers):
        if number is None:
            where = rows.ids[int(np.flatnonzero(rows.labels == label)[0])] if (rows.labels == label).any() else "a row"
            raise UserError(
                f"{truth}: the label {rows.classes[label]!r} of {str(where)!r} is none of: {listed(classes)}"
            )
    return np.asarray(np.array(numbers, dtype=np.int64)[rows.labels])


def _outcome(labels: np.ndarray, found: PredictedRows, fitted: Blend | None) -> Outcome:
    probabilities = found.probabilities
    if probabilities is None:
        of_classes = outcome(labels, np.eye(len(found.classes))[found.predicted])
        if fitted is None or fitted.costs is None:
            return of_classes
        values = {**of_classes.values, fitted.metric: fitted.costs[labels, found.predicted]}
        return replace(of_classes, values=values, metrics=computed(fitted.metric))
    if fitted is None:
        return outcome(labels, probabilities)
    return outcome(labels, probabilities, (fitted.metric,), fitted.costs)


def _beside(result: ScoredFile, run: Run, name: str) -> ScoredFile:
    """With the out-of-fold scores of the blend, and what they let expect of so many rows."""
    before, known = read_scores(run, name), read_result(run, name)
    if not before:
        return replace(result, notes=(*result.notes, f"blend {name} was saved without scores: nothing is expected"))
    sample = _all_rows(run) if known is None else Sample(known.rows, known.groups)
    metrics, notes, lacking = dict(result.metrics), result.notes, []
    for metric, scored in result.metrics.items():
        if metric in before:
            ends = expected_range(metric, before[metric], sample, Sample(result.rows, result.groups))
            metrics[metric] = ScoredMetric(scored.score, before[metric], *(ends or (None, None)))
            lacking += [METRICS[metric].title] if ends is None else []
    if lacking:
        notes += (
            f"nothing is expected of {', '.join(lacking)}: of fewer than {LEAST_ROWS} images these vary too much",
        )
    if known is not None and known.optimistic:
        notes += (f"the out-of-fold scores are optimistic: {', '.join(known.optimistic)} kept the best epochs on them",)
    return replace(result, metrics=metrics, rows_before=sample.rows, notes=notes)


def _all_rows(run: Run) -> Sample:
    rows = read_rows(run)
    return Sample(len(rows.ids), len(np.unique(rows.clusters)) if rows.grouped else None)
