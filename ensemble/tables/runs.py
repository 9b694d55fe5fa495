"""The runs below a directory, and the ledger of submissions."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.markup import escape

from ensemble.blend.comparison import OPTIMISTIC
from ensemble.escape import escaped
from ensemble.files.mirror import display_name
from ensemble.overview.ledger import Entry
from ensemble.overview.runs import RunList, RunRow
from ensemble.overview.selection_bias import SelectionBias
from ensemble.overview.trust import Trust
from ensemble.plural import pluralize
from ensemble.progress import duration
from ensemble.scoring.bootstrap import Score
from ensemble.scoring.metrics import HEADLINE, METRICS, columns
from ensemble.tables.layout import STAR, headings, new_table, print_line, print_table

NOT_COMPARABLE = "scores of different data are not comparable"


def show_runs(found: RunList) -> None:
    """A table for each data set, and below it what differs in the settings of all runs."""
    for number, group in enumerate(found.groups):
        rows = [found.rows[r] for r in group]
        known = rows[0].fingerprint
        which = f" {number + 1} of {len(found.groups)}" if len(found.groups) > 1 else ""
        data = f"data{which}, fingerprint {known[:12]}" if known else "unknown data"
        title = f"{pluralize(len(rows), 'run')} on {data}: out of fold, "
        table = new_table(title + "[95% interval]", "run", *headings(HEADLINE), "h:mm:ss", "ms/image")
        for row in rows:
            for cells in _lines(row):
                table.add_row(*cells)
        print_table(table)
        of_group = found.selection_bias[number] if found.selection_bias else None
        if of_group is not None:
            print_line(of_group.line("run"))
    if any(row.blend_optimistic or row.single_optimistic for row in found.rows):
        print_line(f"{STAR.strip()} {OPTIMISTIC}; so are the scores of its blends")
    if len({row.fingerprint for row in found.rows} - {""}) > 1:
        print_line(NOT_COMPARABLE)
    for row in found.rows:
        for note in row.notes:
            print_line(f"{display_name(row.run)}: {note}")
    differing = {run: settings for run, settings in found.differs.items() if settings}
    if differing:
        print_line("settings that differ:")
    for run, settings in differing.items():
        print_line(f"{run}: " + ", ".join(f"{key}={value}" for key, value in settings.items()))


def _lines(row: RunRow) -> list[list[str]]:
    """The lines of a run, of its best blend and of its best member."""
    date = "" if row.date is None else f",\n{row.date:%Y-%m-%d %H:%M}"
    name = f"{escaped(display_name(row.run))}\n{row.done}/{row.folds} folds{date}"
    ms = "-" if row.ms is None else f"{row.ms:.1f}"
    lines = [[escape(name), "", "", duration(row.seconds), ms]]
    rivals = f"of the blend's {row.singles}" if row.blend else f"of {row.singles} finished"
    for name, among, scores, is_optimistic in (
        (f"blend {row.blend}", f"of {row.blends}", row.blend_scores, row.blend_optimistic),
        (f"best single {row.single}", rivals, row.single_scores, row.single_optimistic),
    ):
        if scores:
            cells = [_cell(metric, scores[metric]) for metric in HEADLINE]
            lines.append([escape(f"  {escaped(name)},\n  {among}{STAR * is_optimistic}"), *cells, "", ""])
    return lines


def _cell(metric: str, score: Score) -> str:
    value, low, high = map(METRICS[metric].number, (score.value, score.low, score.high))
    return f"{value}\n[{low}, {high}]"


def show_submissions(
    entries: list[Entry], trust: tuple[Trust, ...], metric: str, of_blends: Sequence[SelectionBias] = ()
) -> None:
    """The ledger, the newest last, how well out-of-fold scores predict the board's, which are of `metric`, on each data
    set, and how much better the best of several blends looks than it is."""
    shown = columns(metric)
    table = new_table(
        "submissions, with the out-of-fold scores of their blends",
        "file",
        "written",
        *headings(shown),
        "board",
    )
    for entry in entries:
        values = entry.values
        name = escaped(_relative(values.get("file", ""))) + (f"\n({entry.state})" if entry.state else "")
        about = " ".join(text for text in (values.get("run", ""), values.get("blend", "")) if text)
        name += f"\n{escaped(about)}" if about else ""
        name += f"\n{escaped(values['note'])}" if values.get("note") else ""
        cells = [_saved(metric, values.get(metric, "")) for metric in shown]
        table.add_row(escape(name), _when(values.get("written", "")), *cells, values.get("board", ""))
    print_table(table)
    for line in (line for one in trust for line in one.lines):
        print_line(line)
    for each in of_blends:
        print_line(each.line("submitted blend"))


def _relative(file: str) -> str:
    """The path relative to the working directory, if it lies below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def _saved(metric: str, text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text
    return METRICS[metric].number(value)


def _when(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d\n%H:%M}"
    except ValueError:
        return text
