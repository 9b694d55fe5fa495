"""A blend beside its members, its calibration, and how its members differ."""

from rich.markup import escape

from ensemble.blend import BlendResult
from ensemble.blend.comparison import OPTIMISTIC, tells
from ensemble.blend.prune import Pruned
from ensemble.escape import escaped
from ensemble.plural import pluralize
from ensemble.scoring.metrics import METRICS, columns
from ensemble.tables.calibration import calibration_lines, show_calibration
from ensemble.tables.layout import (
    STAR,
    gain_cell,
    headings,
    new_table,
    print_line,
    print_table,
    score_cell,
)
from ensemble.tables.selective import risk_line, show_risk_coverage

AVERAGED = (
    "each row is scored by the networks of one fold; a prediction averages those of all folds, which is usually a "
    "little better: ens tta-predict says by how much"
)
PAIRS = 10  # members: of more, a table of pairs does not fit


def show_blend(result: BlendResult, with_details: bool = False) -> None:
    """A blend beside the plain mean and every member, what it gains over them, and its weights. with_details: what
    `show_details` has printed already is not said again."""
    metrics = columns(result.fitted.metric)
    rows = pluralize(result.rows, "row") + (f" in {pluralize(result.groups, 'group')}" if result.groups else "")
    title = f"blend {result.name!r}, cross-fitted over {pluralize(result.folds, 'fold')}, {rows}: "
    title += "score ± over folds, [95% interval]"
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
    if result.fitted.trained and result.folds > 1:
        print_line(AVERAGED)
    title = f"what {result.name!r} gains, [95% interval of the paired difference]; positive is better"
    gains = new_table(title, "over", "metric", "gain", "P(better)")
    for gain in (gain for metric in metrics for gain in result.gains if gain.metric == metric):
        over = "the plain mean" if gain.against == "mean" else f"the best single, {escape(escaped(gain.against))}"
        gains.add_row(over, *headings([gain.metric]), gain_cell(gain), f"{gain.p_better:.3f}")
    print_table(gains)
    for note in result.notes:
        print_line(note)
    for line in calibration_lines(result, with_details):
        print_line(line)
    if result.selective is not None and not with_details:
        print_line(risk_line(result.selective))
    if result.decision is not None:
        saved = gain_cell(result.decision.saved)
        print_line(
            f"expected cost saved by deciding by cost, not for the most probable class: {saved} per image; "
            f"{100 * result.decision.changed:.2f} % of the images get another class"
        )
    for member, weights in result.view_weights.items():
        if len(set(weights.values())) > 1:
            print_line(f"views of {member}: " + ", ".join(f"{view} {weight:.3f}" for view, weight in weights.items()))
    if result.unused:
        print_line(f"zero weight; skipped at prediction: {', '.join(result.unused)}")
    if result.pruned:
        _show_pruned(result)
    for member, why in result.left_out.items():
        print_line(f"left out: {member} ({why})")


def blend_verdict(result: BlendResult) -> str:
    """How many rows are predicted right, and what that is beside the best single member, in one sentence."""
    accuracy = result.blend["accuracy"]
    right = f"{100 * accuracy.value:.2f} % [{100 * accuracy.low:.2f}, {100 * accuracy.high:.2f}]"
    line = f"{result.name} predicts {right} of {pluralize(result.rows, 'row')} right, none of which it was fitted on"
    gain = result.gain_over("single", "accuracy")
    if gain is None or len(result.members) == 1:
        return line
    sign = tells(gain)
    if sign == 0:
        points = f"{100 * gain.value:+.2f} points [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"
        return f"{line}; no difference from the best single member, {gain.against}, can be told ({points})"
    value, low, high = (100 * abs(number) for number in (gain.value, *sorted((gain.low, gain.high), key=abs)))
    more = "more" if sign > 0 else "less"
    return f"{line}: {value:.2f} points [{low:.2f}, {high:.2f}] {more} than the best single member, {gain.against}"


def show_details(result: BlendResult) -> None:
    """A blend's calibration, what is risked where fewer rows are answered, and how its members differ."""
    show_calibration(result)
    if result.selective is not None:
        show_risk_coverage(result.selective)
    if len(result.members) > 1:
        _show_diversity(result)


def _show_diversity(result: BlendResult) -> None:
    diversity, members = result.diversity, list(result.members)
    count = len(members)
    if count <= PAIRS:
        title = "above the diagonal: % of rows on which two members disagree; below: correlation of their errors"
        table = new_table(title, "", *(str(m + 1) for m in range(count)))
        for a, member in enumerate(members):
            above = [f"{100 * diversity.disagreement[a][b]:.1f}" for b in range(a + 1, count)]
            below = [f"{diversity.error_correlation[a][b]:.2f}" for b in range(a)]
            table.add_row(escape(escaped(f"{a + 1} {member}")), *below, "", *above)
        print_table(table)
    if diversity.costs:
        metric = next(iter(diversity.costs.values())).metric
        table = new_table(f"what leaving a member out costs, {METRICS[metric].heading} [95% interval]", "", "cost")
        for member, cost in diversity.costs.items():
            table.add_row(escape(escaped(member)), gain_cell(cost))
        print_table(table)


def _show_pruned(result: BlendResult) -> None:
    pruned = result.pruned
    assert pruned is not None
    if pruned.passes[0] == pruned.passes[1] and len(pruned.members) == len(result.members):
        print_line("--prune: nothing can be left out without loss")
        return
    metric = METRICS[result.fitted.metric]
    unit = "nats of log loss" if metric.name == "log_loss" else "points" if metric.factor == 100 else metric.title
    passes = f"; {pruned.passes[1]} of {pruned.passes[0]} forward passes remain" if pruned.passes[0] else ""
    cost, error = metric.factor * pruned.cost, metric.factor * pruned.error
    print_line(
        f"--prune: without loss (it costs {cost:+.4f} ± {error:.4f} {unit}) can be left out: "
        f"{', '.join(_left(pruned, result)) or 'nothing'}{passes}"
    )
    print_line(
        f"to keep the rest: --members {','.join(pruned.members)}"
        + (f" --views {','.join(pruned.views)}" if pruned.views else "")
    )


def _left(pruned: Pruned, result: BlendResult) -> list[str]:
    views = dict.fromkeys(view for weights in result.view_weights.values() for view in weights)
    gone = [member for member in result.members if member not in pruned.members]
    return gone + [f"the view {view}" for view in views if pruned.views and view not in pruned.views]
