"""The reader without OpenCV finds and reads what RapidOCR does (``make_golden.py``)."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keepsight import config
from keepsight.runtime.outputs.ocr.engine import OcrEngine
from keepsight.runtime.outputs.ocr.text import normalised
from keepsight.tasks.ocr.distance import overlaps
from keepsight.training.documents import reader
from keepsight.zoo import paddle_ocr
from tests import fetched
from tests.training.documents.test_recipes import material

FIXTURES = Path(__file__).parent / "fixtures"
EXIF_TURNED = 6


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> OcrEngine:
    for entry in paddle_ocr.ENTRIES:
        if "small" in entry.name or entry.name == "ppocr-orientation":
            fetched.ensure(entry.name)
    folder = tmp_path_factory.mktemp("reader")
    given = material(folder, count=0)
    turned = config.Config(root=folder, workspace={}, projects={"shop": {"train.reader_turned": True}})
    given = replace(given, settings=turned.project("shop"))
    return reader.published(given).engine()


def read(engine: OcrEngine, data: bytes) -> tuple[list[str], np.ndarray]:
    lines, _ = engine.read(reader.prepared(engine, data))
    return [line.text for line in lines], np.array([line.box for line in lines])


def test_boxes_and_texts_are_rapidocrs(engine: OcrEngine) -> None:
    golden = json.loads((FIXTURES / "rapidocr.json").read_text())
    texts, boxes = read(engine, (FIXTURES / "document.png").read_bytes())
    corners = np.array([line["corners"] for line in golden])
    expected = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    table = overlaps(expected, boxes)
    assert len(texts) == len(golden)
    assert table.max(axis=1).min() > 0.85
    told = [texts[place] for place in table.argmax(axis=1)]
    # Pillow's resampling differs from OpenCV's by a grey level here and there, which can move a blank.
    assert [normalised(text) for text in told] == [normalised(line["text"]) for line in golden]
    assert [text.replace(" ", "") for text in told] == [line["text"].replace(" ", "") for line in golden]


def test_a_document_on_its_head_is_read(engine: OcrEngine) -> None:
    with Image.open(FIXTURES / "document.png") as image:
        out = io.BytesIO()
        image.rotate(180).save(out, "PNG")
    texts, _ = read(engine, out.getvalue())
    assert "Anna Schmidt" in texts
    assert "Weight: 12.40 kg" in texts


def test_exif_orientation_is_applied(engine: OcrEngine) -> None:
    with Image.open(FIXTURES / "document.png") as image:
        exif = Image.Exif()
        exif[274] = EXIF_TURNED
        out = io.BytesIO()
        image.transpose(Image.Transpose.ROTATE_90).save(out, "JPEG", quality=95, exif=exif)
    texts, boxes = read(engine, out.getvalue())
    assert "Anna Schmidt" in texts
    assert boxes[:, 2].max() < 760
    assert boxes[:, 3].max() < 660
