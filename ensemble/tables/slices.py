"""The slices of a run in which accuracy is worse than elsewhere."""

from rich.markup import escape

from ensemble.escape import escaped
from ensemble.plural import pluralize
from ensemble.slices.result import MOST_SHOWN, Share, Slices
from ensemble.tables.layout import new_table, print_line, print_table

KINDS = {
    "class": ("class", "classes"),
    "group": ("group", "groups"),
    "image": ("of image properties", "of image properties"),
    "column": ("of columns", "of columns"),
    "cluster": ("cluster", "clusters"),
}


def show_slices(found: Slices) -> None:
    """What was looked at, the slices that are worse, and what was not looked at."""
    print_line(
        f"{found.basis}: {pluralize(found.wrong, 'image')} of {found.rows:,} predicted wrongly, out of fold; looked at "
        f"{looked_at(found)}"
    )
    if found.found:
        _show_found(found)
    else:
        print_line("in none of them is accuracy worse than elsewhere by more than chance explains")
    if found.test is not None and found.found:
        images = pluralize(found.test.rows, "image")
        print_line(f"{found.test.images}: {found.test.inside:,} of {images} lie in at least one of these slices")
    for note in (*found.notes, *(found.test.notes if found.test is not None else ())):
        print_line(note)


def looked_at(found: Slices) -> str:
    """How many slices of which kinds were tested, in words."""
    total = pluralize(sum(found.looked_at.values()), "slice")
    kinds = ", ".join(f"{count:,} {KINDS[kind][count != 1]}" for kind, count in found.looked_at.items())
    return f"{total} ({kinds})" if kinds else total


def p_cell(p: float, draws: int) -> str:
    """An adjusted p-value; the smallest that so many draws can give is an upper limit."""
    return f"< {2 / (1 + draws):.3f}" if p <= 1 / (1 + draws) else f"{p:.3f}"


def _show_found(found: Slices) -> None:
    with_test = found.test is not None
    table = new_table(
        "where accuracy is worse than elsewhere: % right [95% interval], and p adjusted\n"
        f"for all slices, so that in {100 * found.alpha:g} of 100 runs without a bad slice one is reported",
        "slice",
        "images",
        "accuracy",
        "elsewhere",
        "p",
        *(["test"] if with_test else []),
    )
    for each in found.found[:MOST_SHOWN]:
        test = "" if each.test_images is None else f"{each.test_images:,}"
        cells = f"{each.rows:,}", _cell(each.accuracy), _cell(each.elsewhere), p_cell(each.p, found.draws)
        table.add_row(escape(escaped(each.rule.text)), *cells, *([test or "?"] if with_test else []))
    print_table(table)
    if len(found.found) > MOST_SHOWN:
        print_line(f"and {len(found.found) - MOST_SHOWN:,} more, in {found.path}")


def _cell(share: Share) -> str:
    return f"{100 * share.value:.2f}\n[{100 * share.low:.2f}, {100 * share.high:.2f}]"
