"""The mistakes of a report as small pictures: where the model looked, and what it finds most alike."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from keepsight.errors import NotFoundError, PictureError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.decode import decode
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.assessment import explain
from keepsight.training.evaluation import stored
from keepsight.training.reports.content import Content

# A file of some two megabytes; further mistakes stand in the table.
MOST_SHOWN = 24
SIDE, SMALL = 240, 96


@dataclass(frozen=True)
class Shown:
    """One mistake as pictures, all JPEG.

    Attributes:
        mistake: Its row of the evaluation.
        picture: The picture itself.
        lit: The same, lit where something spoke for the wrong answer; None where that cannot be shown.
        nearest: ``(label, cosine, picture)`` of the most similar training pictures.
    """

    mistake: Mapping[str, Any]
    picture: bytes = field(repr=False)
    lit: bytes | None = field(repr=False)
    nearest: tuple[tuple[str, float, bytes], ...] = field(repr=False)


def show_mistakes(
    ws: Workspace,
    content: Content,
    *,
    most: int = MOST_SHOWN,
    progress: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> list[Shown]:
    """The surest mistakes as pictures; those that cannot be read any more are left out."""
    rows = content.evaluation.get("mistakes", [])[:most]
    if not rows:
        return []
    bundle = models.load_bundle(ws, content.model)
    found = []
    for number, row in enumerate(rows, 1):
        data = stored(ws, row["picture_id"])
        picture = None if data is None else small(data, side=SIDE)
        if data is not None and picture is not None:
            alike = [(entry["label"], entry["cosine"], _small_of(ws, entry["picture_id"])) for entry in row["nearest"]]
            nearest = tuple((label, cosine, thumb) for label, cosine, thumb in alike if thumb is not None)
            found.append(Shown(row, picture, lit(bundle, data, row["predicted"]), nearest))
        progress({"text": "drawing mistakes", "done": number, "total": len(rows)})
    return found


def lit(bundle: Bundle, data: bytes, label: str, *, side: int = SIDE) -> bytes | None:
    """A JPEG of a picture with what speaks for a class; None where the model or the picture does not allow it."""
    try:
        heat = explain.class_activation_map(bundle, data, label=label)
        return None if heat is None else explain.overlay(data, heat, bundle.info.preprocessing, side=side)
    except (PictureError, NotFoundError):
        return None


def small(data: bytes, *, side: int) -> bytes | None:
    """A JPEG of a picture, its longer side at most ``side`` pixels; None where it cannot be read."""
    try:
        picture = Image.fromarray(decode(data, min_side=side))
    except PictureError:
        return None
    picture.thumbnail((side, side))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return out.getvalue()


def _small_of(ws: Workspace, picture_id: str) -> bytes | None:
    data = stored(ws, picture_id)
    return None if data is None else small(data, side=SMALL)
