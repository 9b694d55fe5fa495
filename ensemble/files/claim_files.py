"""The files of a claim (`ensemble.files.claims`): who holds it, and the count by which the holder shows that it
lives."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.files import shared
from ensemble.files.process import Process, parse_process, this_process


@dataclass(frozen=True)
class FoundClaim:
    """A claim as it is on disk.

    text: of the claim; empty for a moment after it was created
    count: of its holder; empty before the first one
    """

    generation: int
    text: bytes
    count: bytes

    def __str__(self) -> str:
        return "another process" if self.process is None else str(self.process)

    @property
    def id(self) -> str:
        return _parsed(self.text)[0]

    @property
    def process(self) -> Process | None:
        return _parsed(self.text)[1]


def claim_file(path: Path, generation: int) -> Path:
    """Says who holds the claim `path`."""
    return path.with_name(f"{path.name}-{generation}")


def count_file(path: Path, generation: int, id: str) -> Path:
    """Holds the count of the holder."""
    return path.with_name(f"{path.name}-{generation}.{id}")


def claim_text(id: str) -> bytes:
    """What a claim of this process says."""
    return json.dumps({"id": id, **vars(this_process())}).encode()


def _parsed(text: bytes) -> tuple[str, Process | None]:
    """The id and the process of a claim; "" and None of one that says nothing (yet)."""
    try:
        about = json.loads(text)
        id = about.pop("id")
        return (id, parse_process(about)) if re.fullmatch(r"\w+", id) else ("", None)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "", None


def read_claims(path: Path, pauses: Sequence[float] | None = None) -> list[FoundClaim]:
    """The claims of this name that are there, by their generations."""
    pattern = re.compile(rf"{re.escape(path.name)}-\d+(\.\w+)?")
    texts: dict[int, bytes] = {}
    counts: dict[tuple[int, str], bytes] = {}

    def is_one(name: str) -> bool:
        return pattern.fullmatch(name) is not None

    for name, content in shared.contents(path.parent, is_one, pauses).items():
        generation, _, id = name.removeprefix(f"{path.name}-").partition(".")
        if id:
            counts[int(generation), id] = content
        else:
            texts[int(generation)] = content
    found = [FoundClaim(generation, text, b"") for generation, text in sorted(texts.items())]
    return [FoundClaim(each.generation, each.text, counts.get((each.generation, each.id), b"")) for each in found]


def remove_claim(path: Path, generation: int, id: str, pauses: Sequence[float] | None = None) -> None:
    """Remove a claim; its count first, which nobody would find without it."""
    if id:
        shared.delete(count_file(path, generation, id), pauses)
    shared.delete(claim_file(path, generation), pauses)
