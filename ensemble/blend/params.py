"""What a saved blend's numbers must be: one of another shape would raise far from its file or, worse, broadcast.

Each function takes the saved values by key and returns the one of `key`; each raises ValueError that names what it is
and what it should be.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

MOST = 1e30  # of any number: some are computed with in float32


def number(params: Mapping[str, Any], key: str) -> float:
    found = params.get(key)
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) < MOST:
        raise ValueError(f"{key} is {short(found)}, want a finite number")
    return found


def count(params: Mapping[str, Any], key: str) -> int:
    found = params.get(key)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < MOST:
        raise ValueError(f"{key} is {short(found)}, want a whole number of 0 or more")
    return found


def optional_number(params: Mapping[str, Any], key: str) -> float | None:
    """Any number or NaN; None where it lacks."""
    found = params.get(key)
    if found is not None and (isinstance(found, bool) or not isinstance(found, int | float)):
        raise ValueError(f"{key} is {short(found)}, want a number")
    return found


def one_of(params: Mapping[str, Any], key: str, known: Collection[str]) -> str:
    found = params.get(key)
    if not isinstance(found, str) or found not in known:
        raise ValueError(f"{key} is {short(found)}, want one of: {', '.join(known)}")
    return found


def numbers_by_name(params: Mapping[str, Any], key: str, known: Collection[str]) -> dict[str, float]:
    found = params.get(key)
    if not isinstance(found, dict):
        raise ValueError(f"{key} is {short(found)}, want numbers by name")
    for name in found:
        if name not in known:
            raise ValueError(f"{key} names {short(name)}, want some of: {', '.join(known)}")
        number(found, name)
    return found


def array(
    params: Mapping[str, Any], key: str, shape: tuple[int, ...], kind: str = "f", least: float = -MOST
) -> np.ndarray:
    """kind: as in `numpy.dtype.kind`. least: what no number may be below."""
    found = params.get(key)
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{key} is {short(found)}, want an array {shape}")
    if found.shape != shape or found.dtype.kind != kind:
        numbers = "floats" if kind == "f" else "integers"
        raise ValueError(f"{key} is {found.dtype} {found.shape}, want {numbers} {shape}")
    if not ((found >= least) & (found < MOST)).all():
        raise ValueError(f"{key} holds a number that is NaN or infinite")
    return found


def simplex(params: Mapping[str, Any], members: int) -> np.ndarray:
    """`weights` float (M,), 0 or more, not all 0."""
    found = array(params, "weights", (members,))
    if (found < 0).any() or not found.any():
        raise ValueError("weights are negative, or all 0")
    return found


def inverse_temperatures(params: Mapping[str, Any], members: int) -> np.ndarray:
    """`inverse_temperatures` float (M,), above 0."""
    found = array(params, "inverse_temperatures", (members,))
    if not (found > 0).all():
        raise ValueError("inverse_temperatures are not all above 0")
    return found


def short(value: Any) -> str:
    """A value as text of at most 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
