"""JSON documents: ``SPLIT/images/`` and ``SPLIT/annotations/`` with each annotation as its task writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from keepsight.data.exporters.item import File, Item
from keepsight.data.importers.documents import ABOUT_THE_PICTURE

NAME = "json"
KIND = "JSON documents"
TAKES = "every annotation"


def place(item: Item) -> str:
    """Where the picture goes."""
    return f"{item.split}/images/{item.file}"


def refuses(item: Item) -> str | None:
    """Why an annotation cannot be written; None where it can."""
    both = sorted(ABOUT_THE_PICTURE & item.value.keys())
    return f"It has parts of its own called {', '.join(both)}." if both else None


def files(items: Sequence[Item]) -> Iterator[File]:
    """Each picture and its document."""
    for item in items:
        yield item.picture(place(item))
        about = {"image": item.file, "width": item.size[0], "height": item.size[1]}
        text = json.dumps({**about, **item.value}, ensure_ascii=False, indent=1)
        yield File(f"{item.split}/annotations/{item.stem}.json", f"{text}\n".encode())
