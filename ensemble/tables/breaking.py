"""Where a name or a path is broken that is too wide for its column: after a space, else after a separator, the slash of
a path first, else anywhere."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

# What a piece ends with; pieces of the next level are looked for only where one of this level is too wide.
LEVELS = (
    re.compile(r"\S*\s+|\S+"),
    re.compile(r"[^/\\]*[/\\]+|[^/\\]+"),
    re.compile(r"[^-_.,:;=+]*[-_.,:;=+]+|[^-_.,:;=+]+"),
)


@dataclass(frozen=True)
class Breakable:
    """A cell of a table, of one or more lines; the parts of a broken line keep its indentation, that after an arrow
    too."""

    text: Text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widths = [cell_len(line) for line in self._broken(options.max_width).plain.split("\n")]
        return Measurement(min(1, *widths), max(widths))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._broken(options.max_width)

    def _broken(self, width: int) -> Text:
        lines = [part for line in self.text.split("\n", allow_blank=True) for part in _broken_line(line, width)]
        return Text("\n", no_wrap=True, overflow="fold").join(lines)


def _broken_line(line: Text, width: int) -> Iterator[Text]:
    begins = re.match(r"\s*(?:-> )?", line.plain)
    indent = begins.end() if begins and begins.end() < width / 2 else 0
    starts, at, filled = [], indent, indent
    for piece in _pieces(line.plain[indent:], width - indent):
        if filled > indent and filled + cell_len(piece.rstrip()) > width:
            starts.append(at)
            filled = indent
        at += len(piece)
        filled += cell_len(piece)
    for number, part in enumerate(line.divide(starts)):
        part.rstrip()
        yield Text(" " * indent * (number > 0)) + part


def _pieces(text: str, width: int, level: int = 0) -> Iterator[str]:
    """The parts of `text` between which it may be broken, each at most `width` cells wide without the spaces after
    it."""
    if level == len(LEVELS):
        yield from chop_cells(text, max(width, 2))
        return
    for piece in LEVELS[level].findall(text):
        if cell_len(piece.rstrip()) <= width:
            yield piece
        else:
            yield from _pieces(piece, width, level + 1)
