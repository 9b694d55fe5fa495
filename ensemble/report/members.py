"""The members, how they differ, and what the blends make of them."""

import math
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ensemble.blend import BlendResult
from ensemble.blend.diversity import disagreement, error_correlation
from ensemble.blend.methods import METHODS
from ensemble.blend.oof import EXTERNAL_VIEW
from ensemble.config import Config
from ensemble.report.provenance import train_again
from ensemble.report.run import MemberFacts, RunFacts
from ensemble.run import Run
from ensemble.run.shapes import SavedSearch
from ensemble.scoring.bootstrap import Gain
from ensemble.scoring.calibration import calibration
from ensemble.scoring.metrics import METRICS, columns

MOST_PAIRS = 40  # members: of more, the table of pairs is of these, the best
FLOATS = ("F64", "F32", "F16", "BF16")
STRIPS = 6  # share of a strip, in percent, that is left free at either end


def section(facts: RunFacts) -> dict[str, Any] | None:
    """Tables of members, pairs, blends, weights and costs."""
    if facts.oof is None:
        return {"missing": f"no member has finished a fold yet; train on with: {train_again(facts)}"}
    rows, best = facts.oof.rows, facts.best
    assert best is not None
    ece = {name: calibration(rows.labels, own).ece for name, own in zip(facts.oof.members, facts.single, strict=True)}
    order = sorted(facts.members, key=lambda own: own.row.scores["log_loss"].value if own.row.scores else np.inf)
    return {
        "members": [_member(facts.run, own, ece.get(own.name), facts.config) for own in order],
        "optimistic": facts.optimistic,
        "pairs": _pairs(facts),
        "blends": _blends(facts),
        "tried": len(facts.comparable),
        "weights": _weights(best) if facts.saved else None,
        "costs": _costs(best),
        "cost_metric": METRICS[next((cost.metric for cost in best.diversity.costs.values()), "log_loss")].title,
        "columns": columns(),
        "asked": tuple(
            name for name in METRICS if name not in columns() and name in {own.fitted.metric for own in facts.blends}
        ),
        "headings": {name: metric.heading[0].upper() + metric.heading[1:] for name, metric in METRICS.items()},
        "views": _views(facts.view_search),
    }


def strip(low: float, value: float, high: float, least: float, most: float) -> dict[str, float]:
    """Where an interval and its value lie between `least` and `most`, in percent of a strip's width."""
    width = (most - least) or 1.0
    a, at, b = (STRIPS + (100 - 2 * STRIPS) * (x - least) / width for x in (low, value, high))
    return {"left": a, "width": b - a, "at": at}


def _member(run: Run, own: MemberFacts, ece: float | None, config: Config | None) -> dict[str, Any]:
    epochs = [len(log) for log in own.logs.values() if log]
    return {
        "facts": own,
        "ece": ece,
        "parameters": _numbers(run, own),
        "seconds": sum(own.seconds.values()),
        "epochs": max(epochs, default=0),
        "timm": own.settings.get("timm", "?"),
        "side": own.settings.get("image_size"),
        "strategy": _strategy(own, config),
    }


def _strategy(own: MemberFacts, config: Config | None) -> str:
    """In words; a run of an older ens does not say it member by member."""
    strategy = own.settings.get("strategy") or (config.train.strategy if config else None)
    if strategy is None:
        return "from scratch" if own.settings.get("start") == "scratch" else "full"
    return "from scratch" if strategy == "scratch" else str(strategy)


def _numbers(run: Run, own: MemberFacts) -> int | None:
    """How many floating-point numbers a fold's weights file holds (the statistics of batch norms among them)."""
    if not own.row.done:
        return None
    path = run.member(own.name).fold(own.row.done[0]).model_file
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            held = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118
            shapes: list[list[int]] = [own.get_shape() for own in held if own.get_dtype() in FLOATS]
            return sum(map(math.prod, shapes))
    except (OSError, SafetensorError):
        return None


def _pairs(facts: RunFacts) -> dict[str, Any] | None:
    """Disagreement above the diagonal, correlation of errors below it; the members from the best to the worst."""
    assert facts.oof is not None
    if len(facts.oof.members) < 2:
        return None
    order = sorted(range(len(facts.single)), key=lambda m: float(facts.single[m].losses.mean()))[:MOST_PAIRS]
    predicted = np.stack([facts.single[m].predicted for m in order])
    apart = disagreement(predicted)
    alike = error_correlation(predicted, facts.oof.rows.labels)
    most = float(apart.max()) or 1.0
    table = []
    for a in range(len(order)):
        cells: list[dict[str, Any] | None] = []
        for b in range(len(order)):
            if a == b:
                cells.append(None)
            elif b > a:
                cells.append({"share": float(apart[a, b]) / most, "text": f"{100 * apart[a, b]:.1f}", "apart": True})
            elif np.isnan(alike[a, b]):
                cells.append({"share": 0.0, "text": "–", "apart": False})
            else:
                cells.append({"share": float(alike[a, b]), "text": f"{alike[a, b]:.2f}", "apart": False})
        table.append({"name": facts.oof.members[order[a]], "cells": cells})
    return {"table": table, "cut": len(facts.oof.members) - len(order)}


