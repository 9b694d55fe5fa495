"""The members, how they differ, and what the blends make of them."""

import math
from contextlib import suppress
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ensemble.blend import BlendResult
from ensemble.blend.diversity import disagreement, error_correlation
from ensemble.blend.methods import METHODS
from ensemble.blend.oof import EXTERNAL_VIEW
from ensemble.config import Config
from ensemble.errors import UserError
from ensemble.overview.blends import remarks
from ensemble.plural import pluralize
from ensemble.report.provenance import train_again
from ensemble.report.run import MemberResults, RunResults
from ensemble.report.strips import axis, strip
from ensemble.run import Run
from ensemble.run.shapes import SavedSearch
from ensemble.scoring.bootstrap import Gain
from ensemble.scoring.calibration import calibration
from ensemble.scoring.metrics import METRICS, columns

MOST_PAIRS = 40  # members: of more, the table of pairs is of these, the best
FLOATS = ("F64", "F32", "F16", "BF16")


def section(results: RunResults) -> dict[str, Any] | None:
    """Tables of members, pairs, blends, weights and costs."""
    if results.oof is None:
        return {"missing": f"No member has finished a fold yet. To go on: {train_again(results)}"}
    rows, best = results.oof.rows, results.best
    assert best is not None
    ece = {
        name: calibration(rows.labels, outcome).ece
        for name, outcome in zip(results.oof.members, results.single, strict=True)
    }
    order = sorted(
        results.members, key=lambda member: member.row.scores["log_loss"].value if member.row.scores else np.inf
    )
    blends, blends_axis = _blends(results)
    costs, costs_axis = _costs(best)
    return {
        "members": [_member(results.run, member, ece.get(member.name), results.config) for member in order],
        "optimistic": results.optimistic,
        "unscored": [line for member in order if (line := _unscored(results.run, member.name))],
        "pairs": _pairs(results),
        "blends": blends,
        "blends_axis": blends_axis,
        "tried": len(results.comparable),
        "weights": _weights(best) if results.saved else None,
        "costs": costs,
        "costs_axis": costs_axis,
        "cost_metric": METRICS[next((cost.metric for cost in best.diversity.costs.values()), "log_loss")].title,
        "columns": columns(),
        "optimised": tuple(
            name
            for name in METRICS
            if name not in columns() and name in {blend.fitted.metric for blend in results.blends}
        ),
        "headings": {name: metric.heading[0].upper() + metric.heading[1:] for name, metric in METRICS.items()},
        "views": _views(results.view_search),
    }


def _member(run: Run, member: MemberResults, ece: float | None, config: Config | None) -> dict[str, Any]:
    epochs = [len(log) for log in member.logs.values() if log]
    return {
        "results": member,
        "ece": ece,
        "parameters": _numbers(run, member),
        "seconds": sum(member.seconds.values()),
        "epochs": max(epochs, default=0),
        "timm": member.settings.get("timm", "?"),
        "side": member.settings.get("image_size"),
        "strategy": _strategy(member, config),
    }


def _strategy(member: MemberResults, config: Config | None) -> str:
    """In words. Runs of older versions don't record it for each member: then the config is asked."""
    if "soup" in member.settings:
        return f"soup of {', '.join(member.settings['soup'])}"
    strategy = member.settings.get("strategy") or (config.train.strategy if config else None)
    if strategy is None:
        return "from scratch" if member.settings.get("start") == "scratch" else "full"
    head = member.settings.get("head", "linear")
    return "from scratch" if strategy == "scratch" else str(strategy) if head == "linear" else f"{strategy}, {head}"


