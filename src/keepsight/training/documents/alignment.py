"""Where the value of a field stands in a document whose lines were read, perhaps with errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keepsight.runtime.outputs.ocr.text import Piece, normalised

# A value counts as found where at most this share of its characters was read otherwise.
_WRONG = 0.2
_SHORTEST_FUZZY = 5


def locate(found: Sequence[Piece], value: str) -> list[tuple[int, int]]:
    """The runs of pieces (first, last) that say ``value``: all that say it exactly, else the one that is nearest.

    Empty where nothing in the document is near enough.
    """
    wanted = normalised(value)
    if not wanted:
        return []
    owners = [place for place, piece in enumerate(found) for _ in piece.counts]
    text = "".join(piece.counts for piece in found)
    if len(text) != len(owners) or not text:
        return []
    starts = {offset for offset in range(len(owners)) if offset == 0 or owners[offset] != owners[offset - 1]}
    runs = []
    at = text.find(wanted)
    while at >= 0:
        end = at + len(wanted)
        if at in starts and (end == len(owners) or end in starts):
            runs.append((owners[at], owners[end - 1]))
        at = text.find(wanted, at + 1)
    if runs or len(wanted) < _SHORTEST_FUZZY:
        return runs
    span = _nearest(text, wanted)
    return [] if span is None else [(owners[span[0]], owners[span[1] - 1])]


def _nearest(text: str, wanted: str) -> tuple[int, int] | None:
    """Start and end of the part of ``text`` with the least edit distance to ``wanted`` (Sellers 1980)."""
    signs = np.array([ord(sign) for sign in text])
    # Row by row over ``wanted``; costs start at 0 anywhere in the text, and carry where their match began.
    cost = np.zeros(len(text) + 1, np.int64)
    begin = np.arange(len(text) + 1)
    place = np.arange(len(text) + 1)
    for number, sign in enumerate(wanted, start=1):
        replaced = cost[:-1] + (signs != ord(sign))
        above = cost[1:] + 1
        best = np.concatenate([[number], np.minimum(replaced, above)])
        source = np.concatenate([[0], np.where(replaced <= above, begin[:-1], begin[1:])])
        # Insertions run along the row: the least of best[j'] + (j - j') over j' <= j.
        shifted = best - place
        least = np.minimum.accumulate(shifted)
        holder = np.maximum.accumulate(np.where(shifted == least, place, 0))
        cost, begin = least + place, source[holder]
    end = int(cost.argmin())
    if cost[end] > _WRONG * len(wanted) or begin[end] >= end:
        return None
    return int(begin[end]), end
