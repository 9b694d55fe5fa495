"""What the run's cascades cost and are worth, beside the blends that they are made of and fixed sets of members."""

from typing import Any

from markupsafe import Markup
from matplotlib import rc_context

from ensemble.blend import list_blends
from ensemble.cascade.result import Cascade, Worth, read_cascade
from ensemble.errors import UserError
from ensemble.plural import pluralize
from ensemble.report.charts import INK, SERIES, SETTINGS, new_chart, svg
from ensemble.report.run import RunResults
from ensemble.scoring.metrics import HEADLINE


def section(results: RunResults) -> dict[str, Any] | None:
    """A chart and a table for each cascade."""
    cascades: list[dict[str, Any]] = []
    problems: list[str] = []
    for name in list_blends(results.run):
        try:
            found = read_cascade(results.run, name)
        except UserError as error:
            problems.append(str(error))
            continue
        if found is not None:
            cascades.append({
                "name": name, "found": found, "rows": _rows(found), "chart": _chart(found, len(cascades)),
                "stages": [
                    {"asks": "; ".join(f"{member} ({', '.join(views)})" for member, views in stage.added.items()),
                     "ms": stage.ms, "exits": stage.exits}
                    for stage in found.stages
                ],
            })  # fmt: skip
    return {"cascades": cascades, "problems": problems, "metrics": HEADLINE} if cascades or problems else None


def _rows(found: Cascade) -> list[dict[str, Any]]:
    named: list[tuple[str, Worth]] = [(f"the whole blend {found.blend}", found.whole)]
    named += [(f"cascade that may lose {point.max_loss:g}", point.worth) for point in reversed(found.front)]
    for fixed in reversed(found.fixed):
        views = "one view" if fixed.views == 1 else pluralize(fixed.views, "view")
        named.append((f"always {', '.join(fixed.members)} ({views})", fixed.worth))
    named.append(("this cascade", found.worth))
    return [{"name": name, "worth": worth, "times": found.whole.ms / worth.ms} for name, worth in named]


def _chart(found: Cascade, number: int) -> Markup:
    """Cost against log loss."""
    figure, (axes,) = new_chart(5.2, 2.8)

    def points(worth: list[Worth]) -> tuple[list[float], list[float]]:
        return [each.ms for each in worth], [each.scores["log_loss"].value for each in worth]

    with rc_context(SETTINGS):
        axes.plot(*points([point.worth for point in found.front]), "o-", color=SERIES[0], label="cascades")
        axes.plot(
            *points([fixed.worth for fixed in found.fixed]), "s--", color=SERIES[1], label="fixed sets of members"
        )
        axes.plot(*points([found.whole]), "D", color=INK, linestyle="none", label="the whole blend")
        axes.set_xlim(left=0)
        axes.set_xlabel("milliseconds per image")
        axes.set_ylabel("log loss")
        axes.legend(frameon=False)
    return svg(
        figure, f"cascade{number}", "log loss against milliseconds per image: cascades, and fixed sets of members"
    )
