"""Text that others wrote (names of files, classes, members, columns), as it may reach a terminal, a log or a page.

It is called where output leaves ens, not where a name is put into a sentence: there it would be forgotten.
"""

import re

# Control characters (a terminal obeys them), half pairs (of a file name that is not UTF-8), line and paragraph
# separators, and what turns the reading direction or has no width: with them one name looks like another. The joiners
# U+200C and U+200D stay: Persian and many emoji are written with them.
HIDDEN = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff"
)
IN_LINES = re.compile(f"[{HIDDEN}]")
IN_A_LINE = re.compile(f"[{HIDDEN}\t\n]")


def shortened(text: str, length: int = 60) -> str:
    """`text`, cut to at most so many characters for a line of a message."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def escaped(text: str, lines: bool = False) -> str:
    """`text` on one line, with what can't be seen in it as Python writes it: \\x1b, \\u202e.

    lines: line breaks and tabs stay.
    """
    return (IN_LINES if lines else IN_A_LINE).sub(lambda found: found[0].encode("unicode_escape").decode(), text)
