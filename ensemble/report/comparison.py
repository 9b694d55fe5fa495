"""This run beside another one, as `ens compare` finds it: `ens report RUN --against RUN2`."""

from typing import Any

from ensemble.blend import compare
from ensemble.blend.comparison import Block, tells
from ensemble.plural import pluralize
from ensemble.report.run import RunResults
from ensemble.report.strips import axis, strip
from ensemble.scoring.metrics import METRICS


def section(results: RunResults) -> dict[str, Any] | None:
    """What this run gains over the other: a row for each member that both have, and one for the plain mean of these;
    None unless a run to compare with was named."""
    if results.against is None:
        return None
    found = compare([results.against.path, results.run.path])
    gains = [
        (block, at)
        for block in found.blocks
        for at in range(1, len(block.items))
        # Without a common name all members stand in one block, those of the other run too.
        if block.items[at].run.path.resolve() == results.run.path.resolve()
    ]
    least = min(0.0, *(block.accuracy[at].low for block, at in gains))
    most = max(0.0, *(block.accuracy[at].high for block, at in gains))
    grouped = f" in {pluralize(len(set(found.clusters.tolist())), 'group')}" if found.grouped else ""
    factor = METRICS["accuracy"].factor
    return {
        "against": results.against,
        "rows": pluralize(len(found.labels), "image") + grouped,
        "notes": found.notes,
        "gains": [_row(block, at, least, most) for block, at in gains],
        "axis": axis(least, most, lambda tick: f"{factor * tick:g}"),
    }


def _row(block: Block, at: int, least: float, most: float) -> dict[str, Any]:
    """An item of a block over the first of it, on a scale from `least` to `most`."""
    gained = block.accuracy[at]
    signs = {"accuracy": tells(gained, int(block.differ[at])), "log loss": tells(block.log_loss[at])}
    told = [
        f"{word} in {name}" for name, sign in signs.items() for word in {1: ("better",), -1: ("worse",)}.get(sign, ())
    ]
    item = block.items[at]
    mean = f"plain mean of the {len(item.members)}" if len(item.members) > 1 else block.title
    return {
        "name": mean if len(block.items) == 2 else item.label,
        "there": block.scores[0]["accuracy"],
        "here": block.scores[at]["accuracy"],
        "gain": gained,
        "strip": strip(gained.low, gained.value, gained.high, least, most)
        | {"zero": strip(0, 0, 0, least, most)["at"]},
        "loss_gain": block.log_loss[at],
        "verdict": ", ".join(told) or "no difference can be told",
    }
