"""Small real videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}
CODECS = {".mp4": "mpeg4", ".mov": "mpeg4", ".webm": "libvpx"}


def clip(
    path: Path,
    colours: Sequence[str] = ("red", "green", "blue"),
    *,
    seconds: float = 3.0,
    fps: int = 10,
    side: int = 48,
) -> Path:
    """A video that shows each colour for so many seconds; its left half is darker."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix], rate=fps)
        stream.width, stream.height, stream.pix_fmt = 2 * side, side, "yuv420p"
        for colour in colours:
            pixels = np.zeros((side, 2 * side, 3), np.uint8) + np.array(COLOURS[colour], np.uint8)
            pixels[:, :side] //= 2
            for _ in range(round(seconds * fps)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path
