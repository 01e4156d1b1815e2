"""Finds the named fields of a document (a receipt's total, a label's recipient) among its lines, as learned.

A field is a run of pieces (`text.pieces`) in reading order, which may go on over several lines. For each field three
linear models tell of each piece whether it is inside, the first and the last; a run's score is the sum of the first
over its pieces and of the others at its ends. The best runs are candidates, and a last linear model tells how probable
each is right. Nothing here knows what a receipt is: names, words, shapes and places are learned from documents.
"""

from __future__ import annotations

import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import BundleError
from keepsight.runtime.outputs.ocr.text import Piece, pieces

SETTINGS = "fields.json"
WEIGHTS = "fields.npz"
ROLES = ("inside", "first", "last")
CANDIDATES = 6
FACTS = 9
_BITS = 15
WIDTH = 2**_BITS + 1
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_WINDOW = 3
_HIGHEST = 30.0


@dataclass(frozen=True)
class Document:
    """The lines of a picture in reading order; boxes (x1, y1, x2, y2) in pixels, of a picture of this size."""

    lines: Sequence[str]
    boxes: Sequence[Sequence[float]]
    size: tuple[int, int]


@dataclass(frozen=True)
class Candidate:
    """A run of pieces that may be a field's value.

    Attributes:
        text: As it stands in the document, lines joined by blanks.
        first, last: Places of its pieces, both included.
        facts: What tells how probable it is right (`FACTS` numbers).
    """

    text: str
    first: int
    last: int
    facts: tuple[float, ...]


@dataclass(frozen=True)
class FieldModel:
    """What was learned about the fields of a kind of document.

    Attributes:
        names: The fields.
        weights: float32 (fields, 3, 2^15 + 1): of the hashed features of a piece, the last column is the constant.
        ranking: float64 (fields, FACTS + 1): of a candidate's facts; the last one is the constant.
        longest: Pieces of a field's longest run.
        lines: Lines that a field's run may touch.
        least: Lowest probability at which a field is answered at all.
        slope, shift: The chance that all fields are right is sigmoid(slope * log-odds of the product + shift).
    """

    names: tuple[str, ...]
    weights: NDArray[np.float32]
    ranking: NDArray[np.float64]
    longest: tuple[int, ...]
    lines: tuple[int, ...]
    least: tuple[float, ...]
    slope: float = 1.0
    shift: float = 0.0

    def parts(self) -> dict[str, bytes]:
        """The files of a bundle."""
        settings = {
            "names": list(self.names),
            "ranking": self.ranking.tolist(),
            "longest": list(self.longest),
            "lines": list(self.lines),
            "least": list(self.least),
            "slope": self.slope,
            "shift": self.shift,
        }
        out = io.BytesIO()
        np.lib.format.write_array(out, np.asarray(self.weights, np.float32), allow_pickle=False)
        return {SETTINGS: json.dumps(settings, ensure_ascii=False).encode(), WEIGHTS: _archive(out.getvalue())}

    @classmethod
    def from_parts(cls, settings: bytes, weights: bytes) -> FieldModel:
        """The model that `parts` wrote.

        Raises:
            BundleError: The files are damaged.
        """
        try:
            given = json.loads(settings)
            with np.load(io.BytesIO(weights), allow_pickle=False) as arrays:
                array = arrays["weights"].astype(np.float32)
            names = tuple(map(str, given["names"]))
            if array.shape != (len(names), len(ROLES), WIDTH):
                raise ValueError(f"weights of shape {array.shape}")
            return cls(
                names=names,
                weights=array,
                ranking=np.array(given["ranking"], np.float64).reshape(len(names), FACTS + 1),
                longest=tuple(map(int, given["longest"])),
                lines=tuple(map(int, given["lines"])),
                least=tuple(map(float, given["least"])),
                slope=float(given["slope"]),
                shift=float(given["shift"]),
            )
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise BundleError(
                f"The learned fields cannot be read ({error}).",
                expected=f"{SETTINGS} and {WEIGHTS} as Keepsight wrote them.",
                do="Make the bundle anew with `keepsight train`.",
            ) from error


