"""The columns `set` and `abstain` of a blend, see `ensemble.tta.certainty`. Never imports torch."""

from dataclasses import asdict, replace

import numpy as np

from ensemble.blend import Blend
from ensemble.blend.described import read_described
from ensemble.blend.held_out import load_held_out
from ensemble.blend.sources import source
from ensemble.conformal.calibrate import BY, calibrate, exceeds, prediction_sets, strata_of, with_most_probable
from ensemble.conformal.choose import Choice, choose
from ensemble.conformal.rows import HeldOut
from ensemble.conformal.selective import CERTAINTY, abstention, least_rate
from ensemble.data.folds import fold_count
from ensemble.errors import UserError
from ensemble.plural import pluralize
from ensemble.predictions.certainty import CertaintyRequest
from ensemble.run import Run
from ensemble.tta.apply import fold_sets
from ensemble.tta.certainty import BlendedRows, CertaintyColumns

MOSTLY_SINGLE = 0.9  # groups per row: with more, hardly any row shares a group
LEVELS = (0.95, 0.99, 0.995, 0.999)  # that are advised where the classifier alone is right more often than asked


def sets_and_abstention(
    run: Run, name: str, blend: Blend, networks: str, asked: CertaintyRequest
) -> tuple[CertaintyColumns, ...]:
    """See `ensemble.tta.certainty.certainty_columns`."""
    require_levels(asked)
    if asked.sets is None and asked.abstain is None:
        return ()
    rows = _held_out_rows(run, name, blend, networks, asked)
    found = []
    if asked.sets is not None:
        counts = [blend.networks(each, fold_count(run)) if each in blend.trained else 1 for each in blend.members]
        found.append(_sets(rows, blend, asked.sets, asked.sets_by, len(fold_sets(blend, counts))))
    if asked.abstain is not None:
        found.append(_abstain(rows, blend, asked.abstain))
    return tuple(found)


def require_levels(asked: CertaintyRequest) -> None:
    """Raise UserError unless each number is one that can be asked for."""
    for option, value, example in (("sets", asked.sets, 0.9), ("abstain", asked.abstain, 0.01)):
        if value is not None and not 0 < value < 1:
            raise UserError(f"--{option} {value:g}: must be between 0 and 1, such as {example}")
    if asked.sets_by is not None and asked.sets_by not in BY:
        raise UserError(f"--sets-by {asked.sets_by}: must be one of {', '.join(BY)}")
    if asked.sets_by is not None and asked.sets is None:
        raise UserError(f"--sets-by {asked.sets_by} goes with --sets, which names the level")


def _held_out_rows(run: Run, name: str, blend: Blend, networks: str, asked: CertaintyRequest) -> HeldOut:
    """The blend's out-of-fold rows. Raises UserError where they promise nothing about what will predict."""
    option = "--sets" if asked.sets is not None else "--abstain"
    if networks != "folds":
        raise UserError(
            f"{option}: --networks {networks} have no out-of-fold rows to calibrate on; predict by the networks of the "
            "folds"
        )
    if blend.stages:
        raise UserError(
            f"{option}: {name!r} is a cascade, whose rows leave at different stages; predict by the blend that it was "
            "made of"
        )
    optimistic = [each for each in blend.trained if source(run, blend.sources, each).is_optimistic()]
    if optimistic:
        raise UserError(
            f'{option}: {optimistic[0]} kept its best epochs (keep = "best"), which were chosen on the rows to '
            'calibrate on; train it with keep = "last"'
        )
    if blend.chain.prior_shift is not None and (asked.sets_by != "class" or asked.abstain is not None):
        raise UserError(
            f"{option}: {name!r} is for other class shares than those of its rows (--priors): there, only --sets with "
            "--sets-by class can promise anything; or fit a blend without --priors"
        )
    sha256 = read_described(run, name).get("held_out")
    if sha256 is None and blend.sources is not None:
        raise UserError(
            f"{option}: {name!r} is of several runs, and has no out-of-fold rows to calibrate on: their folds differ, "
            "or it was fitted by an older ens; blend one run, or runs of the same folds"
        )
    rows = load_held_out(run, name, sha256, len(blend.classes))
    if blend.chain.prior_shift is not None and asked.sets is not None:
        strata = strata_of(rows.labels, len(blend.classes), asked.sets, asked.sets_by)
        if strata.pooled:
            raise UserError(
                f"--sets {asked.sets:g}: {name!r} is for other class shares than those of its rows (--priors), which "
                f"takes {strata.least} rows of each class; too few are of {_names(strata.pooled, blend)}: ask for a "
                "lower level, or fit a blend without --priors"
            )
    return rows


