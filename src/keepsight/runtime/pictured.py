"""An answer as a picture: what a task makes of the picture itself, such as its foreground on a white background.

A task offers this with a function ``pictured(answer, image, *, background)`` in its output module: RGB or RGBA, uint8,
of the size of the picture, from an answer (or an annotation) as JSON and the picture at full size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from keepsight.errors import BadInputError, PictureTooLargeError
from keepsight.runtime.cutout import Background
from keepsight.runtime.decode import DEFAULT_LIMITS, Limits, decode, probe
from keepsight.runtime.outputs import output_module, tasks

MOST_PIXELS = 50_000_000
"""The largest picture that is made into another: about 25 bytes of memory for each pixel are needed meanwhile."""

MEDIA_TYPE = "image/png"
# A little larger than it could be, in half the time.
_COMPRESSION = 3
_NOTHING = ("", "none", "transparent")

Pictured = Callable[..., NDArray[np.uint8]]


def offered(task: str) -> bool:
    """Whether answers of a task can be pictures."""
    return hasattr(output_module(task), "pictured")


def check(task: str) -> None:
    """Makes sure that answers of a task can be pictures.

    Raises:
        BadInputError: They cannot; names the tasks whose can.
    """
    if not offered(task):
        able = ", ".join(name for name in tasks() if offered(name))
        raise BadInputError(
            f"Answers of the task {task} are no pictures.",
            expected=f"a project of another task: {able}.",
            do="Ask for the answer itself, as JSON.",
            task=task,
        )


def colour(text: str) -> Background:
    """The background meant by a colour's name or hexadecimal number; None for a transparent one.

    Raises:
        BadInputError: It is no colour.

    >>> colour("white"), colour("#1e90ff"), colour("transparent")
    ((255, 255, 255), (30, 144, 255), None)
    """
    if text.strip().lower() in _NOTHING:
        return None
    try:
        red, green, blue = ImageColor.getrgb(text.strip())[:3]
    except ValueError:
        raise BadInputError(
            f'The background "{text[:60]}" is no colour.',
            expected="a name such as white, a number such as #1e90ff, or transparent.",
            do="Correct it; in a URL write %23 for #.",
        ) from None
    return min(max(red, 0), 255), min(max(green, 0), 255), min(max(blue, 0), 255)


def picture(
    task: str,
    answer: Mapping[str, Any],
    data: bytes,
    *,
    background: Background = None,
    limits: Limits = DEFAULT_LIMITS,
) -> bytes:
    """The PNG that a task makes of a picture and the answer to it.

    Args:
        task: A task that offers this.
        answer: As the model gave it, or an annotation.
        data: The picture's file.
        background: A colour, a picture, or None.
        limits: The largest picture taken; here at most 50 million pixels.

    Raises:
        BadInputError: The task offers none.
        PictureError: The picture cannot be read, or is too large for this.
    """
    check(task)
    info = probe(data, limits=limits)
    if info.width * info.height > MOST_PIXELS:
        raise PictureTooLargeError(
            f"The picture has {info.width:,} x {info.height:,} pixels.",
            expected=f"at most {MOST_PIXELS:,} where the answer is to be a picture.",
            do="Scale the picture down, or ask for the answer as JSON.",
            width=info.width,
            height=info.height,
            max_pixels=MOST_PIXELS,
        )
    pictured: Pictured = getattr(output_module(task), "pictured")  # noqa: B009 - not every module has it
    made = pictured(answer, decode(data, limits=limits), background=background)
    out = io.BytesIO()
    Image.fromarray(made).save(out, "PNG", compress_level=_COMPRESSION)
    return out.getvalue()
