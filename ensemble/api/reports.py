"""What became of runs: the report of one, and several compared."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ensemble.api import html
from ensemble.api.frames import gains_frame, scores_frame
from ensemble.api.printing import listening
from ensemble.blend import Comparison, compare
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.run import Run
from ensemble.tables.compare import verdict
from ensemble.tables.layout import score_cell


@dataclass(frozen=True, repr=False)
class RunComparison:
    """What `compare_runs` found.

    comparison: all of it, see `Comparison`: blocks of members (or plain means) that are compared with each other.
    """

    comparison: Comparison

    @property
    def scores(self) -> pd.DataFrame:
        """Out-of-fold scores, a row for each member of each block: of each metric the value, the ends `_low` and
        `_high` of its 95% interval, and `_std`, the standard deviation over folds; log_loss_tempered is the log loss
        at the member's best temperature on the other folds."""
        blocks = {}
        for block in self.comparison.blocks:
            rows = {
                item.label: scores | {"log_loss_tempered": tempered}
                for item, scores, tempered in zip(block.items, block.scores, block.tempered, strict=True)
            }
            blocks[block.title] = scores_frame(rows, "item")
        return pd.concat(blocks, names=["block"])

    @property
    def gains(self) -> pd.DataFrame:
        """What each member gains over the first of its block, in accuracy and in log loss at its best temperature: a
        row for each, with the columns metric, against, value (positive is better), low, high (95%, paired) and
        p_better."""
        blocks = {}
        for block in self.comparison.blocks:
            pairs = zip(block.items[1:], block.accuracy[1:], block.log_loss[1:], strict=True)
            items = {item.label: gains_frame(gains) for item, *gains in pairs}
            blocks[block.title] = pd.concat(items, names=["item"]).droplevel(-1)
        return pd.concat(blocks, names=["block"])

    @property
    def verdict(self) -> list[str]:
        """In words: what is better or worse than the first of its block at 95%."""
        return [line for block in self.comparison.blocks for line in verdict(block)]

    def __repr__(self) -> str:
        return "\n".join([f"<RunComparison on {len(self.comparison.labels)} rows>", *self.verdict])

    def _repr_html_(self) -> str:
        blocks = [
            html.table(
                f"{block.title}, out of fold: [95% interval]",
                ["", "accuracy %", "log loss at its best temperature"],
                [
                    [item.label, score_cell("accuracy", own["accuracy"]), score_cell("log_loss", tempered)]
                    for item, own, tempered in zip(block.items, block.scores, block.tempered, strict=True)
                ],
            )
            + html.lines(verdict(block))
            for block in self.comparison.blocks
        ]
        return html.lines(self.comparison.notes) + "".join(blocks)


def write_report(
    run: Run | str | Path,
    output: str | Path | None = None,
    *,
    against: Run | str | Path | None = None,
    attention: bool = False,
    events: Events | None = None,
) -> Path:
    """Write one HTML page on a run, which needs no other file and no network, and return where it is.

    output: the page to write; None: report.html in the run.
    against: another run to compare it with, as `compare_runs` does.
    attention: show what the best single member looked at, which takes captum: pip install "ens-vision[attention]".
    events: what listens meanwhile; None prints messages and shows a progress bar.

    Raises UserError if this is no run, or if the page can't be written.

    >>> print(ens.write_report("runs/art", events=ens.Silent()))
    runs/art/report.html
    """
    from ensemble import report

    run = run if isinstance(run, Run) else Run(run)
    other = against if against is None or isinstance(against, Run) else Run(against)
    with listening(events) as listener:
        return report.write_report(run, None if output is None else Path(output), listener, other, attention)


def compare_runs(*runs: Run | str | Path, events: Events | None = None) -> RunComparison:
    """Say which recipe is really better, on the same out-of-fold rows, with paired intervals, as `ens compare` does.

    runs: runs, each for all its finished members, or single members (the paths RUN/MEMBER). The first is the baseline.
    events: what listens meanwhile; None shows a progress bar.

    Raises UserError for what is no run or member, fewer than two members in all, and runs whose rows differ.

    >>> compared = ens.compare_runs("runs/art")
    >>> compared.scores.index.tolist()
    [('members of runs/art', 'resnet'), ('members of runs/art', 'vit')]
    >>> compared.gains[["metric", "against"]].values.tolist()
    [['accuracy', 'resnet'], ['log_loss', 'resnet']]
    >>> len(compared.verdict)
    1
    """
    if not runs:
        raise UserError("compare_runs: name two runs, or one with several members")
    with listening(events) as listener:
        return RunComparison(compare([Path(str(run)) for run in runs], listener))
