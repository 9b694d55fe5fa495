"""What the saved blends of a run say of themselves, and the cross-fitted probabilities of one, made again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ensemble.blend import BlendResult, check_sources, list_blends, load_blend, methods
from ensemble.blend.crossfit import fit_rows, member_logits, plain_average
from ensemble.blend.described import read_described, read_scores
from ensemble.blend.oof import GIVEN, Oof, Rows, finished, read_oof
from ensemble.errors import UserError
from ensemble.run import Run
from ensemble.scoring.bootstrap import Gain, Score
from ensemble.scoring.calibration import Bin, Calibration
from ensemble.scoring.cross_fit import cross_fit

Scores = dict[str, Score]  # by metric


@dataclass(frozen=True)
class Standing:
    """A blend with the scores that `ens blend` printed when it was fitted (see `BlendResult`).

    metric: what it was directed at. shifted: it was fitted for other class shares than those of the rows (`--priors`),
    so that its scores are not to be compared with the others'. stale: why it doesn't belong to what the run holds now.
    foreign: members that ens did not train. costs: member -> what leaving it out costs.
    """

    name: str
    method: str
    metric: str
    shifted: bool
    stale: str | None
    foreign: tuple[str, ...]
    rows: int
    blend: Scores
    mean: Scores
    members: dict[str, Scores]
    best: dict[str, str]
    gains: tuple[Gain, ...]
    calibration: dict[str, Calibration]
    reliability: dict[str, tuple[Bin, ...]]
    weights: dict[str, dict[str, float]]
    view_weights: dict[str, dict[str, float]]
    views: dict[str, tuple[str, ...]]
    unused: tuple[str, ...]
    costs: dict[str, Gain]
    notes: tuple[str, ...]
    left_out: dict[str, str]

    def gain_over(self, against: str, metric: str) -> Gain | None:
        """The gain over "mean" or over the best single member, "single"."""
        name = self.best[metric] if against == "single" else against
        return next((own for own in self.gains if own.metric == metric and own.against == name), None)


def read_blends(run: Run, rows: Rows) -> tuple[tuple[Standing, ...], tuple[str, ...]]:
    """The blends by their log loss, the least first, and a line for each that can't be shown."""
    found, problems = [], []
    for name in list_blends(run.path):
        try:
            load_blend(run.path, name)  # its two files are whole and belong together
            if read_scores(run.path, name) is None:
                problems.append(f"blend {name} holds no scores; fit it again with: ens blend {run}")
                continue
            own = standing(name, read_described(run.path, name), None)
            found.append(replace(own, stale=_stale(run, own, rows)))
        except UserError as error:
            problems.append(str(error))
        except (KeyError, TypeError) as error:
            problems.append(f"blend {name} holds no scores that can be read ({error}); fit it again: ens blend {run}")
    # Two that differ in the last bits alone are one blend: the plainer name first.
    found.sort(key=lambda own: (round(own.blend["log_loss"].value, 9), own.metric != "log_loss", own.name))
    return tuple(found), tuple(problems)


def standing(name: str, described: Mapping[str, Any], stale: str | None) -> Standing:
    """From a blend's JSON."""
    facts = described["scores"]
    own_views = dict(zip(described["members"], described["views"], strict=True))
    views = {member: tuple(own) for member, own in facts.get("views", own_views).items()}
    # a foreign member without weight is no part of the blend, but its scores are here
    foreign = [member for member in facts["members"] if views.get(member) == GIVEN or member in described["foreign"]]
    return Standing(
        name=name,
        method=described["method"],
        metric=described["metric"],
        shifted="prior_bias" in described["arrays"],
        stale=stale,
        foreign=tuple(foreign),
        rows=facts["rows"],
        blend=_scores(facts["blend"]),
        mean=_scores(facts["mean"]),
        members={member: _scores(own) for member, own in facts["members"].items()},
        best=facts["best"],
        gains=tuple(Gain(**own) for own in facts["gains"]),
        calibration={key: Calibration(**own) for key, own in facts["calibration"].items()},
        reliability={key: tuple(Bin(**one) for one in own) for key, own in facts["reliability"].items()},
        weights=facts["weights"],
        view_weights=facts["view_weights"],
        views=views,
        unused=tuple(facts["unused"]),
        costs={member: Gain(**own) for member, own in facts["diversity"]["costs"].items()},
        notes=tuple(facts["notes"]),
        left_out=facts["left_out"],
    )


def of_result(name: str, result: BlendResult) -> Standing:
    """Of a blend that was just fitted and is not saved."""
    facts = asdict(result)
    fitted = result.fitted
    described = {"method": fitted.method, "metric": fitted.metric, "foreign": fitted.foreign, "scores": facts}
    arrays = [key for key, value in fitted.params.items() if isinstance(value, np.ndarray)]
    return standing(name, described | {"members": fitted.members, "views": fitted.views, "arrays": arrays}, None)


def comparable(blends: tuple[Standing, ...]) -> tuple[Standing, ...]:
    """Those whose scores are of these rows as they are: neither stale nor for other class shares."""
    return tuple(own for own in blends if own.stale is None and not own.shifted)


def cross_fitted(run: Run, own: Standing) -> np.ndarray:
    """The probabilities float64 (N, C) that the blend's scores are of: each row's by a fit without its fold.

    N as in folds.csv's validated rows. Not saved with a blend, so it is fitted again. Raises UserError where the run
    no longer holds what it was fitted on.
    """
    trained = [member for member in own.members if member not in own.foreign]
    names = own.views.get(trained[0])
    oof = read_oof(run.path, names if names != GIVEN else None, trained)
    return cross_fit_of(oof, own.method, own.metric)


def cross_fit_of(oof: Oof, method: str, metric: str) -> np.ndarray:
    """As `ensemble.blend.crossfit.held_out`, but the probabilities themselves."""
    plain = plain_average(oof)

    def fit_apply(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        of_views, params = fit_rows(oof, plain, method, metric, None, train)
        return methods.apply(method, params, member_logits(oof, plain, of_views, test))

    return cross_fit(fit_apply, oof.rows.folds, oof.rows.units)


def some_rows(oof: Oof, where: np.ndarray) -> Oof:
    """The same members on the rows `where` int64 (n,)."""
    every = oof.rows
    rows = Rows(
        every.ids[where], every.labels[where], every.folds[where], every.units[where], every.grouped, every.classes
    )
    return Oof(rows, oof.members, oof.views, tuple(own[:, where] for own in oof.values), oof.left_out, oof.foreign)


def _scores(facts: Mapping[str, Any]) -> Scores:
    return {metric: Score(own["value"], own["low"], own["high"], tuple(own["folds"])) for metric, own in facts.items()}


def _stale(run: Run, own: Standing, rows: Rows) -> str | None:
    if own.rows != len(rows.ids):
        return f"it was fitted on {own.rows} rows, the run has {len(rows.ids)}"
    try:
        check_sources(run.path, own.name)
    except UserError as error:
        return str(error)
    there = run.member_names()
    for member in own.members:
        if member in own.foreign:
            continue
        if member not in there:
            return f"the run has no member {member!r} any more"
        if len(finished(run.path, member, rows)) < len(np.unique(rows.folds)):
            return f"its member {member!r} is not finished now"
    return None
