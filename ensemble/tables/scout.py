"""What a scout has found: the backbones, their blends and the plan."""

from string import ascii_uppercase

from rich.markup import escape

from ensemble.plural import pluralize
from ensemble.progress import duration
from ensemble.scoring.bootstrap import Score
from ensemble.scoring.metrics import METRICS
from ensemble.scout.plan import Plan
from ensemble.scout.result import Front, Scouted
from ensemble.tables.layout import STAR, gain_cell, headings, new_table, print_line, print_table, score_cell


def show_scout(found: Scouted) -> None:
    """The backbones by score, the front of their blends, how honest its numbers are, and the choice in a sentence."""
    front = found.front
    _show_singles(front)
    print_line()
    _show_front(front, found.chosen)
    print_line()
    _say_choice(front, found.chosen)
    if found.plan is not None:
        print_line()
        _show_plan(found.plan)


def _show_singles(front: Front) -> None:
    shown = _shown(front)
    rows = pluralize(front.rows, "row") + (f" in {pluralize(front.groups, 'group')}" if front.groups else "")
    table = new_table(
        f"backbones as linear probes, out of fold, {rows}, the best {METRICS[front.metric].title} first:\n"
        "score [95% interval], and below it the gain over the best; ms per image and core",
        "backbone",
        *headings(shown),
        "ms/image",
    )
    letters = _letters(front)
    for single in front.singles:
        cells = []
        for metric in shown:
            below = f"\n{gain_cell(single.gains[metric])}" if single.gains else ""
            cells.append(_interval(metric, single.scores[metric]) + below)
        name = f"{letters[single.name]} {single.name}"
        timm = "" if single.name.startswith(single.timm) else f"{single.timm} "
        name += f"\n{timm}{single.image_size} px"
        table.add_row(escape(name), *cells, f"{single.ms:.1f}")
    print_table(table)


def _show_front(front: Front, chosen: int) -> None:
    shown = _shown(front)
    table = new_table(
        f"blends that no cheaper one of {pluralize(front.tried, 'blend')} beats, the plain mean at one temperature:\n"
        "score [95% interval], and below it of blends at that cost chosen without the rows scored",
        "",
        "of",
        *headings(shown),
        "ms/image",
    )
    table.columns[1].justify, table.columns[1].no_wrap, table.columns[1].overflow = "left", False, "fold"
    letters = _letters(front)
    for number, blend in enumerate(front.blends):
        cells = [
            f"{_interval(metric, blend.scores[metric])}\n{_interval(metric, blend.nested[metric])}" for metric in shown
        ]
        cost = f"{blend.ms:.1f}\n{blend.by_fold}/{front.folds}"
        mark = STAR if number == chosen else ""
        style = "bold" if number == chosen else None
        table.add_row(
            f"{number + 1}{mark}", " ".join(sorted(letters[name] for name in blend.members)), *cells, cost, style=style
        )
    print_table(table)
    print_line("of: the letters of the backbones above")
    print_line(f"{STAR.strip()} chosen; below the cost: on how many folds the same members are chosen without the fold")


def _say_choice(front: Front, chosen: int) -> None:
    metric, blend = METRICS[front.metric], front.blends[chosen]
    if front.largest < 4 and front.largest < len(front.singles):
        print_line(f"blends of more than {front.largest} were not tried: they would take long here")
    why = "the cheapest within one standard error of the best" if chosen == front.simplest else "picked"
    print_line(f"chosen: {chosen + 1}, {', '.join(blend.members)}: {why}; --pick takes another")
    table, nested = (metric.sign * scores[front.metric].value for scores in (blend.scores, blend.nested))
    optimism = metric.factor * (table - nested)
    unit = " points" if metric.factor == 100 else ""
    honest = metric.number(blend.nested[front.metric].value)
    verdict = f"optimistic by {optimism:.{2 if unit else 4}f}{unit}" if optimism > 0 else "not optimistic here"
    print_line(
        f"choosing among {pluralize(front.tried, 'blend')} on the rows that score them is {verdict}: chosen without "
        f"them, blends of this cost have {metric.title} {honest}"
    )


def _show_plan(plan: Plan) -> None:
    table = new_table(
        f"the plan: {duration(plan.seconds)} of {duration(plan.budget)}, forecast from timed steps on this machine",
        "backbone",
        "image size",
        "epochs",
        "time",
    )
    for member in plan.members:
        table.add_row(escape(member.name), f"{member.image_size} px", f"{member.epochs}", duration(member.seconds))
    print_table(table)
    for line in plan.left_out:
        print_line(line)


def _shown(front: Front) -> tuple[str, str]:
    return front.metric, "accuracy" if front.metric == "log_loss" else "log_loss"


def _letters(front: Front) -> dict[str, str]:
    """Of the backbones in the order of their table: A to Z, then A2, B2, ..."""
    return {
        single.name: ascii_uppercase[number % 26] + (f"{number // 26 + 1}" if number >= 26 else "")
        for number, single in enumerate(front.singles)
    }


def _interval(metric: str, score: Score) -> str:
    """Without the deviation over folds."""
    first, ends = score_cell(metric, score).splitlines()
    return f"{first.split(' ')[0]} {ends}"
