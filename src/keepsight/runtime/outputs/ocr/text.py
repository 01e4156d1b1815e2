"""Texts of documents: what counts as equal, pieces to choose from, and an answer in a few words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PIECE = re.compile(r"\d+|[^\W\d_]+|[^\w\s]|_")
# Between two digits these are part of a number, a date or a time; elsewhere they are punctuation.
_INNER = frozenset(".,/-:")
_SHORT = 80


@dataclass(frozen=True)
class Piece:
    """A run of digits or of letters, or a single sign, of one line.

    Attributes:
        text: In composed form (NFKC), case folded.
        start, end: Where it stands in the line.
        line: Place of the line.
        glued: Whether no space stands before it.
        counts: What it adds to the normalised text; empty for punctuation.
    """

    text: str
    start: int
    end: int
    line: int
    glued: bool
    counts: str


def pieces(text: str, *, line: int = 0) -> list[Piece]:
    """The pieces of a line, from left to right."""
    found = list(_PIECE.finditer(text))
    result = []
    for place, match in enumerate(found):
        word = unicodedata.normalize("NFKC", match[0]).casefold()
        glued = place > 0 and found[place - 1].end() == match.start()
        counts = word if word.isalnum() else ""
        if match[0] in _INNER and glued and place + 1 < len(found):
            after = found[place + 1]
            if found[place - 1][0].isdigit() and after[0].isdigit() and after.start() == match.end():
                counts = word
        result.append(Piece(word, match.start(), match.end(), line, glued, counts))
    return result


def normalised(text: str) -> str:
    """What two values of a field are compared by: letters and digits, and ``.,/-:`` directly between two digits.

    Case, spaces, all other punctuation and compatibility forms (full-width digits) make no difference.
    """
    return "".join(piece.counts for piece in pieces(text))


def summary(value: Mapping[str, Any]) -> str:
    """An annotation or an answer in a few words: its fields, or else how its lines begin."""
    fields = {name: str(text) for name, text in (value.get("fields") or {}).items() if text}
    if fields:
        return _shortened(", ".join(f"{name}: {text}" for name, text in sorted(fields.items())))
    lines = [str(line["text"]) for line in value.get("lines") or () if line.get("text")]
    if not lines:
        return "no text"
    more = f" and {len(lines) - 1} more line{'s' if len(lines) > 2 else ''}" if len(lines) > 1 else ""
    return _shortened(lines[0]) + more


def _shortened(text: str) -> str:
    return text if len(text) <= _SHORT else text[: _SHORT - 3].rstrip() + "..."