def _archive(array: bytes) -> bytes:
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("weights.npy", date_time=(1980, 1, 1, 0, 0, 0)), array, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def document_pieces(document: Document) -> list[Piece]:
    """The pieces of all lines, in reading order."""
    return [piece for place, text in enumerate(document.lines) for piece in pieces(text, line=place)]


def features(document: Document, found: Sequence[Piece]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The hashed features of each piece: (rows, columns) of the ones in a matrix (pieces, 2^15 + 1)."""
    rows, columns = [], []
    mask = 2**_BITS - 1
    for row, names in enumerate(_named(document, found)):
        columns += [zlib.crc32(name.encode()) & mask for name in names] + [2**_BITS]
        rows += [row] * (len(names) + 1)
    return np.array(rows, np.int64), np.array(columns, np.int64)


def _named(document: Document, found: Sequence[Piece]) -> Iterator[list[str]]:
    shapes = [_shape(piece) for piece in found]
    of_line = _line_features(document, found)
    numbers = _number_features(document)
    same = Counter(piece.text for piece in found)
    starts = [place for place, piece in enumerate(found) if place == 0 or found[place - 1].line != piece.line]
    bounds = {found[start].line: (start, end) for start, end in pairwise([*starts, len(found)])}
    for place, piece in enumerate(found):
        start, end = bounds[piece.line]
        names = list(of_line[piece.line])
        for step in range(-_WINDOW, _WINDOW + 1):
            near = place + step
            inside = start <= near < end
            names.append(f"w{step}={found[near].text if inside else '<>'}")
            names.append(f"s{step}={shapes[near] if inside else '<>'}")
        inner = [shapes[near] if start <= near < end else "<>" for near in range(place - 3, place + 4)]
        names += [f"s3={'|'.join(inner[1:6])}", f"sl={'|'.join(inner[:4])}", f"sr={'|'.join(inner[3:])}"]
        if place > start:
            names.append(f"b={found[place - 1].text}|{piece.text}")
        if place + 1 < end:
            names.append(f"a={piece.text}|{found[place + 1].text}")
        names += [f"n={min(place - start, 4)}", f"m={min(end - 1 - place, 4)}", f"g={piece.glued}"]
        names.append(f"c={min(same[piece.text], 4)}")
        names += numbers.get((piece.line, piece.start), ())
        yield names


def _shape(piece: Piece) -> str:
    if piece.text.isdigit():
        return f"d{min(len(piece.text), 7)}"
    if piece.text.isalpha():
        return f"a{min(len(piece.text), 4)}"
    return piece.text


def _line_features(document: Document, found: Sequence[Piece]) -> list[list[str]]:
    """What is said of every piece of a line: its words, its place on the page, its neighbours' words."""
    words: list[list[str]] = [[] for _ in document.lines]
    for piece in found:
        words[piece.line].append(piece.text)
    boxes = np.asarray(document.boxes, np.float64).reshape(-1, 4)
    if not len(boxes):
        return []
    high = boxes[:, 3] - boxes[:, 1]
    usual = max(float(np.median(high)), 1.0)
    low, far = boxes[:, :2].min(axis=0), np.maximum(boxes[:, 2:].max(axis=0), boxes[:, :2].min(axis=0) + 1)
    left_of, above, below = _neighbours(boxes)
    count = len(boxes)
    result = []
    for place in range(count):
        x1, y1, x2, _ = boxes[place]
        across = (x1 - low[0]) / (far[0] - low[0]), (x2 - low[0]) / (far[0] - low[0])
        down = (y1 - low[1]) / (far[1] - low[1])
        digits = sum(sign.isdigit() for sign in document.lines[place])
        names = [
            f"i={min(place, 9)}",
            f"e={min(count - 1 - place, 6)}",
            f"y={int(down * 8)}",
            f"x={int(across[0] * 5)}",
            f"r={int(across[1] * 5)}",
            f"z={int(abs(across[0] + across[1] - 1) * 6)}",
            f"h={int(min(high[place] / usual, 3) * 4)}",
            f"p={int(5 * digits / max(len(document.lines[place]), 1))}",
            f"k={min(len(words[place]), 8)}",
        ]
        names += [f"L={word}" for word in words[place]]
        for kind, other in (("R", left_of[place]), ("U", above[place]), ("D", below[place])):
            names += [f"{kind}={word}" for word in words[other]] if other >= 0 else [f"{kind}=<>"]
        result.append(names)
    return result


def _neighbours(boxes: NDArray[np.float64]) -> tuple[list[int], list[int], list[int]]:
    """The place of the line to the left in the same row, above and below; -1 where there is none."""
    middle = (boxes[:, 1] + boxes[:, 3]) / 2
    high = boxes[:, 3] - boxes[:, 1]
    row = np.abs(middle[:, None] - middle) <= 0.6 * np.minimum(high[:, None], high)
    gap = boxes[:, None, 0] - boxes[:, 2]
    left = np.where(row & (gap > -0.5 * high[:, None]), np.abs(gap), np.inf)
    overlap = np.minimum(boxes[:, None, 2], boxes[:, 2]) - np.maximum(boxes[:, None, 0], boxes[:, 0]) > 0
    rise = middle[:, None] - middle
    up = np.where(overlap & ~row & (rise > 0), rise, np.inf)
    down = np.where(overlap & ~row & (rise < 0), -rise, np.inf)
    for table in (left, up, down):
        np.fill_diagonal(table, np.inf)
    return tuple(  # type: ignore[return-value]  # three tables give three lists
        [int(best) if np.isfinite(table[place, best]) else -1 for place, best in enumerate(table.argmin(axis=1))]
        for table in (left, up, down)
    )


def _number_features(document: Document) -> dict[tuple[int, int], list[str]]:
    """Of the pieces of numbers: how many decimals they have, and where they rank among those of their kind."""
    found = []
    for line, text in enumerate(document.lines):
        for match in _NUMBER.finditer(text):
            whole, _, part = match[0].replace(",", "").partition(".")
            if len(whole) <= 9:
                found.append((line, match.start(), match.end(), len(part), float(f"{whole}.{part or 0}")))
    result: dict[tuple[int, int], list[str]] = {}
    for line, start, end, decimals, value in found:
        alike = [item[4] for item in found if item[3] == decimals]
        larger = len({other for other in alike if other > value})
        names = [f"v={decimals}:{min(larger, 4)}", f"f={decimals}:{min(alike.count(value), 4)}"]
        for at in range(start, end):
            result[line, at] = names
    return result


def role_scores(document: Document, weights: NDArray[np.float32], found: Sequence[Piece]) -> NDArray[np.float64]:
    """The log-odds (fields, 3, pieces) of each role for each piece."""
    rows, columns = features(document, found)
    return scores_of(rows, columns, weights=weights, count=len(found))


def scores_of(
    rows: NDArray[np.int64], columns: NDArray[np.int64], *, weights: NDArray[np.float32], count: int
) -> NDArray[np.float64]:
    """`role_scores` from features that are there already."""
    picked = weights[:, :, columns].astype(np.float64)
    result = np.zeros((*weights.shape[:2], count))
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    if count:
        result[:] = np.add.reduceat(picked, starts, axis=2)
    return result


def candidates(
    document: Document, found: Sequence[Piece], scores: NDArray[np.float64], *, longest: int, lines: int
) -> list[Candidate]:
    """The best runs of pieces for one field, best first, no two of them sharing a piece, at most `CANDIDATES`."""
    count = len(found)
    if not count:
        return []
    inside, first, last = np.clip(scores, -_HIGHEST, _HIGHEST)
    total = np.concatenate([[0.0], np.cumsum(inside)])
    line = np.array([piece.line for piece in found])
    place = np.arange(count)
    length = place[None, :] - place[:, None]
    allowed = (length >= 0) & (length < longest) & (line[None, :] - line[:, None] < lines)
    table = np.where(allowed, total[None, 1:] - total[:-1, None] + first[:, None] + last[None, :], -np.inf)
    runs: list[tuple[int, int, float]] = []
    free = np.ones(count, bool)
    for _ in range(CANDIDATES):
        start, end = divmod(int(table.argmax()), count)
        if not np.isfinite(table[start, end]):
            break
        runs.append((start, end, float(table[start, end])))
        free[start : end + 1] = False
        table[start : end + 1] = -np.inf
        table[:, start : end + 1] = -np.inf
        table[:start, end + 1 :] = -np.inf
    texts = [run_text(document, found, start, end) for start, end, _ in runs]
    keys = ["".join(piece.counts for piece in found[start : end + 1]) for start, end, _ in runs]
    result = []
    for number, (start, end, score) in enumerate(runs):
        others = [other for place_, (_, _, other) in enumerate(runs) if keys[place_] != keys[number]]
        size = end - start + 1
        facts = (
            score / 10,
            float(first[start]) / 5,
            float(last[end]) / 5,
            float(inside[start : end + 1].mean()) / 5,
            float(inside[start : end + 1].min()) / 5,
            min(score - max(others, default=score - 10), 20) / 10,
            float(number == 0),
            float(sum(key == keys[number] for key in keys)) / 3,
            min(size, 30) / 30,
        )
        result.append(Candidate(texts[number], start, end, facts))
    return result


def run_text(document: Document, found: Sequence[Piece], start: int, end: int) -> str:
    """The text from one piece to another, lines joined by blanks."""
    parts = []
    for line in range(found[start].line, found[end].line + 1):
        text = document.lines[line]
        begin = found[start].start if line == found[start].line else 0
        stop = found[end].end if line == found[end].line else len(text)
        parts.append(text[begin:stop].strip())
    return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class FieldValue:
    """What was found for a field.

    Attributes:
        text: The value.
        confidence: Chance that it is right.
        line: Place of its first line.
        alternatives: Other values and their chances, falling.
    """

    text: str
    confidence: float
    line: int
    alternatives: tuple[tuple[str, float], ...]


def ranked(found: Sequence[Piece], runs: Sequence[Candidate], ranking: NDArray[np.float64]) -> FieldValue | None:
    """The value of one field: the most probable candidate, equal texts taken together."""
    if not runs:
        return None
    facts = np.array([run.facts for run in runs])
    shares = 1 / (1 + np.exp(-(facts @ ranking[:-1] + ranking[-1])))
    best: dict[str, int] = {}
    for place in np.argsort(-shares, kind="stable"):
        run = runs[place]
        best.setdefault("".join(piece.counts for piece in found[run.first : run.last + 1]), int(place))
    order = list(best.values())
    head = runs[order[0]]
    others = tuple((runs[place].text, float(shares[place])) for place in order[1:])
    return FieldValue(head.text, float(shares[order[0]]), found[head.first].line, others)


def find(model: FieldModel, document: Document) -> dict[str, FieldValue]:
    """The fields of a document that are probable enough, by name."""
    found = document_pieces(document)
    scores = role_scores(document, model.weights, found)
    result = {}
    for place, name in enumerate(model.names):
        runs = candidates(document, found, scores[place], longest=model.longest[place], lines=model.lines[place])
        value = ranked(found, runs, model.ranking[place])
        if value is not None and value.confidence >= model.least[place]:
            result[name] = value
    return result


def all_right(model: FieldModel, values: Mapping[str, FieldValue]) -> float:
    """The calibrated chance that every field is right; a field without an answer counts as even."""
    share = float(np.prod([values[name].confidence if name in values else 0.5 for name in model.names]))
    return calibrated(share, slope=model.slope, shift=model.shift)


def calibrated(share: float, *, slope: float, shift: float) -> float:
    """sigmoid(slope * log-odds of ``share`` + shift)."""
    share = min(max(share, 1e-9), 1 - 1e-9)
    odds: Any = slope * np.log(share / (1 - share)) + shift
    return float(1 / (1 + np.exp(-np.clip(odds, -50, 50))))
