"""What the commands print. Everything fits a terminal of 80 columns: an interval stands below its score, not beside."""

from rich import box
from rich.console import Console
from rich.table import Table

from ensemble.blend import BlendResult, MemberRow
from ensemble.blend.score import Gain, Score

HEADINGS = {"accuracy": "accuracy %", "macro_f1": "macro F1 %", "log_loss": "log loss"}


def show_members(rows: list[MemberRow]) -> None:
    """The members' out-of-fold scores: over all rows with a 95% interval, and the spread over folds."""
    table = _table("members, out of fold: score ± deviation over folds, [95% interval]", "member", "folds", *_metrics())
    for row in rows:
        cells = [_score(metric, row.scores[metric]) if row.scores else "-" for metric in HEADINGS]
        table.add_row(row.member, f"{len(row.done)}/{row.folds}", *cells)
    _print(table)


def show_blend(result: BlendResult) -> None:
    """A blend beside the plain mean and every member, what it gains over them, and its weights."""
    units = f"{result.rows} rows" + (f" in {result.groups} groups" if result.groups else "")
    title = (
        f"blend {result.name!r}, cross-fitted over {result.folds} folds, {units}: score ± over folds, [95% interval]"
    )
    table = _table(title, "", *_metrics(), "weight, T")  # T: the member's temperature, below its weight
    table.add_row(f"blend {result.name}", *(_score(metric, result.blend[metric]) for metric in HEADINGS), style="bold")
    table.add_row("plain mean", *(_score(metric, result.mean[metric]) for metric in HEADINGS))
    for member, scores in result.members.items():
        read = "\n".join(f"{value:.3f}" for value in result.weights[member].values())
        table.add_row(member, *(_score(metric, scores[metric]) for metric in HEADINGS), read)
    _print(table)
    title = f"what {result.name!r} gains, [95% interval of the paired difference]; positive is better"
    gains = _table(title, "over", "metric", "gain", "P(better)")
    for gain in result.gains:
        over = "the plain mean" if gain.against == "mean" else f"the best single, {gain.against}"
        gains.add_row(over, HEADINGS[gain.metric], _gain(gain), f"{gain.p_better:.3f}")
    _print(gains)
    for note in result.notes:
        print(note)
    for member, why in result.left_out.items():
        print(f"left out: {member} ({why})")


def show_held_out(scores: dict[str, dict[str, float]], rows: int, chosen: str) -> None:
    """Each blend's scores on images that were never trained on; `chosen` is the one that OOF rows alone would take."""
    table = _table(f"{rows} held-out images; * has the least out-of-fold log loss", "blend", *_metrics())
    for name, values in scores.items():
        cells = [f"{values['log_loss']:.4f}" if m == "log_loss" else f"{100 * values[m]:.2f}" for m in HEADINGS]
        table.add_row(f"{name}{' *' if name == chosen else ''}", *cells)
    _print(table)


def _metrics() -> list[str]:
    return list(HEADINGS.values())


def _table(title: str, first: str, *others: str) -> Table:
    """A table whose numbers are never cut: only its first column may be folded."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _score(metric: str, score: Score) -> str:
    if metric == "log_loss":
        return f"{score.value:.4f} ±{score.std:.4f}\n[{score.low:.4f}, {score.high:.4f}]"
    value, low, high, std = (100 * number for number in (score.value, score.low, score.high, score.std))
    return f"{value:.2f} ±{std:.2f}\n[{low:.2f}, {high:.2f}]"


def _gain(gain: Gain) -> str:
    if gain.metric == "log_loss":
        return f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    return f"{100 * gain.value:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a file or a pipe has no width of its own
    console.print(table)
