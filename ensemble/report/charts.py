"""Charts as inline SVG: drawn by matplotlib, coloured by the page.

Marks are drawn in colours that stand for the page's CSS variables and are replaced by them, so that a chart follows
the light and the dark theme. Text stays text, in the page's fonts; names that users gave never come here (matplotlib
lacks glyphs for some scripts), they stand in the HTML beside a chart. Equal charts give equal bytes.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, LINE, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES = tuple(f"#0{number}0505" for number in range(1, 7))
VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", PAPER: "--paper"} | {
    colour: f"--c{number}" for number, colour in enumerate(SERIES, 1)
}
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ens",
    "font.size": 9.0,
    "font.family": ["DejaVu Sans"],  # measured with matplotlib's own; shown in the page's
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.0,
    "axes.titlecolor": MUTED,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.5,
}


def new_chart(width: float = 3.4, height: float = 2.2, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` axes, one above the other with a common x axis; inches, of 100 px on the page."""
    with rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    figure.patch.set_visible(False)
    for one in axes:
        one.patch.set_visible(False)
    return figure, list(axes)


def svg(figure: Figure, key: str, label: str) -> Markup:
    """The figure as one <svg>. key: unique on the page, made part of its ids. label: what it shows, for a reader who
    can't see it."""
    buffer = io.StringIO()
    with rc_context(SETTINGS):
        figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    width = float(re.findall(r' width="([\d.]+)pt"', text)[0]) * 100 / 72
    box = re.findall(r'viewBox="([^"]+)"', text)[0]
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r"(?:url\(#|href=\"#)([\w-]+)", body))
    body = re.sub(r' id="([\w.-]+)"', lambda found: f' id="{key}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{key}-", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    # The colours of attributes are no CSS: only a style knows variables.
    body = re.sub(r' (fill|stroke)="(var\([^"]+)"', r' style="\1: \2"', body)
    body = re.sub(r"\n\s*", "\n", body)
    head = (
        f'<svg class="chart" role="img" aria-label="{escape(label)}" viewBox="{box}" style="max-width:{width:.0f}px">'
    )
    return Markup(head + body)


def histogram(
    values: np.ndarray, key: str, label: str, xlabel: str, bins: int | Sequence[float] = 30, log: bool = False
) -> Markup:
    """A histogram of `values`, float (N,). log: with a logarithmic x axis."""
    figure, (axes,) = new_chart(4.6, 2.2)
    with rc_context(SETTINGS):
        edges: int | Sequence[float] | np.ndarray = bins
        if log and isinstance(bins, int):
            low, high = float(values.min()), float(values.max())
            edges = np.geomspace(low, high if high > low else low * 1.1, bins + 1)
            axes.set_xscale("log")
        axes.hist(values, bins=edges, color=SERIES[0])  # type: ignore[arg-type]
        axes.set_xlabel(xlabel)
    return svg(figure, key, label)


def csv_uri(rows: Iterable[Sequence[Any]]) -> str:
    """A table as a data URI, for a link that saves it: the page stays one file and asks no network."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return f"data:text/csv;charset=utf-8,{quote(text.getvalue(), safe=',._-')}"