def _blends(facts: RunFacts) -> list[dict[str, Any]]:
    """All saved blends beside each other, with the plain mean and the best single member of the best one."""
    best = facts.best
    assert best is not None
    rows: list[dict[str, Any]] = []
    if facts.saved:
        usable = facts.comparable
        for own in sorted(facts.blends, key=lambda one: one not in usable):
            remarks = []
            if own.fitted.metric != "log_loss":
                remarks.append(f"for {METRICS[own.fitted.metric].title}")
            if own.external:
                remarks.append(f"with {', '.join(own.external)}, not trained here")
            if own.unused:
                remarks.append(
                    f"{len(own.members) - sum(name in own.members for name in own.unused)} of "
                    f"{len(own.members)} members used"
                )
            if own.shifted:
                remarks.append("for other class shares: not to be compared")
            if own.name in facts.stale:
                remarks.append("stale: of other logits than the run holds now")
            over = own.gain_over("single", "log_loss")
            if over is not None and over.against != best.best["log_loss"]:
                remarks.append(f"gains over its own best single, {over.against}")
            rows.append({
                "name": own.name, "scores": own.blend, "ece": own.calibration["blend"].ece,
                "remark": "; ".join(remarks),
                "gain": own.gain_over("single", "accuracy"), "loss_gain": own.gain_over("single", "log_loss"),
                "best": own.name == best.name, "usable": own in usable,
            })  # fmt: skip
    single = best.best["log_loss"]
    index = None  # its ECE is known under the views of training
    if facts.oof and single in facts.oof.members:
        index = facts.oof.members.index(single)
        index = index if best.views.get(single, facts.oof.views[index]) == facts.oof.views[index] else None
    plain = best.calibration.get("plain mean", best.calibration["blend"])
    if len(best.members) > 1:
        rows.append({
            "name": "plain mean", "scores": best.mean if facts.saved else best.blend, "ece": plain.ece,
            "remark": "nothing fitted", "gain": None if facts.saved else best.gain_over("single", "accuracy"),
            "loss_gain": None if facts.saved else best.gain_over("single", "log_loss"),
            "best": not facts.saved, "usable": True,
        })  # fmt: skip
    labels = facts.oof.rows.labels if facts.oof else np.empty(0, dtype=np.int64)
    rows.append({
        "name": f"best single: {single}", "scores": best.members[single],
        "ece": calibration(labels, facts.single[index]).ece if index is not None else None,
        "remark": "chosen on these rows", "gain": None, "loss_gain": None, "best": False, "usable": True,
    })  # fmt: skip
    shown = [row["scores"]["log_loss"] for row in rows if row["usable"]]
    least, most = min(own.low for own in shown), max(own.high for own in shown)
    for row in rows:
        own = row["scores"]["log_loss"]
        row["strip"] = strip(own.low, own.value, own.high, least, most) if row["usable"] else None
    return rows


def _weights(best: BlendResult) -> dict[str, Any]:
    """What each member and view counts in a blend: the member's weight, dealt out to its views."""
    views = list(dict.fromkeys(view for own in best.views.values() for view in own))
    weights = {member: own["weight"] for member, own in best.weights.items()}
    most = max((abs(value) for value in weights.values()), default=0.0) or 1.0
    table = []
    for member, own in sorted(best.weights.items(), key=lambda item: -item[1]["weight"]):
        shares = best.view_weights.get(member, {best.views[member][0]: 1.0} if best.views.get(member) else {})
        cells = [
            {"share": own["weight"] * shares[view] / most, "text": f"{own['weight'] * shares[view]:.3f}"}
            if view in shares
            else None
            for view in views
        ]
        table.append({
            "name": member, "cells": cells, "whole": f"{own['weight']:.3f}", "share": own["weight"] / most,
            "temperature": own.get("temperature"), "used": member not in best.unused,
        })  # fmt: skip
    named = ["given" if (view,) == EXTERNAL_VIEW else view for view in views]
    reading = METHODS[best.fitted.chain.method].reading
    return {"views": named, "table": table, "reading": reading, "notes": best.notes,
            "temperatures": any(row["temperature"] is not None for row in table)}  # fmt: skip


def _costs(best: BlendResult) -> list[dict[str, Any]]:
    """What leaving each member out costs, the dearest first."""
    own = sorted(best.diversity.costs.items(), key=lambda item: -item[1].value)
    if not own:
        return []
    least = min(0.0, *(gain.low for _, gain in own))
    most = max(0.0, *(gain.high for _, gain in own))
    zero = strip(0, 0, 0, least, most)["at"]
    return [
        {"name": name, "gain": gain, "strip": strip(gain.low, gain.value, gain.high, least, most) | {"zero": zero},
         "verdict": _told(gain)}
        for name, gain in own
    ]  # fmt: skip


def _told(gain: Gain) -> str:
    if gain.low > 0:
        return "needed"
    return "harms" if gain.high < 0 else "no difference can be told"


def _views(search: SavedSearch | None) -> dict[str, Any] | None:
    """What `ens tta-search` found, in short."""
    if search is None:
        return None
    try:
        metric = search["metric"]
        sizes = [
            {"views": own["views"], "ms": own["ms"], "chosen": own["views"] == search["chosen"],
             "text": _plain(metric, own["scores"][metric])}
            for own in search["sizes"]
        ]  # fmt: skip
        return {"chosen": search["chosen"], "base": search["base"], "metric": METRICS[metric].title, "sizes": sizes}
    except (KeyError, TypeError):
        return None


def _plain(metric: str, own: dict[str, float]) -> str:
    value, low, high = (METRICS[metric].number(own[key]) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
