"""What looks wrong in a run, each check with its threshold.

An issue is a "warning" if a score may not mean what it says, else a "note". Thresholds are chosen so that a sound run
has none: a test over all members and folds together raises a false alarm in 1 of 100 runs.
"""

import math
import shlex
from collections.abc import Callable

import numpy as np
from scipy.stats import chi2_contingency

from ensemble.data.logits import load_logits
from ensemble.errors import UserError
from ensemble.plural import pluralize
from ensemble.report.audited import audited, named_groups
from ensemble.report.curves import by_epoch
from ensemble.report.provenance import experiment, train_again
from ensemble.report.run import RunResults
from ensemble.report.statistics import Issue, fold_test, near_chance, rise, smoothing_floor, some, tails
from ensemble.train.enough import enough_epochs

PERFECT_ACCURACY, PERFECT_LOSS = 0.995, 0.02
CHANCE = 0.01  # that one kind of test flags a sound run, over all its members and folds
OVERFIT_LOSS, OVERFIT_RATIO = 0.05, 5.0
SHARES_APART = 0.1  # total variation between predicted shares of the classes, out of fold and on new images

CHECKED = (
    f"scores too good to be true (accuracy of {100 * PERFECT_ACCURACY:g} % or more, log loss below {PERFECT_LOSS:g})",
    "folds that differ by more than chance explains, and single outlying folds (each at 1 in 100 over all "
    "members; approximate, except for single folds of ungrouped rows)",
    "groups that file names suggest, if data.group is not set",
    "members that predict one class only, members no better than the commonest class and than chance",
    "classes that are never predicted correctly",
    "members whose best epoch was chosen on the rows that score it",
    "overfitting: training loss near 0 and held-out loss far above it, or rising towards the end",
    "losses that are not numbers, training that was still improving at the end",
    "rows that are never validated, unfinished folds, stale blends",
    "class shares of predictions on new images that differ from those out of fold",
)


def check(results: RunResults) -> list[Issue]:
    """All issues, warnings first."""
    checks: tuple[Callable[[RunResults], list[Issue]], ...] = (
        _perfect, audited, named_groups, _fold_spread, _constant, _never_found, _optimistic, _overfit, _curves, _whole,
        _shares, _relabelled,
    )  # fmt: skip
    issues = [issue for run_check in checks for issue in run_check(results)]
    return sorted(issues, key=lambda issue: issue.level != "warning")


def _perfect(results: RunResults) -> list[Issue]:
    assert results.best is not None
    named = (
        [("the blend" if results.saved else "the plain mean", results.best.blend)]
        if len(results.best.members) > 1
        else []
    )
    named += [(member.name, member.row.scores) for member in results.members if member.row.scores]
    high = [
        f"{name} ({100 * scores['accuracy'].value:.2f} %, log loss {scores['log_loss'].value:.4f})"
        for name, scores in named
        if scores["accuracy"].value >= PERFECT_ACCURACY or scores["log_loss"].value < PERFECT_LOSS
    ]
    if not high:
        return []
    why = (
        "Easy images can explain it, but so can copies of a picture in several folds, or a label that shows in the "
        "picture (a frame, a size, a watermark). Look for copies before you trust the score"
    )
    why += "." if results.audit is not None else f": ens check {experiment(results)}."
    return [Issue("warning", f"Almost perfect: {some(high)}.", why)]


def _fold_spread(results: RunResults) -> list[Issue]:
    assert results.oof is not None
    rows = results.oof.rows
    systems = [(results.basis, results.predicted == rows.labels)] if len(results.oof.members) > 1 else []
    systems += [(m, out.predicted == rows.labels) for m, out in zip(results.oof.members, results.single, strict=True)]
    apart, outlying = [], []
    count = len(np.unique(rows.folds))
    for name, right in systems:
        p, z, numbers = fold_test(right, rows.folds, rows.clusters)
        accuracies = [100 * float(right[rows.folds == fold].mean()) for fold in numbers]
        if p < CHANCE / len(systems):
            apart.append(f"{name} ({min(accuracies):.1f} to {max(accuracies):.1f} %, p = {p:.1g})")
        each = tails(right, rows.folds, z, rows.grouped)
        k = int(each.argmin())  # the farthest one only: next to it the others seem to lie too far on the other side
        if each[k] < CHANCE / (count * len(systems)):
            side = "above" if z[k] > 0 else "below"
            outlying.append(
                f"fold {numbers[k]} of {name} ({accuracies[k]:.1f} %, "
                f"{abs(z[k]):.1f} standard errors {side} the others, p = {each[k]:.1g})"
            )
    out = []
    if apart:
        out.append(Issue(
            "warning", f"Folds differ by more than chance explains: {some(apart)}.",
            "The rows of a fold may share a scene, a person or a source. If they do, set data.group; without it the "
            "interval of the score is too narrow.",
        ))  # fmt: skip
    if outlying:
        why = (
            "Its images may be of another kind, or its training went wrong. Look at its learning curve and its images."
        )
        out.append(Issue("warning", f"Outlying folds: {some(outlying)}.", why))
    return out


