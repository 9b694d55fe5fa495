"""A blend beside its members, how far its probabilities can be believed, and how its members differ."""

from rich.markup import escape

from ensemble.blend import BlendResult
from ensemble.blend.compare import OPTIMISTIC
from ensemble.blend.prune import Pruned
from ensemble.escape import escaped
from ensemble.scoring.metrics import METRICS, columns
from ensemble.tables.layout import (
    STAR,
    gain_cell,
    headings,
    new_table,
    print_line,
    print_table,
    score_cell,
)

PAIRS = 10  # members: of more, a table of pairs does not fit


def show_blend(result: BlendResult) -> None:
    """A blend beside the plain mean and every member, what it gains over them, and its weights."""
    metrics = columns(result.fitted.metric)
    units = f"{result.rows} rows" + (f" in {result.groups} groups" if result.groups else "")
    title = (
        f"blend {result.name!r}, cross-fitted over {result.folds} folds, {units}: score ± over folds, [95% interval]"
    )
    table = new_table(title, "", *headings(metrics), "weight, T")  # T: the member's temperature, below its weight
    table.add_row(
        escape(f"blend {result.name}"), *(score_cell(metric, result.blend[metric]) for metric in metrics), style="bold"
    )
    table.add_row("plain mean", *(score_cell(metric, result.mean[metric]) for metric in metrics))
    for member, scores in result.members.items():
        read = "\n".join(f"{value:.3f}" for value in result.weights[member].values())
        mark = STAR * (member in result.optimistic)
        table.add_row(escape(escaped(member)) + mark, *(score_cell(metric, scores[metric]) for metric in metrics), read)
    print_table(table)
    if result.optimistic:
        print_line(f"{STAR.strip()} {OPTIMISTIC}; so are the blend's and the mean's scores")
    title = f"what {result.name!r} gains, [95% interval of the paired difference]; positive is better"
    gains = new_table(title, "over", "metric", "gain", "P(better)")
    for gain in (gain for metric in metrics for gain in result.gains if gain.metric == metric):
        over = "the plain mean" if gain.against == "mean" else f"the best single, {escape(escaped(gain.against))}"
        gains.add_row(over, METRICS[gain.metric].heading, gain_cell(gain), f"{gain.p_better:.3f}")
    print_table(gains)
    for note in result.notes:
        print_line(note)
    for member, own in result.view_weights.items():
        if len(set(own.values())) > 1:
            print_line(f"views of {member}: " + ", ".join(f"{view} {weight:.3f}" for view, weight in own.items()))
    if result.unused:
        print_line(f"no part in it, and no time at prediction: {', '.join(result.unused)}")
    if result.pruned:
        _show_pruned(result)
    for member, why in result.left_out.items():
        print_line(f"left out: {member} ({why})")


def show_details(result: BlendResult) -> None:
    """How far a blend's probabilities can be believed, and how its members differ."""
    _show_calibration(result)
    if len(result.members) > 1:
        _show_diversity(result)


def _show_calibration(result: BlendResult) -> None:
    table = new_table("calibration, cross-fitted", "", "log loss", "ECE %", "Brier score")
    for what, own in result.calibration.items():
        table.add_row(what, f"{own.log_loss:.4f}", f"{100 * own.ece:.2f}", f"{own.brier:.4f}")
    print_table(table)
    stages = {"after its temperature" if len(result.reliability) > 2 else "blend": result.reliability["blend"]}
    if len(result.reliability) > 2:
        stages = {"before": result.reliability["blend before its temperature"]} | stages
    title = "reliability: rows, their mean confidence % and accuracy %"
    table = new_table(title, "confidence %", *stages)
    bins = sorted({(own.low, own.high) for some in stages.values() for own in some})
    for low, high in bins:
        cells = []
        for some in stages.values():
            found = next((one for one in some if one.low == low), None)
            cells.append(f"{found.rows:6} {100 * found.confidence:6.1f} {100 * found.accuracy:6.1f}" if found else "-")
        table.add_row(f"{100 * low:.1f} to {100 * high:.1f}", *cells)
    print_table(table)


def _show_diversity(result: BlendResult) -> None:
    own, members = result.diversity, list(result.members)
    count = len(members)
    if count <= PAIRS:
        title = "above the diagonal: rows on which two members disagree, %; below: correlation of their errors"
        table = new_table(title, "", *(str(m + 1) for m in range(count)))
        for a, member in enumerate(members):
            above = [f"{100 * own.disagreement[a][b]:.1f}" for b in range(a + 1, count)]
            below = [f"{own.error_correlation[a][b]:.2f}" for b in range(a)]
            table.add_row(escape(escaped(f"{a + 1} {member}")), *below, "", *above)
        print_table(table)
    if own.costs:
        metric = next(iter(own.costs.values())).metric
        table = new_table(f"what leaving a member out costs, {METRICS[metric].heading} [95% interval]", "", "cost")
        for member, cost in own.costs.items():
            table.add_row(escape(escaped(member)), gain_cell(cost))
        print_table(table)


def _show_pruned(result: BlendResult) -> None:
    own = result.pruned
    assert own is not None
    if own.passes[0] == own.passes[1] and len(own.members) == len(result.members):
        print_line("--prune: nothing can be left out without loss")
        return
    metric = METRICS[result.fitted.metric]
    unit = "nats of log loss" if metric.name == "log_loss" else "points" if metric.factor == 100 else metric.title
    passes = f"; {own.passes[1]} of {own.passes[0]} forward passes remain" if own.passes[0] else ""
    cost, error = metric.factor * own.cost, metric.factor * own.error
    print_line(
        f"--prune: without loss (it costs {cost:+.4f} ± {error:.4f} {unit}) can be left out: "
        f"{', '.join(_left(own, result)) or 'nothing'}{passes}"
    )
    print_line(
        f"to keep the rest: --members {','.join(own.members)}"
        + (f" --views {','.join(own.views)}" if own.views else "")
    )


def _left(own: Pruned, result: BlendResult) -> list[str]:
    views = dict.fromkeys(view for weights in result.view_weights.values() for view in weights)
    gone = [member for member in result.members if member not in own.members]
    return gone + [f"the view {view}" for view in views if own.views and view not in own.views]
