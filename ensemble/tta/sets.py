"""The columns `set` and `abstain` of a blend, see `ensemble.tta.certainty`. Never imports torch."""

from dataclasses import asdict

import numpy as np

from ensemble.blend import Blend
from ensemble.blend.held_out import load_held_out
from ensemble.blend.saved import read_described
from ensemble.blend.sources import source
from ensemble.conformal.calibrate import BY, calibrate, prediction_sets, strata_of, with_most_probable
from ensemble.conformal.choose import Choice, choose
from ensemble.conformal.rows import HeldOut
from ensemble.conformal.selective import CERTAINTY, abstention, least_rate
from ensemble.data.folds import fold_count
from ensemble.errors import UserError
from ensemble.plural import pluralize
from ensemble.predictions.certainty import CertaintyRequest
from ensemble.run import Run
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
        folds = fold_count(run) if blend.sources is None else len(blend.sources.sets[""])
        found.append(_sets(rows, blend, asked.sets, asked.sets_by, folds))
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
    return load_held_out(run, name, sha256, len(blend.classes))


def _sets(rows: HeldOut, blend: Blend, level: float, by: str | None, folds: int) -> CertaintyColumns:
    if by == "group" and not rows.grouped:
        raise UserError("--sets-by group: no rows of this run share a group; leave it out")
    choice = choose(rows, level, by)
    calibrated = calibrate(rows, choice.score, level, by, folds)

    def compute(some: BlendedRows) -> dict[str, np.ndarray]:
        if not len(some.probabilities):
            return {"set": np.zeros(some.probabilities.shape, dtype=bool)}
        return {"set": with_most_probable(prediction_sets(calibrated, some.of_folds), some.probabilities)}

    facts = {"sets": level, "by": by, "score": asdict(choice.score)}
    return CertaintyColumns(("set",), facts, tuple(_notes(rows, blend, level, by, choice)), compute)


def _notes(rows: HeldOut, blend: Blend, level: float, by: str | None, choice: Choice) -> list[str]:
    lines = [
        f"sets at {level:g} (score: {choice.score}): those of out-of-fold rows hold the true class in "
        f"{choice.coverage:.1%}, and {choice.size:.2f} classes on average"
    ]
    if by is None and len(np.unique(rows.clusters)) < MOSTLY_SINGLE * len(rows.labels):
        lines[0] += "; rows count one by one, --sets-by group counts each group as one"
    if choice.accuracy >= level:
        higher = next((f"; ask for {each}" for each in LEVELS if each > choice.accuracy), "")
        lines.append(
            f"the most likely class alone is right in {choice.accuracy:.1%}, more often than {level:g}: most sets hold "
            f"it alone{higher}"
        )
    strata = strata_of(rows.labels, len(blend.classes), level, by)
    if strata.pooled:
        names = [blend.classes[number] for number in strata.pooled]
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        lines.append(
            f"{pluralize(len(names), 'class has', 'classes have')} fewer than {strata.least} rows and no promise of "
            f"their own at {level:g}, but one together ({shown})"
        )
    if blend.external:
        lines.append(
            f"the promise takes it that the test predictions of {blend.external[0]} are like its out-of-fold ones, "
            "which ens can't see"
        )
    return lines


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
    return CertaintyColumns(("abstain",), {"abstain": rate}, (note,), compute)


def _confidence(probabilities: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """The probability of the decided class, float32 (n,)."""
    return np.asarray(probabilities[np.arange(len(decided)), decided], dtype=np.float32)
