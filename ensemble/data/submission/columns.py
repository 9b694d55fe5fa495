"""What the columns of a sample submission ask for, beside its ids."""

import re
from dataclasses import dataclass, replace

from ensemble.data.classes import class_columns, is_number, listed, reader
from ensemble.data.submission.answers import Answer, nearest, read_answer
from ensemble.data.submission.sample import Asked, SampleSubmission
from ensemble.errors import UserError

CONFIDENCE = re.compile(r"conf|prob|score|certain|likelihood", re.IGNORECASE)
RANKED = re.compile(r"top|label|rank|pred|choice|guess|answer", re.IGNORECASE)  # of label1, label2, ...
WRITES = (
    "ens writes one column of class names or numbers (several in a cell if the sample shows them), the same beside a "
    "column named like 'confidence', one column per class that is named after it, a column for each of the likeliest "
    "classes (label1, label2, ...), or one row per image and class"
)


@dataclass(frozen=True)
class Column:
    """A column of a submission.

    name: its header as it is written.
    holds: "id", "copied" (the sample's own cells), "answer", "probability" or "confidence" (of the answer).
    number: the class of a probability, or the rank of an answer.
    """

    name: str
    holds: str
    number: int = 0


def read_columns(
    asked: Asked, places: list[int], classes: tuple[str, ...], form: str | None
) -> tuple[Answer, list[Column]]:
    """What the columns at `places` hold. Raises UserError if that can't be told or is not the `form`."""
    sample, path = asked.sample, asked.sample.path
    headers = [sample.header[place] for place in places]
    names = [header.strip() for header in headers]
    if asked.row_image is not None:
        filled = len(names) == 1 and all(map(is_number, sample.texts(places[0])))
        if not filled or form in ("label", "index"):
            raise UserError(
                f"{path}: has one row per image and class, which takes one column of probabilities; {WRITES}"
            )
        return Answer("probability", description="one probability per row, of its image and class"), [
            Column(headers[0], "probability")
        ]

    found = class_columns(classes, names, path) or _by_place(sample, places, names, classes)
    if found is not None and len(found) == len(names) and form in (None, "probability"):
        columns = {place: Column(headers[place], "probability", number) for number, place in enumerate(found)}
        pairs = listed(f"{names[place]} = {name}" for place, name in zip(found, classes, strict=True))
        exact = all(names[place] == name for place, name in zip(found, classes, strict=True))
        description = "one probability per class" + ("" if exact else f" ({pairs})")
        return Answer("probability", description=description), [columns[place] for place in range(len(names))]

    sure = [place for place, name in enumerate(names) if CONFIDENCE.search(name)]
    if len(names) == 2 and len(sure) == 1 and form != "probability":
        other = 1 - sure[0]
        answer = read_answer(sample.texts(places[other]), classes, form, f"{path}: {names[other]!r}")
        if answer.form != "probability" and answer.count == 1:
            columns = {other: Column(headers[other], "answer"), sure[0]: Column(headers[sure[0]], "confidence")}
            what, _, which = answer.description.partition(":")
            description = f"{what} with their probabilities in {names[sure[0]]!r}:{which}"
            return replace(answer, description=description), [columns[0], columns[1]]

    if len(names) == 1:
        column, answer = _one_column(sample, places[0], classes, form)
        return answer, [column]

    if form in (None, "label") and _are_ranks(sample, places, names, classes):
        texts = list(dict.fromkeys(text for place in places for text in sample.texts(place)))
        answer = read_answer(texts, classes, form, f"{path}: {names[0]!r} to {names[-1]!r}")
        description = f"the {len(names)} likeliest {answer.description}"
        return replace(answer, description=description), [
            Column(header, "answer", rank) for rank, header in enumerate(headers)
        ]
    if form in ("label", "index"):
        raise UserError(f"a {form} needs one column beside the id; the header has: {', '.join(names)}")
    raise UserError(_not_understood(sample, names, classes))


def _one_column(
    sample: SampleSubmission, place: int, classes: tuple[str, ...], form: str | None
) -> tuple[Column, Answer]:
    """What the one column beside the ids holds. Of two classes it may have the probability of that which its header
    names, else of the second."""
    header, texts = sample.header[place], sample.texts(place)
    where = f"{sample.path}: {header.strip()!r}"
    if form is None and texts and CONFIDENCE.search(header) and all(map(is_number, texts)):
        form = "probability"
    words = {word.casefold() for word in (header.strip(), *re.split(r"[\W_]+|(?<=\D)(?=\d)", header))}
    named = [number for number, name in enumerate(classes) if name.casefold() in words]
    answer = read_answer(texts, classes, form, where)
    if answer.form == "probability":
        number = named[0] if len(named) == 1 else 1
        return Column(header, "probability", number), replace(
            answer, description=f"the probability of {classes[number]!r}"
        )
    if form is None and answer.form == "index" and named == [0] and len(classes) == 2:
        raise UserError(
            f"{where} is named after the class {classes[0]!r} and holds whole numbers: say with --form probability "
            f"that its probability is meant, or with --form index that {classes[0]!r} is 0 and {classes[1]!r} is 1"
        )
    return Column(header, "answer"), answer


def _by_place(
    sample: SampleSubmission, places: list[int], names: list[str], classes: tuple[str, ...]
) -> list[int] | None:
    """Columns that are numbered as the classes are, from 0 or from 1, perhaps with a common text before the number;
    None where classes are numbers themselves, or a column's cells are none."""
    if len(names) != len(classes) or any(map(is_number, classes)):
        return None
    found = [re.fullmatch(r"(.*?)0*(\d+)", name) for name in names]
    stems = {match[1] for match in found if match}
    if not all(found) or len(stems) > 1 or RANKED.search(next(iter(stems))):
        return None
    numbers = [int(match[2]) for match in found if match]
    filled = all(is_number(text) for place in places for text in sample.texts(place))
    if not filled or sorted(numbers) not in (list(range(len(names))), list(range(1, len(names) + 1))):
        return None
    return [numbers.index(number) for number in sorted(numbers)]


def _are_ranks(sample: SampleSubmission, places: list[int], names: list[str], classes: tuple[str, ...]) -> bool:
    """label1, label2, ...: numbered in their order, fewer than the classes or as many, and every cell names a class."""
    found = [re.fullmatch(r"(.*?)0*(\d+)(.*)", name) for name in names]
    stems = {(match[1], match[3]) for match in found if match}
    numbers = [int(match[2]) for match in found if match]
    known = reader(classes)
    return (
        len(numbers) == len(names)
        and len(stems) == 1
        and len(names) <= len(classes)
        and numbers in (list(range(len(names))), list(range(1, len(names) + 1)))
        and all(known(text) is not None for place in places for text in sample.texts(place))
    )


def _not_understood(sample: SampleSubmission, names: list[str], classes: tuple[str, ...]) -> str:
    known = reader(classes)
    read = {known(name) for name in names}
    lacking = [name for number, name in enumerate(classes) if number not in read]
    odd = [name for name in names if known(name) is None]
    faults = [f"without a column: {listed(lacking)}"] if lacking else []
    if odd:
        faults.append(f"no class: {listed(f'{name!r}{nearest(name, classes)}' for name in odd)}")
    why = f" ({'; '.join(faults)})" if len(lacking) < len(classes) else ""
    return (
        f"{sample.path}: its {len(names)} answer columns are not the {len(classes)} classes: {listed(names)}{why}; "
        f"{WRITES}"
    )
