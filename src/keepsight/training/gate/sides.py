"""Challenger and champion side by side: the same pictures, classes and slices, time and size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.tasks.intervals import wilson
from keepsight.training.gate.comparison import paired_difference
from keepsight.training.gate.evidence import Evidence, Judged
from keepsight.training.slices import LEAST_PICTURES


def side_by_side(evidence: Evidence) -> dict[str, Any]:
    """Both models' figures as JSON-able values; the champion's are None where none is live.

    ``parts``: by ``test`` and ``recent`` (those with pictures); ``classes`` and ``slices``: of the test pictures. Each
    row has ``n``, ``challenger`` and ``champion`` (mean scores with 95 % intervals), ``difference``
    (paired, with one-sided 95 % bounds), ``gained`` and ``lost`` (pictures that it answers
    better and worse).
    """
    test = evidence.test
    classes = {label: test.rows_of(label) for label in test.names}
    slices = [each for each in test.slices if each.count >= LEAST_PICTURES]
    return {
        "variant": evidence.variant,
        "champion_variant": evidence.champion_variant,
        "parts": {
            name: _row(part, np.ones(len(part), np.bool_))
            for name, part in (("test", test), ("recent", evidence.recent))
            if len(part)
        },
        "classes": _rows(test, classes),
        "slices": [
            {"key": each.key, "value": each.value, **row}
            for each, row in zip(slices, _rows(test, {each.name: each.rows for each in slices}), strict=True)
        ],
        "latency_ms": {"challenger": evidence.latency_ms, "champion": evidence.champion_latency_ms},
        "size_bytes": {"challenger": evidence.size_bytes, "champion": evidence.champion_size_bytes},
    }


def _rows(part: Judged, named: Mapping[str, NDArray[np.bool_]]) -> list[dict[str, Any]]:
    return [{"name": name, **_row(part, rows)} for name, rows in named.items()]


def _row(part: Judged, rows: NDArray[np.bool_]) -> dict[str, Any]:
    groups, new = part.groups_of(rows), part.challenger[rows]
    row: dict[str, Any] = {
        "n": int(rows.sum()),
        "challenger": wilson(new, groups=groups).as_dict(),
        "champion": None,
        "difference": None,
        "gained": 0,
        "lost": 0,
    }
    if part.champion is not None:
        old = part.champion[rows]
        row["champion"] = wilson(old, groups=groups).as_dict()
        row["difference"] = paired_difference(old, new, groups=groups).as_dict()
        row["gained"], row["lost"] = int((new > old).sum()), int((old > new).sum())
    return row
