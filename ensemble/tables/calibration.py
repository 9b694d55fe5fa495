"""Whether a blend's probabilities can be believed: over all rows, by class and by group."""

from ensemble.blend import BlendResult
from ensemble.escape import escaped
from ensemble.plural import pluralize
from ensemble.scoring.miscalibration import DOUBTED, ClasswiseCalibration
from ensemble.tables.layout import gain_cell, new_table, print_line, print_table

MOST = 5  # classes that are named


def calibration_lines(result: BlendResult, with_details: bool = False) -> list[str]:
    """What stands out: what a scaling gains, and classes and groups whose probabilities can't be believed, unless
    the details have named them."""
    lines = []
    if result.scaling_gain is not None:
        lines.append(
            f"the scaling gains {gain_cell(result.scaling_gain)} nats of log loss over the same blend without it"
        )
    doubted = [] if result.by_class is None else [each for each in result.by_class.classes if each.p < DOUBTED]
    if (doubted or result.by_group) and not with_details:
        what = [pluralize(len(doubted), "class", "classes")] if doubted else []
        what += [pluralize(result.by_group, "group")] if result.by_group else []
        lines.append(
            f"probabilities of {' and '.join(what)} are wrong by more than chance: see --details, or ens report"
        )
    return lines


def show_calibration(result: BlendResult) -> None:
    table = new_table("calibration, cross-fitted", "", "log loss", "ECE %", "Brier score")
    for what, scores in result.calibration.items():
        table.add_row(what, f"{scores.log_loss:.4f}", f"{100 * scores.ece:.2f}", f"{scores.brier:.4f}")
    print_table(table)
    before = next((name for name in result.reliability if name.startswith("blend before")), None)
    stages = {"blend": result.reliability["blend"]}
    if before is not None:
        last = before.removeprefix("blend before ")
        stages = {"before": result.reliability[before], f"after {last}": result.reliability["blend"]}
    title = "reliability: rows, their mean confidence % and accuracy %"
    table = new_table(title, "confidence %", *stages)
    bins = sorted({(bin.low, bin.high) for stage in stages.values() for bin in stage})
    for low, high in bins:
        cells = []
        for stage in stages.values():
            found = next((bin for bin in stage if bin.low == low), None)
            cells.append(f"{found.rows:6} {100 * found.confidence:6.1f} {100 * found.accuracy:6.1f}" if found else "-")
        table.add_row(f"{100 * low:.1f} to {100 * high:.1f}", *cells)
    print_table(table)
    if result.by_class is not None:
        _show_by_class(result.by_class, result)
    if result.by_group is not None:
        groups, are = pluralize(result.groups or 0, "group"), "is" if result.by_group == 1 else "are"
        print_line(
            f"by group: {result.by_group} of {groups} {are} right more or less often than the confidence says "
            f"(adjusted p < {DOUBTED:g})"
        )


def _show_by_class(found: ClasswiseCalibration, result: BlendResult) -> None:
    looked_at = "" if found.rows == result.rows else f", of {pluralize(found.rows, 'row')}"
    print_line(
        f"error of the probabilities by class{looked_at}: {100 * found.error:.2f} %, by chance up to "
        f"{100 * found.chance:.2f} % (p = {found.p:.3f})"
    )
    order = sorted(zip(found.classes, result.fitted.classes, strict=True), key=lambda pair: pair[0].p)
    doubted = [(each, name) for each, name in order if each.p < DOUBTED]
    for each, name in doubted[:MOST]:
        print_line(
            f"  {escaped(name)}: {100 * each.error:.2f} %, by chance up to {100 * each.chance:.2f} % (adjusted p = "
            f"{each.p:.3f}); its probabilities sum to {each.expected:.1f}, and it has {pluralize(each.rows, 'row')}"
        )
    if len(doubted) > MOST:
        print_line(f"  and {pluralize(len(doubted) - MOST, 'class', 'classes')} more")
