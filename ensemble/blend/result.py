"""The result of a blend: its scores beside what they are compared with, saved with the blend and read back."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

from ensemble.blend.decision import Decision
from ensemble.blend.described import read_described
from ensemble.blend.diversity import Diversity
from ensemble.blend.held_out import save_held_out
from ensemble.blend.oof import EXTERNAL_VIEW
from ensemble.blend.prune import Pruned
from ensemble.blend.saved import Blend, load_blend
from ensemble.conformal.rows import HeldOut
from ensemble.conformal.selective import RiskCoverage
from ensemble.data.logits import Logits
from ensemble.errors import UserError
from ensemble.files.reading import Count, Finite, Unread, parse_json
from ensemble.run import Run
from ensemble.scoring.bootstrap import Gain, Score
from ensemble.scoring.calibration import Bin, Calibration
from ensemble.scoring.metrics import columns
from ensemble.scoring.miscalibration import ClasswiseCalibration

UNSAVED = ("name", "path", "fitted", "tests", "held_out")


@dataclass(frozen=True, kw_only=True)
class BlendResult:
    """A fitted blend with its cross-fitted scores and what they are compared with.

    Scores are metric -> Score, of the metrics that are computed always and of the one asked for.

    name: what it is saved as, or its method.
    path: its JSON file; None where it is not saved.
    fitted: the blend fitted on all rows.
    rows, folds: how many it was scored on; folds is 0 in a result of an older ens.
    groups: how many groups the rows have; None where they have none.
    blend: scores on rows that the blend's weights were not fitted on.
    mean, members: scores of the plain mean and of each member, views averaged, which have nothing fitted.
    best: metric -> the best single member by that metric on these rows, which favours it a little.
    gains: over "mean" and over best[metric], per metric.
    calibration: of "plain mean", "blend" and "blend before its temperature", where it has one of its own, or "blend
        before its scaling", where one was asked for.
    reliability: the bins of the same.
    scaling_gain: what the scaling gains in log loss over "no scaling"; None where none was asked for.
    by_class: the blend's calibration by class; None where it is for other class shares.
    by_group: how many groups are right more or less often than their confidence says (p < 0.05, adjusted for their
        number); None where there are no groups, and as `by_class`.
    decision: what deciding by cost saves; None of a blend without costs.
    diversity: how the members differ.
    weights: member -> "weight" and, where there is one, "temperature".
    views: member -> the views that it was fitted on.
    view_weights: member -> view -> weight, for members of several views.
    unused: members, and "view of member" pairs, that have no part in the blend.
    pruned: what can be left out without loss, if that was asked for.
    left_out: member -> why.
    notes: lines to print.
    optimistic: members whose epoch was chosen on these rows.
    tests: member -> test predictions, of the external members that have some.
    selective: the error rate of the most confident rows; None in a result of an older ens, and for other class shares
        than those of the rows.
    held_out: the cross-fitted probabilities, of random rows where they are many; None when it is saved, and where the
        folds of several runs differ.
    """

    name: Annotated[str, Unread()]
    path: Annotated[Path | None, Unread()]
    fitted: Annotated[Blend, Unread()]
    rows: Count
    folds: Count = 0
    groups: Count | None = None
    blend: dict[str, Score]
    mean: dict[str, Score]
    members: dict[str, dict[str, Score]]
    best: dict[str, str]
    gains: tuple[Gain, ...]
    calibration: dict[str, Calibration]
    reliability: dict[str, tuple[Bin, ...]]
    scaling_gain: Gain | None = None
    by_class: ClasswiseCalibration | None = None
    by_group: Count | None = None
    decision: Decision | None = None
    diversity: Diversity
    weights: dict[str, dict[str, Finite]]
    views: dict[str, tuple[str, ...]]
    view_weights: dict[str, dict[str, Finite]]
    unused: tuple[str, ...]
    pruned: Pruned | None = None
    left_out: dict[str, str]
    notes: tuple[str, ...]
    optimistic: tuple[str, ...] = ()
    tests: Annotated[dict[str, Logits], Unread()] = field(default_factory=dict)
    selective: RiskCoverage | None = None
    held_out: Annotated[HeldOut | None, Unread()] = None

    @property
    def external(self) -> tuple[str, ...]:
        """The members that ens did not train, with those that have no part in the blend."""
        return tuple(
            name for name in self.members if self.views.get(name) == EXTERNAL_VIEW or name in self.fitted.external
        )

    @property
    def shifted(self) -> bool:
        """Whether it is for other class shares than those of its rows, so that its scores are not comparable."""
        return self.fitted.chain.prior_shift is not None

    def gain_over(self, against: str, metric: str) -> Gain | None:
        """The gain over "mean" or over the best single member, "single"."""
        name = self.best[metric] if against == "single" else against
        return next((gain for gain in self.gains if gain.metric == metric and gain.against == name), None)

    def save(self, run: Run, name: str) -> "BlendResult":
        """Write the blend, its scores, its external members' test predictions and its held-out probabilities; returns
        the result as it is saved."""
        for member in self.fitted.external:
            if member in self.tests:
                self.tests[member].save(run.external_file(name, member))
        scores = asdict(replace(self, tests={}, held_out=None))
        held_out = None if self.held_out is None else save_held_out(run, name, self.held_out)
        self.fitted.save(run, name, {key: value for key, value in scores.items() if key not in UNSAVED}, held_out)
        return replace(self, name=name, path=run.blend_json(name), held_out=None)


@dataclass(frozen=True)
class _File:
    """The part of a blend's JSON that is read here: an error names its keys as they stand there."""

    scores: BlendResult


