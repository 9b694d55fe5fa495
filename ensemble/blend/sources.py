"""Where the members of a blend of several runs lie, and which of their networks go together. Never imports torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.errors import UserError
from ensemble.files.mirror import display_name, url_of
from ensemble.files.reading import Count
from ensemble.run import Member, Run


@dataclass(frozen=True)
class Sources:
    """The runs of a blend's members. Those of the run that the blend is saved in have their plain names, those of
    another run the names RUN/MEMBER.

    others: RUN -> that run's directory, seen from the one that the blend is saved in.
    sets: "" for the run itself, and each RUN -> the fold of its networks in each of the S sets that the blend is
        applied to at prediction.
    """

    others: dict[str, str]
    sets: dict[str, tuple[Count, ...]]

    def folds_of(self, member: str) -> tuple[int, ...]:
        """The fold of the member's network in each set."""
        return self.sets[member.rpartition("/")[0]]

    def are_folds(self, parts: int) -> bool:
        """Whether each set is of the networks that never saw the rows of one fold, which is the same fold in all runs.
        parts: the number of folds that the blend was cross-fitted over."""
        return all(len(set(folds)) == len(folds) == parts for folds in self.sets.values())


def require_sources(sources: Sources, members: Sequence[str], external: Sequence[str]) -> None:
    """Raise ValueError if a member's run is not named, or if the sets don't go together."""
    lacking = [name for name in members if name not in external and name.rpartition("/")[0] not in sources.sets]
    if lacking:
        raise ValueError(f"no run is named for {lacking[0]}")
    if set(sources.sets) != {"", *sources.others} or len({len(folds) for folds in sources.sets.values()}) != 1:
        raise ValueError("its runs and their sets of folds don't go together")
    if not sources.sets[""]:
        raise ValueError("it has no set of folds")


def source(run: Run, sources: Sources | None, member: str) -> Member:
    """The directory of a member of a blend that `run` holds. Raises UserError if that of another run is gone."""
    name, _, plain = member.rpartition("/")
    if not name or sources is None:
        return run.member(member)
    other = Run(_place(run, sources.others[name]))
    if not other.folds_csv.is_file():
        raise UserError(
            f"{other}: is no run directory, but a blend of {run} holds its member {plain!r}; bring it back there, or "
            f"fit the blend again with: ens blend {run} RUN"
        )
    return other.member(plain)


def other_runs(run: Run, sources: Sources | None) -> list[Run]:
    """The other runs of a blend that `run` holds, whether they are there or not."""
    return [] if sources is None else [Run(_place(run, saved)) for saved in sources.others.values()]


def seen_from(run: Run, other: Run) -> str:
    """The directory of another run, as it is saved: relative, so that both may be moved together."""
    try:
        return Path(os.path.relpath(other.path.resolve(), run.path.resolve())).as_posix()
    except ValueError:  # on another drive
        return other.path.resolve().as_posix()


def _place(run: Run, saved: str) -> Path | str:
    """The directory that `seen_from` saved; relative to the working directory where the run's own is named so. The URL
    of one on an object store."""
    if url_of(run.path) is not None:
        return display_name(Path(os.path.normpath(run.path / saved)))
    found = Path(os.path.normpath(run.path.resolve() / saved))
    return found if run.path.is_absolute() else Path(os.path.relpath(found))


def run_names(runs: Sequence[Run]) -> dict[Run, str]:
    """What each run is called in the names of its members: "" for the first, else its directory's name, with a number
    where two of these have the same."""
    names: dict[Run, str] = {}
    for run in runs:
        name = plain = run.path.resolve().name
        number = 1
        while name in names.values():
            number += 1
            name = f"{plain}-{number}"
        names[run] = name if names else ""
    return names
