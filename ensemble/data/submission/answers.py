"""What the cells of a sample submission ask for: class names, in their spelling, class numbers, or a probability."""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ensemble.data.classes import is_number, listed, reader
from ensemble.errors import UserError

SEPARATORS = (" | ", "|", "; ", ";", ", ", ",", "\t", " ")  # between several answers in one cell
CASES: tuple[Callable[[str], str], ...] = (str, str.lower, str.upper, str.capitalize, str.title)
CHOOSE = (
    "write the sample with class names, class numbers (0 is the first), or probabilities, or say what is meant with "
    "--form label or --form index"
)
JOINTS: tuple[tuple[str, str], ...] = (("", ""), (" ", "_"), ("_", " "), (" ", "-"), ("-", " "), ("_", "-"), ("-", "_"))


@dataclass(frozen=True)
class Answer:
    """How a sample submission writes an answer.

    form: "label", "index" or "probability" (of the second of two classes).
    written: what stands for each of C classes.
    count: answers in a cell, the likeliest first.
    separator: what stands between them.
    description: all of this in words.
    notes: lines on what was odd.
    """

    form: str
    written: tuple[str, ...] = ()
    count: int = 1
    separator: str = ""
    description: str = ""
    notes: tuple[str, ...] = ()


def read_answer(texts: Sequence[str], classes: tuple[str, ...], form: str | None, where: str) -> Answer:
    """What cells of these different texts (stripped, none empty) hold, or the `form` that is asked for.

    A sample is filled with dummies: where the classes are numbers themselves, its numbers say nothing about the form,
    and names are written. where: the file and column, for errors. Raises UserError, with what can be written, if the
    texts are neither names, numbers nor probabilities.
    """
    if form == "probability" or (form is None and len(classes) == 2 and _shares(texts, classes)):
        if len(classes) != 2:
            raise UserError(
                f"{where} is one column, which can hold the probability of one of two classes; there are {len(classes)}"
            )
        return Answer("probability", description=f"the probability of {classes[1]!r}")
    count, separator, tokens = _several(texts, classes, form, where)
    if form is None:
        form = _form(tokens, classes)
    if form == "index":
        first = 0 if any(map(is_number, classes)) else _first_number(tokens, len(classes))
        written = tuple(str(number) for number in range(first, first + len(classes)))
        pairs = listed(f"{number} = {name}" for number, name in zip(written, classes, strict=True))
        return _counted(Answer("index", written, count, separator, f"class numbers: {pairs}"), len(classes))
    names, notes = (classes, ()) if form == "label" else _spelling(tokens, classes, where)
    spelt = "as in the training labels" if names == classes else "spelt as in the sample"
    if count > 1 and any(separator in name for name in names):
        raise UserError(
            f"{where} has {count} answers per cell with {separator!r} between them, which is also part of class names"
        )
    description = f"class names {spelt}: {listed(names)}"
    return _counted(Answer("label", names, count, separator, description, notes), len(classes))


def _counted(answer: Answer, classes: int) -> Answer:
    if answer.count == 1:
        return answer
    count = min(answer.count, classes)
    description = f"the {count} likeliest {answer.description.partition(':')[0]}, {answer.separator!r} between them:"
    return Answer(
        answer.form,
        answer.written,
        count,
        answer.separator,
        description + answer.description.partition(":")[2],
        answer.notes,
    )


def _several(
    texts: Sequence[str], classes: tuple[str, ...], form: str | None, where: str
) -> tuple[int, str, list[str]]:
    """How many answers a cell holds, what is between them, and the different ones. Raises UserError if cells differ in
    how many."""
    known = reader(classes)
    if texts and not all(known(text) is not None for text in texts):
        for separator in SEPARATORS:
            cells = [[part.strip() for part in text.split(separator)] for text in texts]
            tokens = list(dict.fromkeys(token for cell in cells for token in cell))
            if max(map(len, cells)) < 2:
                continue
            fits = all(known(token) is not None for token in tokens) or all(map(_whole, tokens))
            if fits and len({len(cell) for cell in cells}) > 1:
                if form is not None:
                    break
                raise UserError(
                    f"{where} has cells with different numbers of answers ({texts[0]!r}, ...): ens can't tell how many "
                    "to write; --form label writes one"
                )
            if fits:
                return len(cells[0]), separator, tokens
    return 1, "", list(texts)


