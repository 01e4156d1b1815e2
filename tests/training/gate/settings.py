"""The gate's settings, all at their defaults but those that a test names."""

from __future__ import annotations

from typing import Any

from keepsight.config import TABLE


def settings(**values: Any) -> dict[str, Any]:
    """``settings(margin=0.1)`` names ``gate.margin``; a name with a dot stands for itself."""
    given = {name if "." in name else f"gate.{name}": value for name, value in values.items()}
    known = {row.name: row.default for row in TABLE if row.scope == "project"}
    assert set(given) <= set(known), f"no such settings: {set(given) - set(known)}"
    return known | given
