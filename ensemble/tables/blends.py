"""All blends of a run, a line each."""

from rich.markup import escape

from ensemble.escape import escaped
from ensemble.files.mirror import display_name
from ensemble.overview.blends import BlendList
from ensemble.plural import pluralize
from ensemble.run import Run
from ensemble.scoring.metrics import METRICS
from ensemble.tables.layout import STAR, new_table, print_line, print_table


def show_blends(run: Run, found: BlendList) -> None:
    """The table of the blends beside the plain mean and the best single member, and how far its best can be trusted."""
    count = sum(bool(row.method) for row in found.blends)
    if count:
        _show_table(run, found, count)
        if found.selection_bias is not None:
            print_line(found.selection_bias.line("blend"))
    for note in found.notes:
        print_line(note)
    if not count:
        print_line(f"no blend is saved yet: ens blend {run}")


def _show_table(run: Run, found: BlendList, count: int) -> None:
    rows = pluralize(found.rows, "row") + (f" in {pluralize(found.groups, 'group')}" if found.groups else "")
    numbers: dict[str, int] = {}
    for row in found.blends:
        for member in row.members:
            numbers.setdefault(member, len(numbers) + 1)
    table = new_table(
        f"{pluralize(count, 'blend')} of {display_name(run.path)}, cross-fitted, {rows}, [95% interval]",
        "",
        "method",
        "members",
        "accuracy %",
        "log loss",
    )
    for column in table.columns[1:3]:
        column.justify = "left"
    table.columns[2].no_wrap, table.columns[2].overflow = False, "fold"
    for row in found.blends:
        accuracy, loss = row.scores["accuracy"], row.scores["log_loss"]
        value, low, high = map(METRICS["accuracy"].number, (accuracy.value, accuracy.low, accuracy.high))
        name = "\n  ".join([escaped(row.name) + STAR * row.is_best, *map(escaped, row.remarks)])
        table.add_row(
            escape(name),
            row.method,
            " ".join(str(numbers[member]) for member in row.members),
            f"{value} [{low}, {high}]",
            METRICS["log_loss"].number(loss.value),
            style="bold" if row.is_best else None,
        )
    print_table(table)
    print_line("members: " + ", ".join(f"{number} {member}" for member, number in numbers.items()))
    if any(row.is_best for row in found.blends):
        print_line(f"{STAR.strip()} recommended: the lowest log loss")
