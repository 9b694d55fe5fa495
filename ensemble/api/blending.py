"""The blend of a run, and its members' scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pandas as pd

from ensemble.api import results
from ensemble.api.frames import scores_frame
from ensemble.api.printing import listening
from ensemble.blend import BlendOptions, BlendResult, blend_run, members_table
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files import sealed
from ensemble.run import Run

if TYPE_CHECKING:
    from ensemble.predictions.images import Images, Prediction
    from ensemble.tta.predictor import Predictor


@dataclass(frozen=True, repr=False)
class RunBlend:
    """A blend that was fitted on a run and saved in it.

    run: the run.
    result: all that is known of the blend, see `BlendResult`.
    digest: of the file that it is saved in.
    """

    run: Run
    result: BlendResult
    digest: str

    @property
    def name(self) -> str:
        """What it is saved as in the run, and what `ens tta-predict --blend` calls it."""
        return self.result.name

    @property
    def scores(self) -> pd.DataFrame:
        """Cross-fitted scores: a row for "blend", "plain mean" and each member; of each metric the value, the ends
        `_low` and `_high` of its 95% interval, and `_std`, the standard deviation over folds."""
        return results.blend_scores(self.result)

    @property
    def gains(self) -> pd.DataFrame:
        """What the blend gains over the plain mean ("mean") and over the best single member: a row for each, with the
        columns against, metric, value (positive is better), low, high (95%, paired) and p_better."""
        return results.blend_gains(self.result)

    @property
    def weights(self) -> pd.DataFrame:
        """Each member's weight and, where the method has one, its temperature."""
        return results.blend_weights(self.result)

    def predict(self, images: "Images") -> "Prediction":
        """The blend's prediction of one image or several, as `ens.predict` takes them. The first call brings the
        networks to the device, where they stay for the next one. Raises UserError as `ens.predict`, and if another
        blend was saved under this one's name."""
        from ensemble.tta.images import predict

        file = self.run.blend_json(self.name)
        if not file.is_file() or sealed.digest(file) != self.digest:
            raise UserError(f"{file}: is no longer this blend; fit it again, with another name= if both are needed")
        return predict(self._predictor, images)

    @cached_property
    def _predictor(self) -> "Predictor":
        from ensemble.tta.images import load

        return load(self.run.path, self.name)

    def __repr__(self) -> str:
        return f"<RunBlend {results.blend_line(self.result)}>"

    def _repr_html_(self) -> str:
        return results.blend_html(self.result)


def member_scores(run: Run) -> pd.DataFrame:
    """See `Run.members`."""
    rows = members_table(run)
    facts = pd.DataFrame(
        {
            "rows": [row.rows for row in rows],
            "folds": [row.folds for row in rows],
            "folds_done": [len(row.done) for row in rows],
            "optimistic": [row.optimistic for row in rows],
        },
        index=pd.Index([row.member for row in rows], name="member", dtype="str"),
    )
    return facts.join(scores_frame({row.member: row.scores for row in rows}, "member"))


class BlendKeywords(TypedDict, total=False):
    """The options of `Run.blend`, which says what they are."""

    name: str | None
    views: Sequence[str] | None
    members: Sequence[str] | None
    priors: str | None
    costs: str | Path | None
    calibration: str
    with_runs: Sequence[str | Path | Run]


def fit_run_blend(run: Run, method: str, metric: str, options: BlendKeywords, events: Events | None) -> RunBlend:
    """See `Run.blend`."""
    for keyword, given in options.items():
        if keyword not in BlendKeywords.__annotations__:
            raise TypeError(f"Run.blend() got an unexpected keyword argument {keyword!r}")
        if keyword in ("views", "members", "with_runs") and isinstance(given, str):
            raise UserError(f"{keyword}: want a list, as in [{given!r}]")
    costs = options.get("costs")
    chosen = BlendOptions(
        method,
        metric,
        options.get("name"),
        options.get("views"),
        options.get("members"),
        priors=options.get("priors"),
        costs=None if costs is None else Path(costs),
        with_runs=[other.path if isinstance(other, Run) else Path(other) for other in options.get("with_runs", ())],
        calibration=options.get("calibration", "temperature"),
    )
    with listening(events) as listener:
        result = blend_run(run, chosen, listener)
    return RunBlend(run, result, sealed.digest(run.blend_json(result.name)))