def _constant(results: RunResults) -> list[Issue]:
    assert results.oof is not None
    rows = results.oof.rows
    common = float(np.bincount(rows.labels).max() / len(rows.labels))
    out = []
    for member, out_of_fold in zip(results.oof.members, results.single, strict=True):
        named = np.unique(out_of_fold.predicted)
        accuracy = float((out_of_fold.predicted == rows.labels).mean())
        balanced, chance = near_chance(out_of_fold.predicted, rows.labels)
        if len(named) == 1 and len(np.unique(rows.labels)) > 1:
            what = f"{member} predicts {rows.classes[named[0]]!r} for every image."
            out.append(Issue("warning", what, "It has learned nothing. Lower its lr, or check its pretrained weights."))
        elif accuracy <= common and len(rows.classes) > 1 and chance:
            # a member trained for rare classes gives up accuracy on the common ones: it is only flagged near chance
            what = (
                f"{member} has an accuracy of {100 * accuracy:.1f} %; always predicting the commonest class has "
                f"{100 * common:.1f} %. "
                f"Its balanced accuracy, {100 * balanced:.1f} %, is no better than chance."
            )
            out.append(Issue("warning", what, "It has learned next to nothing. Train longer, or change its lr."))
    return out


def _never_found(results: RunResults) -> list[Issue]:
    assert results.oof is not None
    rows = results.oof.rows
    true = np.bincount(rows.labels, minlength=len(rows.classes))
    hit = np.bincount(rows.labels[results.predicted == rows.labels], minlength=len(rows.classes))
    lost = np.flatnonzero((true > 0) & (hit == 0))
    out = []
    if len(lost):
        named = some([f"{rows.classes[c]} ({pluralize(int(true[c]), 'image')})" for c in lost])
        why = "No image of these is predicted correctly. They may be too few, or their labels may be mixed up."
        out.append(Issue("warning", f"Never predicted correctly: {named}.", why))
    absent = np.flatnonzero(true == 0)
    if len(absent):
        named = some([rows.classes[c] for c in absent])
        out.append(Issue("note", f"Classes without a validated image: {named}.", "No score says anything about them."))
    return out


def _optimistic(results: RunResults) -> list[Issue]:
    if not results.optimistic:
        return []
    return [Issue(
        "warning", f"Optimistic: {some(list(results.optimistic))}.",
        'They kept the epoch that was best on the rows that score them (keep = "best"). So are blends of them.',
    )]  # fmt: skip


def _overfit(results: RunResults) -> list[Issue]:
    learned, rising = [], []
    for member in results.members:
        training = by_epoch(member, "loss")[1]
        if not member.row.scores or not training.size or not np.isfinite(training[:, -1]).any():
            continue
        plain = member.settings.get("loss", "cross_entropy") == "cross_entropy"
        floor = (
            smoothing_floor(float(member.settings.get("label_smoothing", 0.0)), len(results.classes)) if plain else 0.0
        )
        last = max(float(np.nanmean(training[:, -1])) - floor, 0.0)
        held = member.row.scores["log_loss"].value
        if last < OVERFIT_LOSS and held > max(OVERFIT_RATIO * last, 0.2):
            learned.append(f"{member.name} (training loss {last:.3f} above its minimum, out of fold {held:.3f})")
        rose = rise(member)
        if rose is not None:
            rising.append(f"{member.name} ({rose})")
    out = []
    if learned:
        out.append(Issue(
            "note", f"Overfitting: {some(learned)}.",
            "More augmentation, fewer epochs or a lower lr usually narrow the gap.",
        ))  # fmt: skip
    if rising:
        out.append(Issue(
            "note", f"Held-out loss rises towards the end: {some(rising)}.", "Fewer epochs would have been better.",
        ))  # fmt: skip
    return out


