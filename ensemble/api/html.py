"""How results look in a notebook: small tables, every text of which is escaped."""

from collections.abc import Iterable, Sequence
from html import escape

from ensemble.escape import escaped


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a line break in a cell stays one."""
    head = "".join(f"<th>{_text(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    style = ' style="caption-side: top; text-align: left"'
    return (
        f"<table><caption{style}>{_text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def lines(texts: Iterable[str]) -> str:
    """Each text as a line of its own."""
    return "".join(f"<div>{_text(text)}</div>" for text in texts)


def _text(text: str) -> str:
    return escape(escaped(text, lines=True)).replace("\n", "<br>")
