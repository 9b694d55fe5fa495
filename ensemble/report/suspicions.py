"""What looks wrong in a run, each with its threshold, in plain words.

A finding is "suspicious" where a score may not mean what it says, else a "hint". Thresholds are chosen so that a sound
run is silent: tests over members and folds are held to 1 in 100 for all of them together.
"""

import math
import shlex
from collections.abc import Callable

import numpy as np
from scipy.stats import chi2_contingency

from ensemble.data.logits import load_logits
from ensemble.errors import UserError
from ensemble.report.checked import audited, named_groups
from ensemble.report.curves import by_epoch
from ensemble.report.provenance import experiment, train_again
from ensemble.report.run import RunFacts
from ensemble.report.signs import Finding, fold_test, near_chance, rise, smoothing_floor, some, tails
from ensemble.train.enough import enough_epochs

PERFECT_ACCURACY, PERFECT_LOSS = 0.995, 0.02
CHANCE = 0.01  # that a sound run is flagged by one kind of test, over all its members and folds
OVERFIT_LOSS, OVERFIT_RATIO = 0.05, 5.0
SHARES_APART = 0.1  # total variation between predicted shares of the classes, out of fold and on new images

LOOKED_AT = (
    f"scores too good to be true (accuracy of {100 * PERFECT_ACCURACY:g} % or more, log loss below {PERFECT_LOSS:g})",
    "folds that differ more than chance explains, and single folds far off (each at 1 in 100 over all "
    "members; by an approximation, but for single folds of ungrouped rows)",
    "groups that file names suggest, where data.group is not set",
    "members that name one class only, members no better than the commonest class and than chance",
    "classes that are never found",
    "members whose best epoch was chosen on the rows that score it",
    "overfitting: training loss near 0 and held-out loss far above it, or rising towards the end",
    "losses that are not numbers, training that was still getting better at the end",
    "rows that are never validated, folds that are not finished, blends of other logits than the run holds",
    "classes predicted on new images in other shares than out of fold",
)


def look(facts: RunFacts) -> list[Finding]:
    """All findings, the suspicious first."""
    looks: tuple[Callable[[RunFacts], list[Finding]], ...] = (
        _perfect, audited, named_groups, _fold_spread, _constant, _never_found, _optimistic, _overfit, _curves, _whole,
        _shares, _relabelled,
    )  # fmt: skip
    found = [own for one in looks for own in one(facts)]
    return sorted(found, key=lambda own: own.level != "suspicious")


def _perfect(facts: RunFacts) -> list[Finding]:
    assert facts.best is not None
    named = (
        [("the blend" if facts.saved else "the plain mean", facts.best.blend)] if len(facts.best.members) > 1 else []
    )
    named += [(own.name, own.row.scores) for own in facts.members if own.row.scores]
    high = [
        f"{name} ({100 * own['accuracy'].value:.2f} %, log loss {own['log_loss'].value:.4f})"
        for name, own in named
        if own["accuracy"].value >= PERFECT_ACCURACY or own["log_loss"].value < PERFECT_LOSS
    ]
    if not high:
        return []
    why = (
        "Easy images can do that, but so can the same picture in several folds under other names, or a label that "
        "shows in the picture (a frame, a size, a watermark). Look for copies before you believe it"
    )
    why += "." if facts.audit is not None else f": ens check {experiment(facts)}."
    return [Finding("suspicious", f"Almost perfect: {some(high)}.", why)]


def _fold_spread(facts: RunFacts) -> list[Finding]:
    assert facts.oof is not None
    rows = facts.oof.rows
    systems = [(facts.basis, facts.predicted == rows.labels)] if len(facts.oof.members) > 1 else []
    systems += [(m, own.predicted == rows.labels) for m, own in zip(facts.oof.members, facts.single, strict=True)]
    apart, far = [], []
    count = len(np.unique(rows.folds))
    for name, right in systems:
        p, z, numbers = fold_test(right, rows.folds, rows.units)
        accuracies = [100 * float(right[rows.folds == fold].mean()) for fold in numbers]
        if p < CHANCE / len(systems):
            apart.append(f"{name} ({min(accuracies):.1f} to {max(accuracies):.1f} %, p = {p:.1g})")
        each = tails(right, rows.folds, z, rows.grouped)
        k = int(each.argmin())  # the farthest alone: beside it the others seem to be far off the other way
        if each[k] < CHANCE / (count * len(systems)):
            side = "above" if z[k] > 0 else "below"
            far.append(
                f"fold {numbers[k]} of {name} ({accuracies[k]:.1f} %, "
                f"{abs(z[k]):.1f} standard errors {side} the others, p = {each[k]:.1g})"
            )
    out = []
    if apart:
        out.append(Finding(
            "suspicious", f"Folds differ by more than chance explains: {some(apart)}.",
            "The rows of a fold have something in common: a scene, a person, a source. If that is so, name it as "
            "data.group; the interval of the score is then too narrow.",
        ))  # fmt: skip
    if far:
        why = (
            "Its images may be of another kind, or its training went wrong: look at its learning curve and its images."
        )
        out.append(Finding("suspicious", f"Far off: {some(far)}.", why))
    return out