def _form(tokens: Sequence[str], classes: tuple[str, ...]) -> str | None:
    """ "index" where names are no numbers and the sample's answers are; "label" where both are numbers, or nothing is
    filled in; None where the answers are words."""
    if not tokens or set(tokens) <= set(classes):
        return "label"
    if not all(map(is_number, tokens)):
        return None
    if all(map(is_number, classes)):
        return "label"
    possible = all(map(_whole, tokens)) and not any(map(is_number, classes))
    numbers = {int(float(token)) for token in tokens} if possible else {len(classes) + 1}
    return "index" if numbers == {-1} or (min(numbers) >= 0 and max(numbers) <= len(classes) - (0 in numbers)) else None


def _first_number(tokens: Sequence[str], classes: int) -> int:
    """1 if the sample counts the classes from 1, as it shows by the number of the last and no 0."""
    numbers = {int(float(token)) for token in tokens if _whole(token)}
    return int(max(numbers, default=0) == classes and min(numbers) >= 1)


def _spelling(tokens: Sequence[str], classes: tuple[str, ...], where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes' names as the sample spells them, and lines on what is no class. Raises UserError if that can't be
    told."""
    known = reader(classes)
    odd = [token for token in tokens if known(token) is None]
    dummy = len(tokens) == 1 and re.search(r"\s", tokens[0]) is None and not _holds_class(tokens[0], classes)
    if odd and (any(map(is_number, odd)) or (len(odd) == len(tokens) and not dummy)):
        verb = "is" if len(tokens) == 1 else "are"
        raise UserError(
            f"{where} holds {', '.join(map(repr, tokens[:3]))}, which {verb} neither classes ({listed(classes)}) nor "
            f"their numbers from 0{nearest(odd[0], classes)}; {CHOOSE}"
        )
    notes = (f"warning: {where} holds {odd[0]!r}, which is no class{nearest(odd[0], classes)}",) if odd else ()
    return _respelt([token for token in tokens if token not in odd], classes, where), notes


def _respelt(tokens: Sequence[str], classes: tuple[str, ...], where: str) -> tuple[str, ...]:
    known = reader(classes)
    if set(tokens) <= set(classes):
        return classes
    named = {known(token): token for token in tokens}
    if len(named) == len(classes) == len(tokens):
        return tuple(named[number] for number in range(len(classes)))
    for joints in (JOINTS[:1], JOINTS):
        spelt = {tuple(case(name.replace(*joint)) for name in classes) for case in CASES for joint in joints}
        fits = [names for names in spelt if set(tokens) <= set(names) and len(set(names)) == len(names)]
        if len(fits) == 1:
            return fits[0]
        if fits:
            break
    odd = next(token for token in tokens if token not in classes)
    raise UserError(
        f"{where} holds {odd!r} for the class {classes[known(odd) or 0]!r}, and how it spells the other classes can't "
        "be told: --form label writes all names as in the training labels"
    )


def _holds_class(text: str, classes: Sequence[str]) -> bool:
    """True of "[cat]" or "class_cat": some other spelling of a class, which has to be told."""
    inner = text.casefold()
    return any(len(name) > 2 and name.casefold() in inner for name in classes)


def nearest(text: str, classes: Sequence[str]) -> str:
    near = difflib.get_close_matches(text.casefold(), [name.casefold() for name in classes], n=1)
    return f" (the nearest is {next(name for name in classes if name.casefold() == near[0])!r})" if near else ""


def _whole(text: str) -> bool:
    return is_number(text) and float(text).is_integer()


def _shares(texts: Sequence[str], classes: tuple[str, ...]) -> bool:
    """Numbers from 0 to 1 that are neither classes nor, all of them, written as whole numbers."""
    numbers = all(map(is_number, texts)) and all(0 <= float(text) <= 1 for text in texts)
    whole = all(map(_whole, texts)) if any(map(is_number, classes)) else all(text.isdigit() for text in texts)
    return bool(texts) and numbers and not whole and not set(texts) <= set(classes)
