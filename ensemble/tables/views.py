"""What each set of views is worth."""

from rich.markup import escape

from ensemble.plural import pluralize
from ensemble.scoring.bootstrap import Gain, Score
from ensemble.scoring.metrics import METRICS
from ensemble.tables.layout import STAR, gain_cell, headings, new_table, print_line, print_table, score_cell
from ensemble.tta.view_search import ViewSearch


def show_view_search(found: ViewSearch) -> None:
    """The sets of views by size, what each view does beside the base, and the choice in a sentence."""
    shown = ("log_loss", "accuracy" if found.metric == "log_loss" else found.metric)
    rows = pluralize(found.rows, "row") + (f" in {pluralize(found.groups, 'group')}" if found.groups else "")
    for note in found.notes:
        print_line(note)
    for line in _held_out(found, shown):
        print_line(line)
    table = new_table(
        f"sets of views, out of fold, {rows}, cross-fitted over {pluralize(found.folds, 'fold')}:\n"
        f"score [95% interval], and below it the gain over {found.base} alone",
        "views",
        *headings(shown),
        "ms/image",
    )

    def cells(scores: dict[str, Score], gains: dict[str, Gain]) -> list[str]:
        both = [(score_cell(metric, scores[metric]).splitlines(), gain_cell(gains[metric])) for metric in shown]
        return [f"{score.split(' ')[0]} {ends}\n{gained}" for (score, ends), gained in both]

    last: tuple[str, ...] = ()
    for size in found.sizes:
        gone, new = ([view for view in a if view not in b] for a, b in ((last, size.views), (size.views, last)))
        scored = (
            cells(size.scores, size.gains) if last else [cell.split("\n")[0] for cell in cells(size.scores, size.gains)]
        )
        steps = " ".join([*(f"- {view}" for view in gone), *(f"+ {view}" for view in new)]) if last else new[0]
        cost = f"{size.ms:.1f}{STAR if size.pareto else '  '}"
        cost += f"\n{size.by_fold.count(size.views)}/{found.folds}  " * bool(last)
        style = "bold" if size.views == found.chosen else None
        table.add_row(escape(f"{len(size.views)}: {steps}"), *scored, cost, style=style)
        last = size.views
    table.add_row("the whole search", *cells(found.honest, found.honest_gains))
    print_table(table)
    print_line(
        f"{STAR.strip()} no other size is better in both cost and log loss; below: folds that choose the same set"
    )
    tried = "all sets of each size were tried" if found.exhaustive else "sets were grown greedily, a view at a time"
    print_line(f"{tried}; in the whole search, each fold is scored by sets and a size that were chosen without it")
    print_line()
    title = f"each view: the gain over {found.base} alone from adding the view,\nand below, from the view alone"
    table = new_table(title, "view", *headings(shown), "adding it")
    for single in found.singles:
        both = [f"{gain_cell(single.added[metric])}\n{gain_cell(single.alone[metric])}" for metric in shown]
        table.add_row(escape(single.view), *both, single.verdict.replace(" can", "\ncan"))
    print_table(table)
    helps, hurts = (sum(single.verdict == verdict for single in found.singles) for verdict in ("helps", "hurts"))
    added, by = pluralize(len(found.singles), "added view"), METRICS[found.metric].title
    print_line(
        f"of {added}, by {by} at 95%: {pluralize(helps, 'helps', 'help')}, {pluralize(hurts, 'hurts', 'hurt')}; "
        f"{0.05 * len(found.singles):.2g} expected by chance alone"
    )
    print_line(_view_choice(found))


def _held_out(found: ViewSearch, shown: tuple[str, ...]) -> list[str]:
    """What the search is worth, on rows that it did not choose on."""
    gains = []
    for metric in shown:
        gain, name = found.honest_gains[metric], METRICS[metric].title
        sure = gain.low > 0 or gain.high < 0 or gain.low == gain.high
        gains.append(f"{name} {gain_cell(gain)}{'' if sure else ', possibly by chance'}")
    lines = [f"held out, the whole search gains over {found.base} alone: {'; '.join(gains)}"]
    if found.chosen != found.found:
        lines.append(f"that is no gain: {found.base} alone is recommended, not {', '.join(found.found)}")
    return lines


def _view_choice(found: ViewSearch) -> str:
    """One sentence."""
    metric, name = found.metric, METRICS[found.metric].title
    best = max(found.sizes, key=lambda size: METRICS[metric].sign * size.scores[metric].value)
    chosen = next(size for size in found.sizes if size.views == found.chosen)
    alone = f"{found.base} alone"
    if found.chosen != found.found:
        return f"choice: {alone}: what the search chose gains nothing on rows that it did not see"
    if chosen is best:
        why = f"no larger set is better by {name}" if len(chosen.views) == 1 else f"the best by {name}"
    else:
        lead = f"the best, of {len(best.views)} views, gains {gain_cell(best.gains[metric])}"
        why = f"the cheapest within one standard error of the best by {name} ({lead})"
        if len(chosen.views) == 1:
            why = f"no set beats it by more than one standard error of {name} ({lead})"
    if len(chosen.views) == 1:
        return f"choice: {alone}: {why}"
    cost = f"{chosen.ms:.1f} ms per image, {alone} {found.sizes[0].ms:.1f}"
    return f"choice: {', '.join(chosen.views)}: {why}; {cost}; gain over {alone}: {gain_cell(chosen.gains[metric])}"