def _constant(facts: RunFacts) -> list[Finding]:
    assert facts.oof is not None
    rows = facts.oof.rows
    common = float(np.bincount(rows.labels).max() / len(rows.labels))
    out = []
    for member, own in zip(facts.oof.members, facts.single, strict=True):
        named = np.unique(own.predicted)
        accuracy = float((own.predicted == rows.labels).mean())
        balanced, chance = near_chance(own.predicted, rows.labels)
        if len(named) == 1 and len(np.unique(rows.labels)) > 1:
            what = f"{member} answers {rows.classes[named[0]]!r} for every image."
            out.append(Finding("suspicious", what, "It has learned nothing: lower its lr, or look at its weights."))
        elif accuracy <= common and len(rows.classes) > 1 and chance:
            # a member trained for rare classes gives up accuracy on the common ones: only near chance is it lost
            what = (
                f"{member} gets {100 * accuracy:.1f} %; to name the commonest class always gets {100 * common:.1f} %. "
                f"Its balanced accuracy, {100 * balanced:.1f} %, is no better than chance."
            )
            out.append(Finding("suspicious", what, "It has learned next to nothing: train longer, or look at its lr."))
    return out


def _never_found(facts: RunFacts) -> list[Finding]:
    assert facts.oof is not None
    rows = facts.oof.rows
    true = np.bincount(rows.labels, minlength=len(rows.classes))
    hit = np.bincount(rows.labels[facts.predicted == rows.labels], minlength=len(rows.classes))
    lost = np.flatnonzero((true > 0) & (hit == 0))
    out = []
    if len(lost):
        named = some([f"{rows.classes[c]} ({true[c]:,} images)" for c in lost])
        why = (
            "Of these not one image is recognised: they may be too few, or their labels mixed up with another class's."
        )
        out.append(Finding("suspicious", f"Never found: {named}.", why))
    absent = np.flatnonzero(true == 0)
    if len(absent):
        named = some([rows.classes[c] for c in absent])
        out.append(Finding("hint", f"Without a validated image: {named}.", "Nothing is known about these classes."))
    return out


def _optimistic(facts: RunFacts) -> list[Finding]:
    if not facts.optimistic:
        return []
    return [Finding(
        "suspicious", f"Optimistic: {some(list(facts.optimistic))}.",
        'They kept the epoch that was best on the rows that score them (keep = "best"), and so are all blends of them.',
    )]  # fmt: skip


def _overfit(facts: RunFacts) -> list[Finding]:
    learned, rising = [], []
    for own in facts.members:
        training = by_epoch(own, "loss")[1]
        if not own.row.scores or not training.size or not np.isfinite(training[:, -1]).any():
            continue
        plain = own.settings.get("loss", "cross_entropy") == "cross_entropy"
        floor = smoothing_floor(float(own.settings.get("label_smoothing", 0.0)), len(facts.classes)) if plain else 0.0
        last = max(float(np.nanmean(training[:, -1])) - floor, 0.0)
        held = own.row.scores["log_loss"].value
        if last < OVERFIT_LOSS and held > max(OVERFIT_RATIO * last, 0.2):
            learned.append(f"{own.name} (training loss {last:.3f} above its least possible, out of fold {held:.3f})")
        rose = rise(own)
        if rose is not None:
            rising.append(f"{own.name} ({rose})")
    out = []
    if learned:
        out.append(Finding(
            "hint", f"Training images are known by heart: {some(learned)}.",
            "More augmentation, fewer epochs or a lower lr usually bring the two together.",
        ))  # fmt: skip
    if rising:
        out.append(Finding(
            "hint", f"Held-out loss rises towards the end: {some(rising)}.", "Fewer epochs would have been better.",
        ))  # fmt: skip
    return out


