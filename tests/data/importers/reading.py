"""Reads what an importer finds, as an import into a project would."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keepsight.data.importers import formats, marks
from keepsight.data.importers.formats import Format
from keepsight.data.importers.source import Source
from keepsight.errors import AnnotationError
from keepsight.runtime import decode

WIDTH, HEIGHT = 60, 40


@dataclass(frozen=True)
class Reading:
    """Raw annotations by name, faults by (name and where, code), and the source itself."""

    values: dict[str, Any]
    faults: dict[str, str]
    splits: dict[str, str | None]
    source: Source


def read(format: Format | str, path: Path, *parts: str) -> Reading:
    """What a format says at a path to a task that takes these parts."""
    module = next(item for item in formats.FORMATS if format == item.NAME) if isinstance(format, str) else format
    assert module.looks(path)
    source = module.scan(path)
    values: dict[str, Any] = {}
    faults = {item.name: item.code for item in source.rejected}
    for entry in source.entries:
        values[entry.name] = None
        if entry.marks is None:
            continue
        info = decode.probe(entry.path.read_bytes())
        size = info.width, info.height
        try:
            raw, found = marks.annotation(entry.marks(size), parts=frozenset(parts), size=size)
        except AnnotationError as error:
            faults[entry.name] = error.code
            continue
        values[entry.name] = raw
        faults |= {f"{entry.name}: {item.where}" if item.where else entry.name: item.code for item in found}
    return Reading(values, faults, {entry.name: entry.split for entry in source.entries}, source)


def put(path: Path, seed: int = 0, *, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """A picture of its own for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue())
    return path


def text(path: Path, content: str) -> Path:
    """A text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path
