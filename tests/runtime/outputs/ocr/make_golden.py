"""Writes ``fixtures/rapidocr.json``: what RapidOCR 3.10.0 reads in ``fixtures/document.png``.

Run it where rapidocr and its OpenCV, pyclipper and shapely are installed; nothing of Keepsight needs them:
``python tests/runtime/outputs/ocr/make_golden.py``
"""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FIXTURES = Path(__file__).parent / "fixtures"
LINES = [
    ("PARCEL EXPRESS LTD", 60, 40, 44),
    ("From: Miller & Sons, 14 Mill Road", 60, 120, 28),
    ("Deliver to:", 60, 190, 24),
    ("Anna Schmidt", 60, 230, 36),
    ("Green Lane 27, 10115 Berlin", 60, 285, 36),
    ("Tracking no. JD014600003RN", 60, 380, 30),
    ("Weight: 12.40 kg", 60, 430, 30),
    ("Pieces: 2", 420, 430, 30),
    ("25/12/2026 08:15", 60, 480, 24),
    ("Handle with care!", 60, 560, 40),
]


def draw() -> Image.Image:
    """A shipment label, turned by three degrees."""
    image = Image.new("L", (760, 660), 235)
    pen = ImageDraw.Draw(image)
    for text, left, top, size in LINES:
        pen.text((left, top), text, fill=30, font=ImageFont.load_default(size))
    return image.rotate(3, Image.Resampling.BICUBIC, fillcolor=235)


def main() -> None:
    """Draws, reads, writes."""
    from rapidocr import RapidOCR  # type: ignore[import-not-found]  # installed for this only

    draw().save(FIXTURES / "document.png", optimize=True)
    engine = RapidOCR(params={"Global.log_level": "warning", "Global.use_cls": False})
    found = engine(str(FIXTURES / "document.png"))
    lines = [
        {"text": text, "corners": [[float(x), float(y)] for x, y in corners]}
        for text, corners in zip(found.txts, found.boxes, strict=True)
    ]
    (FIXTURES / "rapidocr.json").write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