def _curves(facts: RunFacts) -> list[Finding]:
    broken, more = [], []
    for own in facts.members:
        values = [
            line.get(key, 0.0) for log in own.logs.values() for line in log for key in ("loss", "held_out_log_loss")
        ]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            broken.append(own.name)
        line = enough_epochs(facts.run.member(own.name))
        if line is not None and "more may help" in line:
            more.append(own.name)
    out = []
    if broken:
        why = "Their training went out of bounds: lower the lr and train them again."
        out.append(Finding("suspicious", f"A loss that is not a number: {some(broken)}.", why))
    if more:
        why = "Their held-out loss was still falling when the epochs ended: more epochs may help."
        out.append(Finding("hint", f"Not yet done learning: {some(more)}.", why))
    return out


def _whole(facts: RunFacts) -> list[Finding]:
    out = []
    lacking = [f"{own.name} ({len(own.row.done)} of {own.row.folds} folds)" for own in facts.members if not own.whole]
    if lacking:
        why = f"They take no part in blends. Train on with: {train_again(facts)}"
        out.append(Finding("hint", f"Not finished: {some(lacking)}.", why))
    assert facts.oof is not None
    if len(facts.oof.rows.ids) < len(facts.rows.ids):
        what = (
            f"Scores are of {len(facts.oof.rows.ids):,} of {len(facts.rows.ids):,} rows: those of the finished folds."
        )
        out.append(Finding("hint", what, "They change when the other folds are done."))
    if facts.unvalidated:
        what = f"{facts.unvalidated:,} rows are never validated (fold -1)."
        out.append(Finding("hint", what, "Every network is trained on them; no score says anything about them."))
    stale = [own.name for own in facts.blends if own.name in facts.stale]
    if stale:
        again = f"ens blend {shlex.quote(str(facts.run))}"
        why = (
            f"Members were trained again since or are not finished, or rows have changed. Fit them again with: {again}"
        )
        out.append(Finding("suspicious", f"Blends of other logits than the run holds: {some(stale)}.", why))
    return out


def _shares(facts: RunFacts) -> list[Finding]:
    """Predicted classes on new images against those out of fold: chi-square, and at least a tenth of them elsewhere."""
    assert facts.oof is not None
    before = np.bincount(facts.predicted, minlength=len(facts.classes))
    out = []
    meant = tuple(f"-{own.name}" for own in facts.blends if own.shifted)  # these are to name other shares
    for path in sorted(facts.run.path.glob("predictions/[!.]*.safetensors")):
        if path.stem.endswith(meant):
            continue
        try:
            made = load_logits(path)
        except UserError:
            continue
        if made.classes != facts.classes:
            continue
        values = made.values.reshape(-1, *made.values.shape[-2:])[0]
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values):
            continue
        now = np.bincount(values.argmax(axis=1), minlength=len(facts.classes))
        seen = (before + now) > 0
        share, new = before / before.sum(), now / now.sum()
        apart = float(np.abs(share - new).sum() / 2)
        if seen.sum() < 2:
            continue
        p = float(chi2_contingency(np.stack([before[seen], now[seen]])).pvalue)
        if p < 0.001 and apart > SHARES_APART:
            most = int(np.abs(share - new).argmax())
            what = (
                f"Predictions {path.stem} ({now.sum():,} images) name the classes in other shares than out of fold: "
                f"{facts.classes[most]} {100 * new[most]:.1f} %, out of fold {100 * share[most]:.1f} %."
            )
            why = (
                f"{100 * apart:.0f} % of the answers would have to move (p = {p:.1g}). The images may be of another "
                "kind, or decoded in another way; if their true shares are known, say so with: ens blend --priors"
            )
            out.append(Finding("suspicious", what, why))
    return out


def _relabelled(facts: RunFacts) -> list[Finding]:
    own = facts.provenance["facts"].get("relabel")
    if not own:
        return []
    done = ", ".join(f"{key}: {number}" for key, number in own.items())
    why = "Labels that were changed because networks disagreed with them flatter the scores out of fold."
    return [Finding("suspicious", f"Labels were corrected by a file ({done}).", why)]
