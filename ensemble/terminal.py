"""Lines on a terminal are broken between words; a file or a pipe gets each of them whole."""

import re
import shutil
import sys
import textwrap

COMMAND = re.compile(r"\bens [a-z][a-z-]+\b[^;,)]*")
INDENT = "  "  # of what goes on


def print_line(text: str) -> None:
    """`text`, of one line or more, with nothing in it that a terminal obeys; see `escape`."""
    if sys.stdout.isatty():
        text = wrapped(text, shutil.get_terminal_size().columns)
    print(text, flush=True)


def wrapped(text: str, width: int) -> str:
    """`text` in lines of at most `width` characters, but with commands in one piece, as they are copied."""
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())] + INDENT
        line = COMMAND.sub(lambda found: found[0].replace(" ", "\0"), line)
        lines += textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ) or [""]
    return "\n".join(lines).replace("\0", " ")
