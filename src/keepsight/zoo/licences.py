"""Licences of weights: their SPDX identifiers, and which restrict what a business may do with a model.

Weights under a restricted licence are refused unless the user names the licence: nobody should find out after a
release that the model may not be sold, or that the program around it has to be published.
"""

from __future__ import annotations

from collections.abc import Iterable

from keepsight.errors import WeightsError

UNKNOWN = "LicenseRef-unknown"

_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause", "bsd-2-clause": "BSD-2-Clause"}
_CREATIVE_COMMONS = ("cc-by", "cc0")
_GNU = ("agpl-", "gpl-", "lgpl-")
# Licences of their own that allow research only, by the names that timm has for them.
_RESEARCH_ONLY = {"apple-amlr", "fair-noncommercial-research-license", "seer-license"}


def spdx(name: str | None) -> str:
    """The SPDX identifier of a licence as model cards write it; ``LicenseRef-...`` for one that SPDX does not list.

    >>> spdx("apache-2.0"), spdx("cc-by-nc-4.0"), spdx("dinov3-license"), spdx(None)
    ('Apache-2.0', 'CC-BY-NC-4.0', 'LicenseRef-dinov3-license', 'LicenseRef-unknown')
    """
    plain = (name or "").strip().lower()
    if plain in {"", "unknown", "other"}:
        return UNKNOWN
    if plain in _SPDX:
        return _SPDX[plain]
    if plain.startswith((*_CREATIVE_COMMONS, *_GNU)):
        return plain.upper()
    return f"LicenseRef-{plain}"


def told(licence: str) -> str:
    """The licence in words for people: "unknown" where nobody stated it."""
    return "unknown" if licence == UNKNOWN else licence


def restricted(licence: str) -> bool:
    """Whether it forbids commercial use, or asks to publish the program that serves the model.

    >>> [restricted(name) for name in ("AGPL-3.0", "CC-BY-NC-4.0", "CC-BY-4.0", "Apache-2.0", "LicenseRef-apple-amlr")]
    [True, True, False, False, True]
    """
    plain = licence.lower().removeprefix("licenseref-")
    return (
        plain.startswith("agpl")
        or (plain.startswith("cc-") and "nc" in plain.split("-"))
        or "noncommercial" in plain
        or "non-commercial" in plain
        or plain in _RESEARCH_ONLY
    )


def check(name: str, licence: str, *, allowed: Iterable[str] = ()) -> None:
    """Refuses weights under a restricted licence that ``allowed`` does not name.

    Raises:
        WeightsError: They are.
    """
    if not restricted(licence) or licence.casefold() in {item.casefold() for item in allowed}:
        return
    raise WeightsError(
        f"The weights of {name} stand under {licence}, which forbids commercial use or asks to publish what uses them.",
        expected="weights that a business may use as it likes.",
        do=f"Choose other weights. If the licence suits you, add {licence} to the setting gate.licences (for "
        "`keepsight zoo fetch`: --allow-licence).",
        name=name,
        licence=licence,
    )
