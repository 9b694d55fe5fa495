"""The bytes of a CSV as cells of text, whichever program saved it: encodings, delimiters, and what stands around.

Each step has one reading or is refused: bytes that could be Korean or Japanese, lines of unequal length.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence

from ensemble.data.names import ENDINGS

DELIMITERS = ",;\t|"
NO_DELIMITER = "\x1f"  # of a file of one column: a comma is part of its cells
SAMPLE_LINES = 200
BOMS = (
    (b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
EXCELS_OWN = re.compile(r"\Asep=(.)\r?\n")  # a first line of Excel's
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
PUNCTUATION = frozenset("‘’“”„–—…•°±²³µ·«»©®€£§¿¡ªº´\u00a0\u3000、。「」『』《》【】～！？（），：；")
ENDING = "|".join(ending[1:] for ending in sorted(ENDINGS))
# A line of "images/1.jpg 3": lists for Caffe and ImageNet are written so.
PATH_AND_LABEL = re.compile(rf"^(.*\.(?:{ENDING}))[ \t]+(\S+)$", re.IGNORECASE)


def decoded(raw: bytes) -> tuple[str, str | None]:
    """The text, and the encoding if it is neither UTF-8 nor marked. Raises ValueError where no encoding fits alone."""
    for mark, encoding in BOMS:
        if raw.startswith(mark):
            return raw.decode(encoding).removeprefix("\ufeff"), None
    if b"\0" in raw[:1000]:
        at = Counter(place % 2 for place, byte in enumerate(raw[:1000]) if byte == 0)
        if len(raw) % 2 or min(at[0], at[1]) > 0.1 * max(at[0], at[1]):
            raise ValueError("it holds zero bytes, as no text does")
        text = raw.decode("utf-16-le" if at[1] > at[0] else "utf-16-be")
        if CONTROL.search(text):
            raise ValueError("it holds zero bytes, as no text does")
        return text, None
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError as error:
        for encoding, fits in (("cp949", _is_korean), ("cp1252", _is_western)):
            try:
                text = raw.decode(encoding)
            except UnicodeDecodeError:
                continue
            if fits(text) and not CONTROL.search(text):
                return text, encoding
        raise ValueError(
            f"byte {error.start + 1} is not UTF-8, and it can't be told which other encoding is meant: save it as UTF-8"
        ) from None


def is_text(start: bytes) -> bool:
    """True for bytes with zeros among them that are UTF-16 or UTF-32."""
    try:
        decoded(start[: len(start) // 4 * 4] or start)  # whole letters
    except ValueError:
        return False
    return True


def _is_korean(text: str) -> bool:
    """Hangul of the old standard set (2,350 syllables) and little else: Japanese and Chinese bytes that are read as
    CP949 give rare syllables and hanja."""
    foreign = [letter for letter in text if ord(letter) > 127 and letter not in PUNCTUATION]
    common = sum("가" <= letter <= "힣" and _in_euc_kr(letter) for letter in foreign)
    return bool(foreign) and common >= 0.9 * len(foreign)


def _in_euc_kr(letter: str) -> bool:
    return len(letter.encode("euc_kr", errors="ignore")) == 2  # rarer syllables are spelt out in eight bytes


def _is_western(text: str) -> bool:
    """Single letters with accents within words: three in a row are the bytes of another script."""
    foreign = [letter for letter in text if ord(letter) > 127 and letter not in PUNCTUATION]
    latin = all(letter in "ŠšŽžŒœŸ" or ("À" <= letter <= "ÿ" and letter not in "×÷") for letter in foreign)
    return latin and re.search(r"[^\x00-\x7f]{3}", text) is None


def parsed(text: str) -> list[list[str]]:
    """The cells of each row, the first row's first; blank rows are left out. Raises ValueError that names a line."""
    delimiter = delimiter_of(text)
    text = EXCELS_OWN.sub("", text)
    if delimiter == NO_DELIMITER:
        lines = [line for line in text.splitlines() if line.strip()]
        pairs = [PATH_AND_LABEL.match(line.strip()) for line in lines]
        if pairs and all(pairs):
            return [[pair[1], pair[2]] for pair in pairs if pair is not None]
    rows = _split(text, delimiter)
    return [row for row in rows if any(cell.strip() for cell in row)]


def delimiter_of(text: str) -> str:
    """The one that the first line names, or that divides most lines as it does the first one; of several the one with
    most columns. A comma within numbers, or within a file of one column, divides the lines otherwise than the header.
    """
    if (found := EXCELS_OWN.match(text)) is not None:
        return found[1]
    lines = [line for line in text[:200_000].splitlines()[: SAMPLE_LINES + 1] if line.strip()][:SAMPLE_LINES]
    best, most = NO_DELIMITER, (False, 1)
    for delimiter in DELIMITERS:
        try:
            widths = [len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if row]
        except csv.Error:
            continue
        if not widths or widths[0] < 2:
            continue
        alike = sum(width in (widths[0], widths[0] + 1) for width in widths) > len(widths) / 2
        if (alike, widths[0]) > most:
            best, most = delimiter, (alike, widths[0])
    return best


def _split(text: str, delimiter: str) -> list[list[str]]:
    spaced = re.search(f'{re.escape(delimiter)} +"', text) is not None
    first = text.partition("\n")[0].strip()
    single = delimiter != NO_DELIMITER and all(
        len(cell) > 1 and cell[0] == cell[-1] == "'" for cell in first.split(delimiter)
    )

    def reader(strict: bool) -> list[list[str]]:
        lines = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, quotechar="'" if single else '"',
            skipinitialspace=spaced, strict=strict,
        )  # fmt: skip
        return list(lines)

    try:
        return reader(strict=True)
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise ValueError("a quote is opened and never closed") from None
    try:
        return reader(strict=False)
    except csv.Error as error:
        raise ValueError(str(error)) from None


def shaped(rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows below, all as long as the header. Left out: a delimiter at the end of every line, and a
    column that repeats another. Raises ValueError for a row that is longer, and for two columns of one name."""
    header = list(rows[0])
    while len(header) > 1 and not any("".join(row[len(header) - 1 :]).strip() for row in rows):
        header.pop()
    long = next((number for number, row in enumerate(rows) if "".join(row[len(header) :]).strip()), None)
    if long is not None:
        if max(map(len, rows)) == len(header) + 1 and counts([row[0] for row in rows[1:]]):
            header = ["", *header]  # R's write.table names no column of row numbers
        else:
            raise ValueError(
                f"row {long} has {len(rows[long])} cells where the header has {len(header)}: put quotes around a cell "
                "that holds the delimiter"
            )
    width = len(header)
    body = [[*row[:width], *[""] * (width - len(row))] for row in rows[1:]]
    names = [name if name.strip() else f"Unnamed: {place}" for place, name in enumerate(header)]
    kept: dict[str, int] = {}
    for place, name in enumerate(names):
        first = kept.setdefault(name, place)
        if any(row[first] != row[place] for row in body):
            raise ValueError(
                f"columns {first + 1} and {place + 1} are both named {name!r} and hold different values: rename one"
            )
    if len(kept) == width:
        return names, body
    return list(kept), [[row[place] for place in kept.values()] for row in body]


def counts(cells: Sequence[str]) -> bool:
    """True for 0, 1, 2, ... and 1, 2, 3, ...: numbers of rows."""
    return any(all(cell.strip() == str(start + row) for row, cell in enumerate(cells)) for start in (0, 1))
