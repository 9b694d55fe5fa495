"""What the logs say of each member's training: losses, held-out scores, learning rate and time by epoch.

A chart's values are read from the CSV that the page offers: its script shows those of the epoch that is pointed at.
"""

import re
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ensemble.plural import pluralize
from ensemble.report.charts import LINE, MUTED, SERIES, SETTINGS, csv_uri, new_chart, svg
from ensemble.report.run import MemberResults, RunResults
from ensemble.train.enough import enough_epochs

MOST = 60  # members: of more, the charts would take megabytes
LOGGED = ("epoch", "lr", "loss", "held_out_log_loss", "held_out_accuracy", "seconds")
TRAINING, HELD_OUT, RATE = SERIES[0], SERIES[1], SERIES[5]


def section(results: RunResults) -> dict[str, Any] | None:
    """One chart for each member that was trained by epochs."""
    trained = [member for member in results.members if any(member.logs.values())]
    probes = [member.name for member in results.members if not any(member.logs.values()) and member.row.done]
    if not trained:
        why = "linear probes have no epochs" if probes else "no member has finished an epoch yet"
        return {"missing": f"No learning curves: {why}."}
    charts: list[dict[str, Any]] = []
    for number, member in enumerate(trained[:MOST]):
        line = enough_epochs(results.run.member(member.name))
        charts.append({
            "name": member.name, **_chart(member, number, _enough(line)), "enough": _sentence(line),
            "pace": _pace(member), "unfinished": _unfinished(member),
        })  # fmt: skip
    evaluated = any("held_out_log_loss" in line for member in trained for log in member.logs.values() for line in log)
    return {
        "charts": charts,
        "probes": probes,
        "evaluated": evaluated,
        "cut": len(trained) - len(charts),
        "csv": csv_uri([("member", "fold", *LOGGED), *_rows(trained[:MOST])]),
    }


def _rows(members: list[MemberResults]) -> list[list[Any]]:
    """A line for each epoch of each fold: the values of LOGGED, "" where one was not logged."""
    return [
        [member.name, fold, *("" if line.get(key) is None else f"{line[key]:.6g}" for key in LOGGED)]
        for member in members
        for fold, log in sorted(member.logs.items())
        for line in log
    ]


def by_epoch(member: MemberResults, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs int64 (E,) and the value of `key` at their end, float64 (K, E); NaN where a fold's log has none."""
    logs = [log for _, log in sorted(member.logs.items()) if log]
    epochs = sorted({int(line["epoch"]) for log in logs for line in log if line.get(key) is not None})
    values = np.full((len(logs), len(epochs)), np.nan)
    for k, log in enumerate(logs):
        for line in log:
            if line.get(key) is not None:
                values[k, epochs.index(int(line["epoch"]))] = float(line[key])
    return np.array(epochs, dtype=np.int64), values


def _chart(member: MemberResults, number: int, enough: int | None) -> dict[str, Any]:
    """Losses, then held-out accuracy if it was evaluated, then the learning rate; and where on it epochs lie: `zero` is
    epoch 0, `step` the distance of two, in percent of the width."""
    evaluated = len(by_epoch(member, "held_out_accuracy")[0]) > 0
    figure, axes = new_chart(3.2, 3.0 if evaluated else 2.3, 3 if evaluated else 2)
    ratios = [3, 2, 1] if evaluated else [3, 1]
    grid = axes[0].get_subplotspec()
    assert grid is not None
    grid.get_gridspec().set_height_ratios(ratios)
    with rc_context(SETTINGS):
        _lines(axes[0], member, "loss", TRAINING)
        _lines(axes[0], member, "held_out_log_loss", HELD_OUT)
        axes[0].set_title("loss")
        axes[0].set_ylim(bottom=0)
        if evaluated:
            _lines(axes[1], member, "held_out_accuracy", HELD_OUT, 100)
            axes[1].set_title("held-out accuracy, %")
        _lines(axes[-1], member, "lr", RATE)
        top = float(np.nanmax(by_epoch(member, "lr")[1], initial=0.0)) or 1.0
        axes[-1].set_ylim(0, 1.15 * top)
        axes[-1].set_yticks([0, top], ["0", f"{top:.1e}".replace("e-0", "e-").replace(".0e", "e")])
        axes[-1].set_title("learning rate")
        axes[-1].set_xlabel("epoch")
        epochs = by_epoch(member, "loss")[0]
        last = int(epochs.max()) if len(epochs) else 1
        axes[-1].set_xlim(0.5 if last < 8 else 0, last + (0.5 if last < 8 else 1))
        axes[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        if enough is not None:
            for one in axes[:-1]:
                one.axvline(enough, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
    what = "training loss" + (", held-out loss and accuracy" if evaluated else "") + " and learning rate by epoch"
    chart = svg(figure, f"curve{number}", f"{member.name}: {what}")
    box, (low, high) = axes[-1].get_position(), axes[-1].get_xlim()
    step = 100 * box.width / (high - low)
    return {"chart": chart, "zero": 100 * box.x0 - step * low, "step": step}


def _lines(axes: Axes, member: MemberResults, key: str, colour: str, factor: float = 1) -> None:
    """A thin line per fold, a thick one for their mean where all folds have a value; points if epochs were skipped."""
    epochs, values = by_epoch(member, key)
    if not len(epochs):
        return
    sparse = "o" if len(epochs) < 2 or bool((np.diff(epochs) > 1).any()) or key.startswith("held_out") else ""
    for fold in factor * values:
        seen = np.isfinite(fold)
        axes.plot(epochs[seen], fold[seen], color=colour, linewidth=0.8, alpha=0.4, marker=sparse, markersize=1.5)
    whole = np.isfinite(values).all(axis=0)
    if len(values) > 1 and whole.any():
        mean = factor * values[:, whole].mean(axis=0)
        axes.plot(epochs[whole], mean, color=colour, linewidth=2, marker=sparse, markersize=3)
    axes.tick_params(axis="x", color=LINE)


def _enough(line: str | None) -> int | None:
    found = re.search(r": (\d+) of \d+ epochs would have been enough", line or "")
    return int(found[1]) if found else None


def _sentence(line: str | None) -> str | None:
    """The line without the member's name, which is in the heading."""
    if line is None:
        return None
    text = line.split(": ", 1)[1]
    return text[0].upper() + text[1:] + "."


def _pace(member: MemberResults) -> str | None:
    _, seconds = by_epoch(member, "seconds")
    _, rates = by_epoch(member, "images_per_second")
    if not seconds.size:
        return None
    pace = f"{_three_digits(np.nanmedian(seconds))} s per epoch"
    return pace + (f", {_three_digits(np.nanmedian(rates))} images per second" if rates.size else "") + " (medians)"


def _three_digits(value: np.floating[Any]) -> str:
    """1.25, 12.5, 125 and 1,250: `g` alone says 1.25e+03."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def _unfinished(member: MemberResults) -> str | None:
    lacking = member.row.folds - len(member.row.done)
    return f"{lacking} of {pluralize(member.row.folds, 'fold')} not finished" if lacking else None
