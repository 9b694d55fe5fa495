"""Predictions of images whose labels are known, beside what was expected of them."""

from ensemble.overview.score import ScoredFile
from ensemble.plural import pluralize
from ensemble.scoring.metrics import METRICS
from ensemble.tables.layout import new_table, print_line, print_table


def show_score(found: ScoredFile) -> None:
    """A row for each metric, and a sentence that says whether it is as expected."""
    for note in found.notes:
        print_line(note)
    rows = pluralize(found.rows, "image") + (f" in {pluralize(found.groups, 'group')}" if found.groups else "")
    is_known = any(scored.out_of_fold for scored in found.metrics.values())
    columns = ["OOF", f"expected of {found.rows:,}", "it is"] if is_known else []
    table = new_table(f"{found.file.name} by {found.truth.name}, {rows}, [95% interval]", "", "score", *columns)
    for metric, scored in found.metrics.items():
        number, cells = METRICS[metric].number, []
        if is_known:
            before, ends = scored.out_of_fold, "-"
            if scored.low is not None and scored.high is not None:
                ends = f"{number(scored.low)} to {number(scored.high)}"
            cells = ["-" if before is None else number(before.value), ends, scored.place or "-"]
        score = scored.score
        shown = f"{number(score.value)} [{number(score.low)}, {number(score.high)}]"
        table.add_row(METRICS[metric].heading, shown, *cells)
    print_table(table)
    if is_known:
        for line in _verdict(found):
            print_line(line)


def _verdict(found: ScoredFile) -> list[str]:
    outside = {m: scored for m, scored in found.metrics.items() if scored.place in ("below", "above")}
    known = [scored for scored in found.metrics.values() if scored.place]
    whose = f"the out-of-fold scores of blend {found.blend} ({pluralize(found.rows_before or 0, 'row')})"
    if not outside:
        lines = [
            f"as expected: {'it lies' if len(known) == 1 else f'all {len(known)} lie'} inside what {whose} promise"
        ]
    else:
        worse = [m for m, scored in outside.items() if (scored.place == "above") != METRICS[m].greater_is_better]
        titles = ", ".join(METRICS[m].title for m in worse or outside)
        lines = [f"{'worse' if worse else 'better'} than expected in {titles}, by {whose}"]
        if worse:
            lines.append(
                "these images or their labels differ from those of the run: ens check DATA --test IMAGES says in what"
            )
    return [
        *lines,
        "expected is where 95 of 100 such sets of images lie. A run predicts with all its fold networks, and its "
        "out-of-fold (OOF) scores are of one each: a little better is usual.",
    ]
