"""What the commands print."""

from rich.console import Console
from rich.table import Table

from ensemble.blend import BlendResult, MemberRow
from ensemble.blend.score import Gain, Score

HEADINGS = {"accuracy": "accuracy %", "macro_f1": "macro F1 %", "log_loss": "log loss"}


def show_members(rows: list[MemberRow]) -> None:
    """The members' out-of-fold scores: over all rows with a 95% interval, and the spread over folds."""
    table = Table(title="members, out of fold: score [95% interval] (± standard deviation over folds)")
    table.add_column("member", no_wrap=True)
    table.add_column("folds", justify="right")
    for heading in HEADINGS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        folds = f"{len(row.done)}/{row.folds}"
        cells = [_score(metric, row.scores[metric]) if row.scores else "-" for metric in HEADINGS]
        table.add_row(row.member, folds, *cells)
    _print(table)


def show_blend(result: BlendResult) -> None:
    """A blend beside the plain mean and every member, what it gains over them, and its weights."""
    units = f"{result.rows} rows" + (f" in {result.groups} groups" if result.groups else "")
    table = Table(
        title=f"blend {result.name!r}, cross-fitted over {result.folds} folds ({units}): score [95% interval]"
    )
    table.add_column("", no_wrap=True)
    for heading in HEADINGS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("weight", justify="right")
    table.add_column("temperature", justify="right")
    table.add_row(f"blend {result.name}", *(_score(metric, result.blend[metric]) for metric in HEADINGS), style="bold")
    table.add_row("plain mean", *(_score(metric, result.mean[metric]) for metric in HEADINGS))
    for member, scores in result.members.items():
        weights = result.weights[member]
        read = [f"{weights[key]:.3f}" if key in weights else "" for key in ("weight", "temperature")]
        table.add_row(member, *(_score(metric, scores[metric]) for metric in HEADINGS), *read)
    _print(table)
    gains = Table(title=f"what {result.name!r} gains (positive is better) [95% interval of the paired difference]")
    for heading in ("metric", "over", "gain", "P(better)"):
        gains.add_column(heading, justify="right" if heading in ("gain", "P(better)") else "left", no_wrap=True)
    for gain in result.gains:
        what = "the plain mean" if gain.against == "mean" else f"the best single, {gain.against}"
        gains.add_row(HEADINGS[gain.metric], what, _gain(gain), f"{gain.p_better:.3f}")
    _print(gains)
    for note in result.notes:
        print(note)
    for member, why in result.left_out.items():
        print(f"left out: {member} ({why})")


def show_held_out(scores: dict[str, dict[str, float]], rows: int, chosen: str) -> None:
    """Each blend's scores on images that were never trained on; `chosen` is the one that OOF rows alone would take."""
    table = Table(title=f"on {rows} held-out images (* the blend with the least out-of-fold log loss)")
    table.add_column("blend", no_wrap=True)
    for heading in HEADINGS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for name, values in scores.items():
        cells = [f"{values['log_loss']:.4f}" if m == "log_loss" else f"{100 * values[m]:.2f}" for m in HEADINGS]
        table.add_row(f"{name}{' *' if name == chosen else ''}", *cells)
    _print(table)


def _score(metric: str, score: Score) -> str:
    if metric == "log_loss":
        return f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}] (±{score.std:.4f})"
    value, low, high, std = (100 * number for number in (score.value, score.low, score.high, score.std))
    return f"{value:.2f} [{low:.2f}, {high:.2f}] (±{std:.2f})"


def _gain(gain: Gain) -> str:
    if gain.metric == "log_loss":
        return f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    return f"{100 * gain.value:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a file or a pipe has no width: do not fold the numbers
    console.print(table)
