"""Pictures for people: decoded by the runtime, scaled down, written as JPEG without any metadata of the original."""

from __future__ import annotations

import io

from PIL import Image

from keepsight.errors import BadInputError
from keepsight.runtime.decode import decode
from keepsight.store.workspace import Workspace

SIDES = (160, 320, 1000, 2400)
QUALITY = 86


def scaled(ws: Workspace, picture_id: str, *, side: int) -> bytes:
    """A JPEG whose longer side is at most ``side`` pixels; small pictures keep their size.

    Nothing is stored: what does not exist need not be found when the picture is erased.

    Raises:
        BadInputError: Another size than those offered. NotFoundError: No such picture, or it was erased.
    """
    if side not in SIDES:
        raise BadInputError(
            f"The side is {side}.", expected="one of " + ", ".join(map(str, SIDES)) + ".", do="Ask for one of these."
        )
    # Decoded no smaller than needed: of a long picture the short side may be far below `side`.
    pixels = decode(ws.blobs.get(picture_id), min_side=side)
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
