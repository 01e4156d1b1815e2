"""Parts of a data set that may fare differently: one camera, one shop, the dark pictures.

Every column of the metadata makes slices by itself, and so do the groups and what is measured on each picture (light,
sharpness, size). Nothing has to be configured, and no value of the metadata can break it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from keepsight.training.material import Part

# Fewer pictures say nothing about a slice; a column with more values is a name or a number of the picture.
LEAST_PICTURES = 5
MOST_VALUES = 30
# Numbers with at most so many values (a shop's number, stars) are names; others are cut into quarters.
NUMBERS_AS_NAMES = 8
MISSING = "(none)"
GROUP = "group"
# What the loop notes about a picture, which is no property of it.
_INTERNAL = frozenset({"selected_by", "event_id"})
# Mean luma below and above which a picture is dark and bright; sharpness as ``keepsight.runtime.quality`` measures it;
# the shorter side in pixels.
_DARK, _BRIGHT = 70.0, 185.0
_BLURRED = 0.08
_SMALL, _LARGE = 224, 720


@dataclass(frozen=True)
class Slice:
    """Some pictures of a part that have something in common.

    Attributes:
        key: What: a column of the metadata, ``group``, ``light``, ``sharpness`` or ``size``.
        value: Its value, as people read it; ``(none)`` where the column is empty.
        rows: bool (n,), which pictures of the part.
    """

    key: str
    value: str
    rows: NDArray[np.bool_] = field(repr=False)

    @property
    def name(self) -> str:
        """``key=value``, as settings name it."""
        return f"{self.key}={self.value}"

    @property
    def count(self) -> int:
        """Its pictures."""
        return int(self.rows.sum())


def slices_of(part: Part, *, least: int = LEAST_PICTURES) -> list[Slice]:
    """The slices of a part with at least so many pictures, ordered by key, a column's values by their size or name.

    A column with more than ``MOST_VALUES`` values that are no numbers makes none; numbers make four quarters, whose
    bounds are those of this part. A number that each class has one of (the number of the class) is a name. Of two
    columns of one name that of the metadata counts.
    """
    columns: dict[str, Sequence[Any]] = _measured(part)
    if any(sample.group for sample in part.samples):
        columns[GROUP] = [sample.group for sample in part.samples]
    for key in {str(name) for sample in part.samples for name in sample.meta} - _INTERNAL:
        columns[key] = [sample.meta.get(key) for sample in part.samples]
    found = []
    for key in sorted(columns):
        for value, rows in _values(columns[key], part.labels):
            if int(rows.sum()) >= least:
                found.append(Slice(key, value, rows))
    return found


def _measured(part: Part) -> dict[str, Sequence[Any]]:
    """What is known of every picture."""
    if not len(part):
        return {}
    blur, brightness = part.quality[:, 0], part.quality[:, 1]
    return {
        "light": [_named(float(value), _DARK, _BRIGHT, ("dark", "normal", "bright")) for value in brightness],
        "sharpness": [_named(float(value), _BLURRED, math.inf, ("blurred", "sharp", "sharp")) for value in blur],
        "size": [
            _named(float(value), _SMALL, _LARGE, ("small", "medium", "large")) for value in part.sizes.min(axis=1)
        ],
    }


def _named(value: float, low: float, high: float, names: tuple[str, str, str]) -> str | None:
    if math.isnan(value):
        return None
    return names[0] if value < low else names[2] if value > high else names[1]


def _values(cells: Sequence[Any], labels: Sequence[str]) -> list[tuple[str, NDArray[np.bool_]]]:
    """The values of a column with their rows; nothing where there are too many."""
    texts = [_text(cell) for cell in cells]
    numbers = [_number(cell) for cell, text in zip(cells, texts, strict=True) if text != MISSING]
    if (
        numbers
        and None not in numbers
        and len(set(numbers)) > NUMBERS_AS_NAMES
        and len(set(zip(labels, texts, strict=True))) > len(set(labels))
    ):
        return _quarters([math.nan if text == MISSING else float(text) for text in texts])
    names = sorted(set(texts), key=lambda text: (text == MISSING, _number(text) is None, _number(text) or 0.0, text))
    if len(names) > MOST_VALUES:
        return []
    column = np.array(texts, dtype=object)
    return [(name, np.asarray(column == name, np.bool_)) for name in names]


def _quarters(values: list[float]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Four parts of about equal size by a number; ties never stand in two, so there may be fewer."""
    column = np.array(values)
    there = ~np.isnan(column)
    bounds = np.unique(np.quantile(column[there], [0.0, 0.25, 0.5, 0.75, 1.0], method="inverted_cdf"))
    found = []
    for place, (low, high) in enumerate(itertools.pairwise(bounds)):
        rows = there & (column <= high) & ((column >= low) if place == 0 else (column > low))
        found.append((f"{'' if place == 0 else 'over '}{low:.6g} to {high:.6g}", rows))
    if not there.all():
        found.append((MISSING, ~there))
    return found


def _text(cell: Any) -> str:
    """A cell as people read it; what says nothing is ``MISSING``."""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return MISSING
    if isinstance(cell, dict | list):
        return json.dumps(cell, sort_keys=True, ensure_ascii=False)
    text = " ".join(str(cell).split())
    return MISSING if text.casefold() in {"", "nan", "none", "null", "n/a"} else text


def _number(cell: Any) -> float | None:
    """The number in a cell; None where it holds none."""
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    try:
        value = float(cell)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None