def _unscored(run: Run, name: str) -> str | None:
    """The member's networks that have no out-of-fold score, in words; None where there are none."""
    member = run.member(name)
    found = []
    with suppress(UserError):  # a damaged marker costs this line alone
        if member.soup().is_done():
            done = member.soup().read_done()
            found.append(
                f"the soup of its folds, which predicts their ensemble’s class for {done.get('agreement', 0):.1%} of "
                f"{done.get('on', 'images')}"
            )
        refits = sum(refit.is_done() for refit in member.refits())
        if refits:
            found.append(pluralize(refits, "refit on all rows", "refits on all rows"))
    if not found:
        return None
    return (
        f"{name} also has {' and '.join(found)}: these have seen the rows of all folds, and have no score of their own."
    )


def _numbers(run: Run, member: MemberResults) -> int | None:
    """Number of floating-point values in a fold's weights file, including the statistics of batch norms."""
    if not member.row.done:
        return None
    path = run.member(member.name).fold(member.row.done[0]).model_file
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118
            shapes: list[list[int]] = [tensor.get_shape() for tensor in tensors if tensor.get_dtype() in FLOATS]
            return sum(map(math.prod, shapes))
    except (OSError, SafetensorError):
        return None


def _pairs(results: RunResults) -> dict[str, Any] | None:
    """Disagreement above the diagonal, correlation of errors below it; the members from the best to the worst."""
    assert results.oof is not None
    if len(results.oof.members) < 2:
        return None
    order = sorted(range(len(results.single)), key=lambda m: float(results.single[m].losses.mean()))[:MOST_PAIRS]
    predicted = np.stack([results.single[m].predicted for m in order])
    disagreements = disagreement(predicted)
    correlations = error_correlation(predicted, results.oof.rows.labels)
    most = float(disagreements.max()) or 1.0
    table = []
    for a in range(len(order)):
        cells: list[dict[str, Any] | None] = []
        for b in range(len(order)):
            if a == b:
                cells.append(None)
            elif b > a:
                cells.append(
                    {
                        "share": float(disagreements[a, b]) / most,
                        "text": f"{100 * disagreements[a, b]:.1f}",
                        "disagreement": True,
                    }
                )
            elif np.isnan(correlations[a, b]):
                cells.append({"share": 0.0, "text": "–", "disagreement": False})
            else:
                cells.append(
                    {"share": float(correlations[a, b]), "text": f"{correlations[a, b]:.2f}", "disagreement": False}
                )
        table.append({"name": results.oof.members[order[a]], "cells": cells})
    return {"table": table, "cut": len(results.oof.members) - len(order)}


