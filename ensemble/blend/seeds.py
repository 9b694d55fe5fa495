"""How much another seed moves a score, from members that are seeds of one backbone. Never imports torch."""

import re
from collections.abc import Mapping
from itertools import combinations

import numpy as np

from ensemble.run import Run
from ensemble.scoring.cross_fit import standard_error


def seed_groups(run: Run, members: list[str]) -> list[list[str]]:
    """The members that are one backbone's seeds, as `seeds` of the experiment file names them (NAME, NAME-2, ...): at
    least two, trained with the same settings."""
    found = []
    for name in members:
        seeds = [name, *(other for other in members if re.fullmatch(rf"{re.escape(name)}-\d+", other))]
        settings = run.member(name).read_settings()
        same = [seed for seed in seeds if run.member(seed).read_settings() == settings]
        if len(same) > 1:
            found.append(same)
    return found


def seed_deviation(values: np.ndarray, clusters: np.ndarray) -> float:
    """Standard deviation over S seeds of the mean of values (S, N), without what the rows add to it; 0 where they are
    all of it. clusters: int64 (N,), of rows that are not independent."""
    noise = [standard_error(a - b, clusters) ** 2 / 2 for a, b in combinations(values, 2)]
    return float(np.sqrt(max(0.0, values.mean(axis=1).var(ddof=1) - float(np.mean(noise)))))


def seed_lines(
    right: Mapping[tuple[Run, str], np.ndarray], losses: Mapping[tuple[Run, str], np.ndarray], clusters: np.ndarray
) -> tuple[str, ...]:
    """A line for each backbone of several seeds. right, losses: of each member, (N,), whether each row is predicted
    right, and its loss in nats."""
    lines = []
    for run in dict.fromkeys(run for run, _ in right):
        for seeds in seed_groups(run, [name for of, name in right if of == run]):
            each = [np.stack([found[run, name] for name in seeds]).astype(np.float64) for found in (right, losses)]
            accuracy, loss = (seed_deviation(values, clusters) for values in each)
            lines.append(
                f"another seed: over the {len(seeds)} of {run.path / seeds[0]}, accuracy varies by "
                f"{100 * accuracy:.2f} points and log loss by {loss:.4f} (standard deviation, without what the rows "
                "add; rough)"
            )
    return tuple(lines)
