"""Lines on a terminal are broken between words; a file or a pipe gets each of them whole."""

import re
import shutil
import sys

# Up to a comma between words, a semicolon or a bracket; "older ens that ..." is none.
COMMAND = re.compile(r"(?:(?<=: )ens [a-z-]+|\bens [a-z-]+(?= \S*[/._A-Z-]))(?:[^;,)]|,(?=\S))*")
INDENT = "  "  # of what goes on


def print_line(text: str) -> None:
    """`text`, of one line or more, with nothing in it that a terminal obeys; see `escape`."""
    isatty = getattr(sys.stdout, "isatty", None)  # without one: a closed output, or a script's own
    if isatty is not None and isatty():
        text = wrapped(text, shutil.get_terminal_size().columns)
    print(text, flush=True)


def wrapped(text: str, width: int) -> str:
    """`text` in lines of at most `width` columns, but with commands in one piece, as they are copied."""
    from rich.cells import cell_len

    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())] + INDENT
        filled = ""
        for word in re.findall(r"\s*\S+", COMMAND.sub(lambda found: found[0].replace(" ", "\0"), line)):
            if filled and cell_len((filled + word).replace("\0", " ")) > width:
                lines.append(filled)
                filled, word = indent, word.lstrip()
            filled += word
        lines.append(filled)
    return "\n".join(lines).replace("\0", " ")