def read_result(run: Run, name: str) -> BlendResult | None:
    """What `BlendResult.save` wrote, without test predictions; None where a blend was saved without scores, and for a
    cascade, whose scores are no blend's.

    Raises UserError as `load_blend`, and where the scores are not those of a result.
    """
    blend, described = load_blend(run, name), read_described(run, name)
    scores = described.get("scores")
    if not scores or blend.stages:
        return None
    path, again = run.blend_json(name), f"fit it again with: ens blend {run}"
    views = {"views": dict(zip(blend.members, blend.views, strict=True))}
    text = json.dumps({"scores": views | scores | dict.fromkeys(UNSAVED)})
    found = parse_json(text, _File, str(path), again).scores
    for where, scored in (("blend", found.blend), ("mean", found.mean), *found.members.items()):
        lacking = [metric for metric in columns() if metric not in scored]
        if lacking:
            raise UserError(f"{path}: its scores of {where} have no {lacking[0]}; {again}")
    if any(found.best.get(metric) not in found.members for metric in columns()):
        raise UserError(f"{path}: its best single members are not among its members; {again}")
    return replace(found, name=name, path=path, fitted=blend, tests={})


def read_scores(run: Run, name: str) -> dict[str, Score]:
    """The cross-fitted scores of a saved blend, or of a cascade; {} where it was saved without any. Raises UserError as
    `read_result`."""
    described = read_described(run, name)
    if "stages" not in described:
        result = read_result(run, name)
        return {} if result is None else result.blend
    path, again = run.blend_json(name), f"make it again with: ens cascade {run}"
    try:
        text = json.dumps(described["scores"]["worth"]["scores"])
    except (KeyError, TypeError):
        raise UserError(f"{path}: holds no scores of a cascade; {again}") from None
    return parse_json(text, dict[str, Score], str(path), again)


def saved_views(run: Run, name: str) -> dict[str, tuple[str, ...]] | None:
    """member -> the views that a saved blend was fitted on; {} where it was saved without scores.

    None where it can't be read: to fit it again mends it.
    """
    try:
        result = read_result(run, name)
    except UserError:
        return None
    return {} if result is None else result.views
