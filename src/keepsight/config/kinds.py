"""Kinds of values that a setting can have: each parses what a file, an environment variable or the database holds.

A kind raises ValueError with the words that say what would fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


def number(low: float, high: float, *, optional: bool = False) -> Callable[[Any], Any]:
    """A number from ``low`` to ``high``; empty too where ``optional``."""

    def parse(value: Any) -> Any:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(f"a number from {low:g} to {high:g}")
        try:
            found = float(value)
        except ValueError:
            raise ValueError(f"a number from {low:g} to {high:g}") from None
        if not low <= found <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return found

    return parse


def integer(low: int, high: int) -> Callable[[Any], Any]:
    """A whole number from ``low`` to ``high``."""

    def parse(value: Any) -> int:
        try:
            found = int(str(value))
        except ValueError:
            raise ValueError(f"a whole number from {low} to {high}") from None
        if isinstance(value, bool) or not low <= found <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return found

    return parse


@dataclass(frozen=True)
class Choice:
    """One of these names."""

    names: tuple[str, ...]

    def __call__(self, value: Any) -> str:
        """The name, if it is one of them."""
        if value not in self.names:
            raise ValueError("one of " + ", ".join(self.names))
        return str(value)


def choice(*names: str) -> Choice:
    """One of these names."""
    return Choice(names)


def text(*, optional: bool = False) -> Callable[[Any], Any]:
    """A text that is not blank; empty too where ``optional``."""

    def parse(value: Any) -> Any:
        if value is None and optional:
            return None
        if not isinstance(value, str) or not value.strip():
            raise ValueError("a text")
        return value

    return parse


def flag(value: Any) -> bool:
    """true or false, in the words that people use."""
    if isinstance(value, bool):
        return value
    if str(value).lower() in {"true", "yes", "on", "1"}:
        return True
    if str(value).lower() in {"false", "no", "off", "0"}:
        return False
    raise ValueError("true or false")


def shares(value: Any) -> dict[str, float]:
    """A map from a name to a share of 0 to 1."""
    share = number(0, 1)
    if not isinstance(value, Mapping):
        raise ValueError("a map from a name to a share, such as {apple: 0.9}")
    return {str(key): share(item) for key, item in value.items()}


def cron(value: Any) -> str | None:
    """A cron line of five fields, or empty."""
    if value is None:
        return None
    from croniter import croniter

    if not isinstance(value, str) or not croniter.is_valid(value):
        raise ValueError('a cron line of five fields, such as "0 3 * * 1" (Mondays at three)')
    return value


@dataclass(frozen=True)
class Names:
    """A list of some of the ``known`` names, or of any names where none is known; a text with commas is one too."""

    known: tuple[str, ...]

    def __call__(self, value: Any) -> list[str]:
        """The names in the list."""
        items = value.split(",") if isinstance(value, str) else value
        wanted = "a list of " + (", ".join(self.known) if self.known else "names")
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise ValueError(wanted)
        found = [item.strip() for item in items if item.strip()]
        if self.known and not set(found) <= set(self.known):
            raise ValueError(wanted)
        return found


def names(*known: str) -> Names:
    """A list of some of these names, or of any names where none is given here."""
    return Names(known)


def minutes(text: str) -> float:
    """The minutes meant by a duration such as ``90s``, ``10m``, ``2h`` or ``1d``; a bare number is minutes."""
    units = {"s": 1 / 60, "m": 1.0, "h": 60.0, "d": 1440.0}
    unit = text[-1:] if text[-1:] in units else ""
    try:
        found = float(text.removesuffix(unit)) * units.get(unit, 1.0)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise ValueError("a duration such as 90s, 10m, 2h or 1d")
    return found
