"""A stored comparison in plain words: what would change if the new model replaced the live one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keepsight.training.gate.words import pictures, points

MOST_CHANGES = 8
# Differences below these are told as none.
_LATENCY_SHARE, _SIZE_SHARE = 0.1, 0.02
_PARTS = {"test": "the test pictures", "recent": "the newest checked pictures"}


def summary(gate: Mapping[str, Any]) -> list[str]:
    """The whole in a few sentences: accuracy on the same pictures, time, size."""
    sides = gate.get("sides") or {}
    told = [_accuracy(name, row) for name, row in sides.get("parts", {}).items()]
    latency, size = sides.get("latency_ms", {}), sides.get("size_bytes", {})
    if latency.get("challenger") is not None:
        told.append(_against("A picture takes", latency, "ms", scale=1.0, share=_LATENCY_SHARE))
    if size.get("challenger") is not None:
        told.append(_against("The network has", size, "MB", scale=1e6, share=_SIZE_SHARE))
    return told


def better(gate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Classes and slices of the test pictures on which the new model is right more often, the largest gain first.

    Each has ``kind`` (class or slice), ``name``, ``n``, ``champion`` and ``challenger`` (sums of scores: of a
    classifier the pictures answered right),
    ``sure`` (whether it is no chance, 95 %) and ``text``.
    """
    return _changes(gate, sign=1)


def worse(gate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those on which it is right less often, the largest loss first."""
    return _changes(gate, sign=-1)


def checks(gate: Mapping[str, Any], status: str, *, binding: bool = True) -> list[dict[str, Any]]:
    """The checks of a status in their order: ``name``, ``reason`` and ``pictures_needed`` (or None)."""
    return [
        {
            "name": check["name"],
            "reason": check["reason"],
            "pictures_needed": (check.get("evidence") or {}).get("pictures_needed"),
        }
        for check in gate.get("checks", [])
        if check["status"] == status and check.get("binding", True) == binding
    ]


def _accuracy(name: str, row: Mapping[str, Any]) -> str:
    n = row["n"]
    new = f"{row['challenger']['value']:.1%}"
    if row.get("champion") is None:
        return f"The new model is right on {new} of {_PARTS[name]} ({n})."
    return (
        f"Of {_PARTS[name]} ({n}) the new model gets {new} right and the live one {row['champion']['value']:.1%}: "
        f"{points(row['difference']['value'])}. It is better on {row['gained']} pictures "
        f"and worse on {row['lost']}."
    )


def _against(what: str, values: Mapping[str, float | None], unit: str, *, scale: float, share: float) -> str:
    new, old = values["challenger"], values.get("champion")
    told = f"{what} {(new or 0.0) / scale:.1f} {unit}"
    if old is None or new is None:
        return told + "."
    if abs(new - old) <= share * old:
        return told + ", as with the live model."
    return f"{told} instead of {old / scale:.1f} {unit}."


def _changes(gate: Mapping[str, Any], *, sign: int) -> list[dict[str, Any]]:
    sides = gate.get("sides") or {}
    rows = [*_of("class", sides.get("classes", [])), *_of("slice", sides.get("slices", []))]
    found = [row for row in rows if sign * (row["challenger"] - row["champion"]) > 0]
    return sorted(found, key=lambda row: (not row["sure"], -abs(row["challenger"] - row["champion"])))[:MOST_CHANGES]


def _of(kind: str, rows: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    for row in rows:
        if row.get("champion") is None or row["difference"] is None:
            continue
        n = row["n"]
        new, old = row["challenger"]["value"] * n, row["champion"]["value"] * n
        sure = row["difference"]["low"] > 0 or row["difference"]["high"] < 0
        named = f'"{row["name"]}"' if kind == "class" else row["name"]
        yield {
            "kind": kind,
            "name": row["name"],
            "n": n,
            "champion": old,
            "challenger": new,
            "sure": sure,
            "text": f"{named}: {_moved(new, old, n)}{'' if sure else ' (may be chance)'}",
        }


def _moved(new: float, old: float, n: int) -> str:
    """Sums of scores before and after: as pictures where each answer was right or wrong, else as mean scores."""
    if all(abs(value - round(value)) < 1e-6 for value in (new, old)):
        return f"{round(new)} of {pictures(n)} right instead of {round(old)}"
    return f"a mean score of {new / n:.1%} on {pictures(n)} instead of {old / n:.1%}"
