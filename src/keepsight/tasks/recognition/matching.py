"""Which answer belongs to which subject of an annotation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

UNKNOWN = "unknown"
# Faces are boxed by hand loosely, and rarely overlap each other by as much.
LEAST_OVERLAP = 0.3
Item = Mapping[str, Any]
Pair = tuple[Item | None, Item | None]


def matched(said: Sequence[Item], true: Sequence[Item]) -> list[Pair]:
    """Pairs of an answer and the subject that it is about; None where the other side has nothing.

    Where both have boxes, these decide (the largest overlap first, 0.3 at least). The others are paired by name, and
    those left over as they come: without a box nothing tells which of two wrong names belongs to whom.
    """
    pairs: list[Pair] = []
    free_said, free_true = list(range(len(said))), list(range(len(true)))

    def pair(one: int, other: int) -> None:
        pairs.append((said[one], true[other]))
        free_said.remove(one)
        free_true.remove(other)

    for overlap, one, other in sorted(_overlaps(said, true), key=lambda item: (-item[0], item[1], item[2])):
        if overlap >= LEAST_OVERLAP and one in free_said and other in free_true:
            pair(one, other)
    for same in (True, False):
        for one in list(free_said):
            for other in list(free_true):
                placed = said[one].get("box") and true[other].get("box")
                if not placed and (not same or said[one]["label"] == true[other]["label"]):
                    pair(one, other)
                    break
    pairs += [(said[one], None) for one in free_said]
    pairs += [(None, true[other]) for other in free_true]
    return pairs


def similarities(said: Item) -> dict[str, float]:
    """How alike an answer's subject is to everybody that the answer lists."""
    found = {str(item["label"]): float(item["similarity"]) for item in said.get("alternatives", ())}
    if said["label"] != UNKNOWN:
        found[str(said["label"])] = float(said.get("similarity", 1.0))
    return found


def _overlaps(said: Sequence[Item], true: Sequence[Item]) -> Iterator[tuple[float, int, int]]:
    for one, left in enumerate(said):
        for other, right in enumerate(true):
            if left.get("box") and right.get("box"):
                yield _overlap(left["box"], right["box"]), one, other


def _overlap(first: Sequence[float], second: Sequence[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return shared / max(both - shared, 1e-12)