def _sets(rows: HeldOut, blend: Blend, level: float, by: str | None, answers: int) -> CertaintyColumns:
    """answers: how many the blend averages, one of each fold's networks."""
    if by == "group" and not rows.grouped:
        raise UserError("--sets-by group: no rows of this run share a group; leave it out")
    shift = blend.chain.prior_shift
    choice = choose(rows, level, by, ratios=None if shift is None else np.exp(shift.prior_bias))
    # External members alone have one answer for all folds: it is compared with the rows of all.
    compared = rows if answers > 1 else replace(rows, folds=np.zeros_like(rows.folds))
    calibrated = calibrate(compared, choice.score, level, by, answers)

    def compute(some: BlendedRows) -> dict[str, np.ndarray]:
        if not len(some.probabilities):
            return {"set": np.zeros(some.probabilities.shape, dtype=bool)}
        sets = with_most_probable(prediction_sets(calibrated, some.of_folds), some.probabilities)
        sets[np.arange(len(sets)), blend.decide(some.probabilities)] = True  # with costs it may be another class
        return {"set": sets}

    settings = {"sets": level, "by": by, "score": asdict(choice.score)}
    return CertaintyColumns(("set",), settings, tuple(_notes(rows, blend, level, by, choice)), compute)


def _notes(rows: HeldOut, blend: Blend, level: float, by: str | None, choice: Choice) -> list[str]:
    lines = [
        f"sets at {level:g} (score: {choice.score}): those of out-of-fold rows hold the true class in "
        f"{_coverage(choice, blend, by)}, and {choice.size:.2f} classes on average"
        + ("" if blend.chain.prior_shift is None else ", at the given class shares")
    ]
    if by != "group" and len(np.unique(rows.clusters)) < MOSTLY_SINGLE * len(rows.labels):
        lines[0] += "; rows count one by one"
        lines[0] += ", --sets-by group counts each group as one" if by is None else ", also those that share a group"
    if choice.accuracy >= level and blend.chain.prior_shift is None:
        higher = next((f"; ask for {each}" for each in LEVELS if each > choice.accuracy), "")
        lines.append(
            f"the most likely class alone is right in {choice.accuracy:.1%}, more often than {level:g}: most sets hold "
            f"it alone{higher}"
        )
    strata = strata_of(rows.labels, len(blend.classes), level, by)
    if strata.pooled:
        lines.append(
            f"{pluralize(len(strata.pooled), 'class has', 'classes have')} fewer than {strata.least} rows and no "
            f"promise of their own at {level:g}, but one together ({_names(strata.pooled, blend)})"
        )
        count = int(strata.rows[0].sum())
        if exceeds(np.zeros(1), count, level).all():
            lines[-1] += f"; of {pluralize(count, 'row')} in all they are in every set"
    if blend.external:
        lines.append(
            f"the promise takes it that the test predictions of {blend.external[0]} are like its out-of-fold ones, "
            "which ens can't see"
        )
    return lines


def _coverage(choice: Choice, blend: Blend, by: str | None) -> str:
    """How many sets of out-of-fold rows hold the true class; by class those of the classes with the fewest and most."""
    if by != "class":
        return f"{choice.coverage:.1%}"
    ends = int(np.nanargmin(choice.of_classes)), int(np.nanargmax(choice.of_classes))
    return " to ".join(f"{choice.of_classes[number]:.1%} ({blend.classes[number]})" for number in ends)


def _names(numbers: tuple[int, ...], blend: Blend) -> str:
    return ", ".join(blend.classes[number] for number in numbers[:5]) + (", ..." if len(numbers) > 5 else "")


def _abstain(rows: HeldOut, blend: Blend, rate: float) -> CertaintyColumns:
    decided = blend.decide(rows.probabilities)
    found = abstention(_confidence(rows.probabilities, decided), decided != rows.labels, rows.clusters, rate)
    if found is None:
        least = least_rate(len(np.unique(rows.clusters)))
        raise UserError(
            f"--abstain {rate:g}: the out-of-fold rows show so low an error rate for no share of the images; ask for a "
            f"higher one (without any mistake they would show {least:.2g})"
        )

    def compute(some: BlendedRows) -> dict[str, np.ndarray]:
        confidence = _confidence(some.probabilities, blend.decide(some.probabilities))
        return {"abstain": confidence < np.float32(found.threshold)}

    note = (
        f"abstains below a confidence of {found.threshold:.1%}: of the out-of-fold rows {found.answered:.1%} are "
        f"answered, {found.error:.2%} of them wrongly (of such images, with a certainty of {CERTAINTY:.0%}, at most "
        f"{rate:.2%})"
    )
    return CertaintyColumns(("abstain",), {"abstain": rate, "threshold": found.threshold}, (note,), compute)


def _confidence(probabilities: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """The probability of the decided class, float32 (n,)."""
    return np.asarray(probabilities[np.arange(len(decided)), decided], dtype=np.float32)
