"""A reader of documents as the parts of a bundle, and what it reads in the pictures of the material."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import DataError, PictureError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.decode import read as decode
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.outputs.ocr import engine as runtime
from keepsight.runtime.outputs.ocr.answer import Line
from keepsight.runtime.outputs.ocr.engine import OcrEngine, Prepared
from keepsight.runtime.outputs.ocr.fields import Document
from keepsight.runtime.outputs.ocr.regions import Reading
from keepsight.runtime.preprocess import Preprocessing
from keepsight.training.processors import cores
from keepsight.training.recipes import Material
from keepsight.zoo import paddle_ocr, pretrained

_READINGS = {
    "small": Reading(),
    "tiny": Reading(side=960, longest=True, binary=0.2, box=0.4, unclip=1.4, dilate=False),
}


@dataclass(frozen=True)
class Reader:
    """Detector, recogniser and what belongs to them.

    Attributes:
        task: What bundles with it answer.
        size: "small" or "tiny".
        detector, recogniser: ONNX networks.
        characters: What the recogniser tells apart.
        orientation: ONNX network that tells lines on their heads; None where that is not looked for.
        preprocessing: Of the detector.
        licences: Of the weights.
    """

    task: str
    size: str
    detector: bytes
    recogniser: bytes
    characters: tuple[str, ...]
    orientation: bytes | None
    preprocessing: Preprocessing
    licences: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Names what it reads: sha256 (hex) over its networks."""
        parts = (self.detector, self.recogniser, self.orientation or b"")
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def parts(self) -> dict[str, bytes]:
        """The parts of a bundle, besides its network."""
        parts = {
            runtime.RECOGNISER: self.recogniser,
            runtime.CHARACTERS: "\n".join(self.characters).encode(),
            runtime.READING: json.dumps(_READINGS[self.size].as_dict()).encode(),
        }
        return parts if self.orientation is None else {**parts, runtime.ORIENTATION: self.orientation}

    def with_recogniser(self, recogniser: bytes) -> Reader:
        """The same with another recogniser."""
        return replace(self, recogniser=recogniser)

    def engine(self) -> OcrEngine:
        """What reads with it."""
        info = BundleInfo(
            task=self.task, labels=(), preprocessing=self.preprocessing, created_at=datetime.now(UTC).isoformat()
        )
        return OcrEngine(Bundle.create(info, model=self.detector, parts=self.parts()))


def published(material: Material) -> Reader:
    """The reader of the zoo that the settings name.

    Raises:
        WeightsError: Its weights are not on this machine; says how to fetch them.
    """
    size = str(material.settings["train.reader"])
    detector = pretrained.load(f"ppocr-v6-{size}-det", task=material.task)
    recogniser = pretrained.load(f"ppocr-v6-{size}-rec", task=material.task)
    turned = (
        pretrained.load("ppocr-orientation", task=material.task) if material.settings["train.reader_turned"] else None
    )
    used = [detector, recogniser, *([turned] if turned else [])]
    return Reader(
        task=material.task,
        size=size,
        detector=detector.content,
        recogniser=recogniser.content,
        characters=paddle_ocr.characters(recogniser.content),
        orientation=None if turned is None else turned.content,
        preprocessing=detector.entry.preprocessing,
        licences=tuple(dict.fromkeys(licence for item in used for licence in item.entry.licences)),
    )


@dataclass(frozen=True)
class Page:
    """What was read in one picture of the material.

    Attributes:
        place: Of the picture in the material.
        lines: In reading order.
        features: Of the detector, float32 (d,).
        size: Width and height of the picture.
    """

    place: int
    lines: tuple[Line, ...]
    features: NDArray[np.float32]
    size: tuple[int, int]

    @property
    def document(self) -> Document:
        """The lines as fields are looked for in them."""
        return Document([line.text for line in self.lines], [line.box for line in self.lines], self.size)


def prepared(engine: OcrEngine, data: bytes) -> Prepared:
    """A picture's file, ready to be read.

    Raises:
        PictureError: It cannot be decoded.
    """
    image, info = decode(data, min_side=engine.min_side)
    return engine.prepare(image, (info.width, info.height))


def read_all(material: Material, reader: Reader, places: Sequence[int], *, reserve_s: float) -> list[Page]:
    """What the reader reads in the pictures at ``places``, in that order, while the budget has time.

    What was read is kept in the material's folder, so that an attempt that was cut off goes on where it was. A picture
    that cannot be decoded is left out.

    Args:
        material: The pictures.
        reader: What reads.
        places: Those wanted; they are read in this order until less than ``reserve_s`` of the budget is left.
        reserve_s: Seconds that what comes after needs.

    Raises:
        DataError: None could be read.
    """
    folder = material.folder / f"read-{reader.digest[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    engine = reader.engine()

    def one(place: int) -> Page | None:
        kept = _kept(folder / f"{place}.npz", place)
        if kept is not None:
            return kept
        data = material.read(place)
        if data is None:
            return None
        try:
            item = prepared(engine, data)
        except PictureError:
            return None
        lines, features = engine.read(item)
        found = Page(place, tuple(lines), features, item.size)
        _keep(folder / f"{place}.npz", found)
        return found

    found: list[Page] = []
    with ThreadPoolExecutor(cores()) as pool:
        for done, chunk in _chunks(places, size=2 * cores()):
            if found and material.plan is None and material.budget.left_s < reserve_s:
                break
            found += [result for result in pool.map(one, chunk) if result is not None]
            material.progress({"text": "reading documents", "done": done, "total": len(places)})
    if places and not found:
        raise DataError(
            f"None of the {len(places)} labelled pictures can be decoded.",
            expected="pictures of documents.",
            do="Import the pictures again.",
        )
    return found


def _chunks(places: Sequence[int], *, size: int) -> Iterator[tuple[int, Sequence[int]]]:
    for start in range(0, len(places), size):
        chunk = places[start : start + size]
        yield start + len(chunk), chunk


def _keep(path: Path, found: Page) -> None:
    lines = [[line.text, list(line.box), line.confidence, line.weakest] for line in found.lines]
    draft = path.with_suffix(".part")
    with draft.open("wb") as file:
        np.savez(file, lines=np.array(json.dumps(lines)), features=found.features, size=np.array(found.size))
    draft.replace(path)


def _kept(path: Path, place: int) -> Page | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            lines = [
                Line(text, (box[0], box[1], box[2], box[3]), confidence, weakest)
                for text, box, confidence, weakest in json.loads(str(arrays["lines"]))
            ]
            width, height = map(int, arrays["size"])
            return Page(place, tuple(lines), arrays["features"], (width, height))
    except (FileNotFoundError, ValueError, KeyError, OSError):
        return None


def unknown_characters(texts: Sequence[str], characters: Sequence[str]) -> Mapping[str, int]:
    """Which signs of the texts the recogniser cannot read, and in how many texts each stands, most frequent first."""
    known = {*characters, " "}
    counts: dict[str, int] = {}
    for text in texts:
        for sign in set(text) - known:
            counts[sign] = counts.get(sign, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
