"""Reads pictures with a bundle: finds lines, reads them, puts them in order and finds the fields among them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keepsight.errors import BundleError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.decode import Picture
from keepsight.runtime.outputs.ocr import fields, recognition
from keepsight.runtime.outputs.ocr.answer import Line, OcrOutput
from keepsight.runtime.outputs.ocr.order import reading_order
from keepsight.runtime.outputs.ocr.regions import Reading, rectangles
from keepsight.runtime.session import FEATURES, open_session, run

PROBABILITY = "probability"
RECOGNISER = "recogniser.onnx"
CHARACTERS = "characters.txt"
READING = "reading.json"
ORIENTATION = "orientation.onnx"
CONFIDENCE = "confidence.json"

_STEP = 32
# Larger pictures are reduced before anything else: the detector's time grows with the area.
_LARGEST = 2000
# Pictures with a longer side than this many times the shorter one get grey bars, as the detector was trained.
_LONGEST = 8


@dataclass(frozen=True)
class Prepared:
    """A picture to read and the size (width, height) in whose pixels the answer is given."""

    image: Image.Image
    size: tuple[int, int]


class OcrEngine:
    """The reader of one bundle; every method may be called from several threads at once.

    Args:
        bundle: With the parts that `keepsight.runtime.outputs.ocr` names.
        variant: Of the detector.
        threads: Threads of one run of a network.

    Raises:
        BundleError: A part is missing or damaged.
    """

    def __init__(self, bundle: Bundle, *, variant: str = "float", threads: int = 1) -> None:
        self.info = bundle.info
        self._detector = open_session(bundle.model(variant), threads=threads)
        self._recogniser = open_session(bundle.part(RECOGNISER), threads=threads)
        names = set(bundle.parts)
        self._turned = open_session(bundle.part(ORIENTATION), threads=threads) if ORIENTATION in names else None
        self.characters = tuple(bundle.part(CHARACTERS).decode().split("\n"))
        try:
            self._reading = Reading.from_dict(json.loads(bundle.part(READING)))
            given = json.loads(bundle.part(CONFIDENCE)) if CONFIDENCE in names else {}
            self._slope, self._shift = float(given.get("slope", 1.0)), float(given.get("shift", 0.0))
        except (ValueError, TypeError, AttributeError) as error:
            raise BundleError(
                f"{READING} or {CONFIDENCE} cannot be understood ({error}).",
                expected="the files as Keepsight wrote them.",
                do="Make the bundle anew with `keepsight train`.",
            ) from error
        self._fields = (
            fields.FieldModel.from_parts(bundle.part(fields.SETTINGS), bundle.part(fields.WEIGHTS))
            if fields.SETTINGS in names
            else None
        )

    @property
    def min_side(self) -> int:
        """The shorter side below which decoding would lose what is read: small print on a photo needs 1,000."""
        return max(1000, self.info.preprocessing.size)

    def prepare(self, image: Picture, size: tuple[int, int]) -> Prepared:
        """A decoded picture (height, width, 3) of an original of ``size`` (width, height), ready to be read."""
        whole = Image.fromarray(image)
        scale = _LARGEST / max(whole.size)
        if scale < 1:
            smaller = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
            whole = whole.resize(smaller, Image.Resampling.BILINEAR, reducing_gap=2.0)
        return Prepared(whole, size)

    def answer(self, prepared: Sequence[Prepared], *, top_k: int) -> tuple[list[OcrOutput], NDArray[np.float32]]:
        """What each picture says, and the detector's features (n, d)."""
        outputs, vectors = [], []
        for item in prepared:
            lines, vector = self.read(item)
            outputs.append(self._output(lines, size=item.size, top_k=top_k))
            vectors.append(vector)
        return outputs, np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)

    def warm(self) -> None:
        """Runs the networks once, so that the first picture is answered as fast as the others."""
        self.read(Prepared(Image.new("RGB", (64, 64), "white"), (64, 64)))
        recognition.read(self._recogniser, [Image.new("RGB", (96, 48), "white")], characters=self.characters)

    def read(self, item: Prepared) -> tuple[list[Line], NDArray[np.float32]]:
        """The lines of a picture in reading order, and the detector's features (d,)."""
        tensor, inner = self._input(item.image)
        found = run(self._detector, tensor, outputs=(PROBABILITY, FEATURES))
        shares = found[PROBABILITY][0, 0, : inner[1], : inner[0]]
        corners, _ = rectangles(shares, reading=self._reading, size=item.image.size)
        scale = np.array([item.size[0] / item.image.width, item.size[1] / item.image.height])
        boxes = np.concatenate([corners.min(axis=1) * scale, corners.max(axis=1) * scale], axis=1)
        order = reading_order(boxes.tolist())
        texts = self._texts(item.image, corners[order])
        lines = [
            Line(read.text, (x1, y1, x2, y2), read.confidence, read.weakest)
            for read, (x1, y1, x2, y2) in zip(texts, boxes[order].tolist(), strict=True)
            if read.text.strip() and read.confidence >= self._reading.line
        ]
        return lines, found[FEATURES][0]

    def read_boxes(self, item: Prepared, boxes: Sequence[Sequence[float]]) -> list[recognition.Read]:
        """The texts in given boxes (x1, y1, x2, y2), in pixels of the original."""
        across, down = item.image.width / item.size[0], item.image.height / item.size[1]
        placed = [(x1 * across, y1 * down, x2 * across, y2 * down) for x1, y1, x2, y2 in boxes]
        corners = [[(x1, y1), (x2, y1), (x2, y2), (x1, y2)] for x1, y1, x2, y2 in placed]
        return self._texts(item.image, np.array(corners, np.float32).reshape(-1, 4, 2))

    def _texts(self, image: Image.Image, corners: NDArray[np.float32]) -> list[recognition.Read]:
        parts = [recognition.cut(image, each) for each in corners]
        if self._turned is not None:
            parts = recognition.upright(self._turned, parts)
        return recognition.read(self._recogniser, parts, characters=self.characters)

    def _input(self, image: Image.Image) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """The detector's input (1, 3, height, width), multiples of 32, and the part of it that is picture."""
        width, height = image.size
        reading = self._reading
        ratio = min(1.0, reading.side / max(width, height)) if reading.longest else reading.side / min(width, height)
        if not reading.longest:
            ratio = max(1.0, min(ratio, _LARGEST / max(width, height)))
        side = [max(_STEP, round(value * ratio / _STEP) * _STEP) for value in (width, height)]
        scaled = image.resize((side[0], side[1]), Image.Resampling.BILINEAR)
        array = np.empty((3, max(side[1], _up(side[0])), max(side[0], _up(side[1]))), np.float32)
        mean = np.asarray(self.info.preprocessing.mean, np.float32)[:, None, None]
        array[...] = mean
        array[:, : side[1], : side[0]] = np.asarray(scaled).transpose(2, 0, 1)
        array -= mean
        array /= np.asarray(self.info.preprocessing.std, np.float32)[:, None, None]
        return array[None], (side[0], side[1])

    def _output(self, lines: Sequence[Line], *, size: tuple[int, int], top_k: int) -> OcrOutput:
        values: dict[str, fields.FieldValue] = {}
        if self._fields is None:
            confidence = fields.calibrated(whole(lines), slope=self._slope, shift=self._shift)
        else:
            document = fields.Document([line.text for line in lines], [line.box for line in lines], size)
            values = fields.find(self._fields, document)
            confidence = fields.all_right(self._fields, values)
        return OcrOutput(tuple(lines), values, confidence, top_k)


def _up(side: int) -> int:
    """The least other side of the detector's input."""
    return -(-side // _LONGEST // _STEP) * _STEP


def whole(lines: Sequence[Line]) -> float:
    """The plain chance that all lines are right, were their least sure signs independent; 0.5 without lines."""
    return float(np.prod([max(line.weakest, 1e-3) for line in lines])) if lines else 0.5