def _blends(results: RunResults) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All saved blends beside each other, with the plain mean and the best single member of the best one; and the axis
    of their intervals."""
    best = results.best
    assert best is not None
    rows: list[dict[str, Any]] = []
    if results.saved:
        usable = results.comparable
        for blend in sorted(results.blends, key=lambda blend: blend not in usable):
            about = remarks(results.run, blend, results.stale)
            if blend.unused:
                used = len(blend.members) - sum(name in blend.members for name in blend.unused)
                about.append(f"{used} of {len(blend.members)} members used")
            over = blend.gain_over("single", "log_loss")
            if over is not None and over.against != best.best["log_loss"]:
                about.append(f"gains over its own best single, {over.against}")
            rows.append({
                "name": blend.name, "scores": blend.blend, "ece": blend.calibration["blend"].ece,
                "remark": "; ".join(about),
                "gain": blend.gain_over("single", "accuracy"), "loss_gain": blend.gain_over("single", "log_loss"),
                "best": blend.name == best.name, "usable": blend in usable,
            })  # fmt: skip
    single = best.best["log_loss"]
    index = None  # its ECE is known under the views of training
    if results.oof and single in results.oof.members:
        index = results.oof.members.index(single)
        index = index if best.views.get(single, results.oof.views[index]) == results.oof.views[index] else None
    plain = best.calibration.get("plain mean", best.calibration["blend"])
    if len(best.members) > 1:
        rows.append({
            "name": "plain mean", "scores": best.mean if results.saved else best.blend, "ece": plain.ece,
            "remark": "nothing fitted", "gain": None if results.saved else best.gain_over("single", "accuracy"),
            "loss_gain": None if results.saved else best.gain_over("single", "log_loss"),
            "best": not results.saved, "usable": True,
        })  # fmt: skip
    labels = results.oof.rows.labels if results.oof else np.empty(0, dtype=np.int64)
    rows.append({
        "name": f"best single: {single}", "scores": best.members[single],
        "ece": calibration(labels, results.single[index]).ece if index is not None else None,
        "remark": "chosen on these rows", "gain": None, "loss_gain": None, "best": False, "usable": True,
    })  # fmt: skip
    shown = [row["scores"]["log_loss"] for row in rows if row["usable"]]
    least, most = min(score.low for score in shown), max(score.high for score in shown)
    for row in rows:
        score = row["scores"]["log_loss"]
        row["strip"] = strip(score.low, score.value, score.high, least, most) if row["usable"] else None
    return rows, axis(least, most, "{:g}".format)


def _weights(best: BlendResult) -> dict[str, Any]:
    """The weight of each member and view in a blend: a member's weight is shared among its views."""
    views = list(dict.fromkeys(view for member_views in best.views.values() for view in member_views))
    weights = {member: values["weight"] for member, values in best.weights.items()}
    most = max((abs(value) for value in weights.values()), default=0.0) or 1.0
    table = []
    for member, values in sorted(best.weights.items(), key=lambda item: -item[1]["weight"]):
        shares = best.view_weights.get(member, {best.views[member][0]: 1.0} if best.views.get(member) else {})
        cells = [
            {"share": values["weight"] * shares[view] / most, "text": f"{values['weight'] * shares[view]:.3f}"}
            if view in shares
            else None
            for view in views
        ]
        table.append({
            "name": member, "cells": cells, "whole": f"{values['weight']:.3f}", "share": values["weight"] / most,
            "temperature": values.get("temperature"), "used": member not in best.unused,
        })  # fmt: skip
    named = ["given" if (view,) == EXTERNAL_VIEW else view for view in views]
    reading = METHODS[best.fitted.chain.method].reading
    return {"views": named, "table": table, "reading": reading, "notes": best.notes,
            "temperatures": any(row["temperature"] is not None for row in table)}  # fmt: skip


def _costs(best: BlendResult) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What leaving each member out costs, the dearest first; and the axis of the intervals."""
    costs = sorted(best.diversity.costs.items(), key=lambda item: -item[1].value)
    if not costs:
        return [], []
    least = min(0.0, *(gain.low for _, gain in costs))
    most = max(0.0, *(gain.high for _, gain in costs))
    zero = strip(0, 0, 0, least, most)["at"]
    rows = [
        {"name": name, "gain": gain, "strip": strip(gain.low, gain.value, gain.high, least, most) | {"zero": zero},
         "verdict": _cost_verdict(gain)}
        for name, gain in costs
    ]  # fmt: skip
    factor = METRICS[costs[0][1].metric].factor
    return rows, axis(least, most, lambda tick: f"{factor * tick:g}")


def _cost_verdict(gain: Gain) -> str:
    if gain.low > 0:
        return "needed"
    return "better without" if gain.high < 0 else "no difference can be told"


def _views(search: SavedSearch | None) -> dict[str, Any] | None:
    """What `ens tta-search` found, in short."""
    if search is None:
        return None
    try:
        metric = search["metric"]
        sizes = [
            {"views": size["views"], "ms": size["ms"], "chosen": size["views"] == search["chosen"],
             "text": _plain(metric, size["scores"][metric])}
            for size in search["sizes"]
        ]  # fmt: skip
        return {"chosen": search["chosen"], "base": search["base"], "metric": METRICS[metric].title, "sizes": sizes}
    except (KeyError, TypeError):
        return None


def _plain(metric: str, score: dict[str, float]) -> str:
    value, low, high = (METRICS[metric].number(score[key]) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
