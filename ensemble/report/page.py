"""`ens report`: the page, section by section.

A section is a module of this package with `section(results)`, which gives what its template, templates/<name>.html,
is filled with: a dict; {"missing": "a line"} if there is nothing to show and a reader would miss it; None if nobody
would. The template holds what stands below the section's heading. It may use `results`, the macros of macros.html and
the filters of `environment`. No name, path or id is trusted: everything is escaped, unless a module made it as Markup.
"""

import re
import shlex
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ensemble import __version__
from ensemble.errors import UserError
from ensemble.escape import escaped
from ensemble.events import Events
from ensemble.files.atomic import write_text
from ensemble.plural import pluralize
from ensemble.progress import duration
from ensemble.report.attention import require_captum
from ensemble.report.run import RunResults, read_run
from ensemble.run import Run
from ensemble.run.outputs import inputs_of, require_output
from ensemble.scoring.bootstrap import Gain, Score
from ensemble.tables.layout import gain_cell, score_cell
from ensemble.trackers.results import log_report

# Modules are imported when their section is made: one of them needs torch, and reading a run does not.
SECTIONS = (
    ("verdict", "Verdict"),
    ("members", "Members and blends"),
    ("comparison", "Comparison"),
    ("cascades", "Cascades"),
    ("curves", "Learning curves"),
    ("classes", "Classes and confidence"),
    ("class_curves", "Precision, recall and ROC"),
    ("calibration", "Calibration by class and group"),
    ("certainty", "Certainty"),
    ("slices", "Where it fails"),
    ("unknown", "None of these"),
    ("images", "Images"),
    ("attention", "What a network looked at"),
    ("examples", "What the networks see"),
    ("data", "Data"),
    ("submissions", "Submissions"),
    ("provenance", "Provenance"),
)


def write_report(
    run: Run, output: Path | None, events: Events, against: Run | None = None, attention: bool = False
) -> Path:
    """Write the page to `output` (None: report.html in the run), atomically, and return where it is.

    against: a run that it is compared with
    attention: show what the best single member looked at, which takes captum and a second an image

    Raises UserError as `read_run` and `compare` do, if `against` is the run itself, if `output` can't be written, or if
    captum is not installed.
    """
    run.require()
    if against is not None:
        against.require()
        if against.path.resolve() == run.path.resolve():
            raise UserError(f"--against {against}: is the run itself; name another run")
    if attention:
        require_captum()
    path = output or run.report_html
    require_output(path, inputs_of(run), allowed=run.report_html, begins="<!doctype html>")
    text = render(replace(read_run(run, events), against=against, attention=attention), events)
    write_text(path, text)
    events.message(f"wrote {path} ({len(text.encode()) / 1e6:.1f} MB)")
    log_report(run, path, events)
    return path


def render(results: RunResults, events: Events) -> str:
    """The whole page as HTML; of equal results equal text."""
    pages = environment()
    sections = []
    for done, (name, title) in enumerate(SECTIONS):
        events.progress(f"the report's section {title!r}", done, len(SECTIONS))
        content: dict[str, Any] | None = import_module(f"ensemble.report.{name}").section(results)
        if content is None:
            continue
        if set(content) == {"missing"}:
            body = Markup('<p class="missing">{}</p>').format(content["missing"])
        else:
            body = Markup(pages.get_template(f"{name}.html").render(results=results, **content))
        sections.append({"name": name, "title": title, "body": body})
    text = pages.get_template("page.html").render(results=results, sections=sections, version=__version__)
    return escaped(text, lines=True)


def environment() -> Environment:
    """Templates with their filters: `cell` (a Score or Gain as `ens blend` prints it), `percent`, `count`,
    `plural` (3 rows), `duration`, `quote` (a path as a word of a command), `breakable` (a name that wraps at its
    separators), `unit` (a heading whose % stays with its last word)."""
    made = Environment(
        loader=PackageLoader("ensemble.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "cell": cell,
        "percent": percent,
        "count": "{:,}".format,
        "plural": pluralize,
        "duration": duration,
        "quote": lambda path: shlex.quote(str(path)),
        "breakable": breakable,
        "unit": lambda heading: heading.replace(" %", "\N{NO-BREAK SPACE}%"),
    }
    return made


def percent(share: float, digits: int = 2) -> str:
    """A share as percent, without the sign."""
    return f"{100 * share:.{digits}f}"


def breakable(name: str) -> Markup:
    """A name that may be broken after _ / . and -, not within a number. It is copied as it is."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/])|(?<=[.-])(?=[^\W\d_])", name))


def cell(value: Score | Gain | None, metric: str = "") -> Markup:
    """A score with its spread, its interval below; a gain with its interval; a dash for None."""
    if value is None:
        return Markup("–")
    if isinstance(value, Gain):
        first, rest = gain_cell(value).split(" ", 1)
        return Markup("{} <span class=ci>{}</span>").format(first, rest)
    line, ends = score_cell(metric, value).splitlines()
    first, spread = line.split(" ")
    spread = "" if spread == "±nan" else f" {spread}"
    return Markup("{}<span class=pm>{}</span><br><span class=ci>{}</span>").format(first, spread, ends)