def _curves(results: RunResults) -> list[Issue]:
    broken, more = [], []
    for member in results.members:
        values = [
            line.get(key, 0.0) for log in member.logs.values() for line in log for key in ("loss", "held_out_log_loss")
        ]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            broken.append(member.name)
        line = enough_epochs(results.run.member(member.name))
        if line is not None and "more may help" in line:
            more.append(member.name)
    out = []
    if broken:
        why = "Their training diverged. Lower the lr and train them again."
        out.append(Issue("warning", f"Losses that are not numbers: {some(broken)}.", why))
    if more:
        why = "Their held-out loss was still falling when training ended. More epochs may help."
        out.append(Issue("note", f"Still improving at the end of training: {some(more)}.", why))
    return out


def _whole(results: RunResults) -> list[Issue]:
    out = []
    lacking = [
        f"{member.name} ({len(member.row.done)} of {pluralize(member.row.folds, 'fold')})"
        for member in results.members
        if not member.whole
    ]
    if lacking:
        why = f"They are left out of blends. To finish them: {train_again(results)}"
        out.append(Issue("note", f"Not finished: {some(lacking)}.", why))
    assert results.oof is not None
    if len(results.oof.rows.ids) < len(results.rows.ids):
        what = (
            f"Scores cover {len(results.oof.rows.ids):,} of {pluralize(len(results.rows.ids), 'row')}: those of the "
            "finished folds."
        )
        out.append(Issue("note", what, "They will change when the other folds are finished."))
    if results.unvalidated:
        what = f"{pluralize(results.unvalidated, 'row is', 'rows are')} never validated (fold -1)."
        out.append(Issue("note", what, "Every network is trained on them, and no score says anything about them."))
    stale = [blend.name for blend in results.blends if blend.name in results.stale]
    if stale:
        again = f"ens blend {shlex.quote(str(results.run))}"
        why = f"Members were trained again, or rows changed, after they were fitted. To fit them again: {again}"
        out.append(
            Issue("warning", f"Stale blends, fitted on other logits than the run holds now: {some(stale)}.", why)
        )
    return out


def _shares(results: RunResults) -> list[Issue]:
    """Class shares on new images against those out of fold: chi-square, and a total variation of a tenth."""
    assert results.oof is not None
    # Of the most probable classes on both sides: costs, which may decide for others, are not in a file of predictions.
    before = np.bincount(results.probabilities.argmax(axis=1), minlength=len(results.classes))
    out = []
    meant = tuple(
        f"-{blend.name}" for blend in results.blends if blend.shifted
    )  # these predict other shares on purpose
    for path in sorted(results.run.path.glob("predictions/[!.]*.safetensors")):
        if path.stem.endswith(meant):
            continue
        try:
            made = load_logits(path)
        except UserError:
            continue
        if made.classes != results.classes:
            continue
        values = made.values.reshape(-1, *made.values.shape[-2:])[0]
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values):
            continue
        now = np.bincount(values.argmax(axis=1), minlength=len(results.classes))
        seen = (before + now) > 0
        share, new = before / before.sum(), now / now.sum()
        apart = float(np.abs(share - new).sum() / 2)
        if seen.sum() < 2:
            continue
        p = float(chi2_contingency(np.stack([before[seen], now[seen]])).pvalue)
        if p < 0.001 and apart > SHARES_APART:
            most = int(np.abs(share - new).argmax())
            what = (
                f"Predictions {path.stem} ({pluralize(int(now.sum()), 'image')}) have other class shares than the "
                f"out-of-fold predictions: {results.classes[most]} has {100 * new[most]:.1f} %, out of fold "
                f"{100 * share[most]:.1f} %."
            )
            why = (
                f"{100 * apart:.0f} % of the answers would have to change to match (p = {p:.1g}). The images may be of "
                "another kind, or decoded in another way. If you know their true shares, use: ens blend --priors"
            )
            out.append(Issue("warning", what, why))
    return out


def _relabelled(results: RunResults) -> list[Issue]:
    changes = results.provenance["facts"].get("relabel")
    if not changes:
        return []
    done = ", ".join(f"{key}: {number}" for key, number in changes.items())
    why = "Changing labels because networks disagreed with them makes out-of-fold scores optimistic."
    return [Issue("warning", f"Labels were corrected by a file ({done}).", why)]
