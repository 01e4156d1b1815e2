"""Class folders: ``SPLIT/CLASS/picture.jpg``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keepsight.data.exporters.item import File, Item, file_name

NAME = "folders"
KIND = "class folders"
TAKES = "one class for each picture"


def place(item: Item) -> str:
    """Where the picture goes."""
    return f"{item.split}/{item.text()}/{item.file}"


def refuses(item: Item) -> str | None:
    """Why an annotation cannot be written; None where it can."""
    text = item.text()
    if text is None:
        return "It is more than one class."
    if file_name(text) != text:
        return f'The class "{text}" cannot be the name of a folder.'
    return None


def files(items: Sequence[Item]) -> Iterator[File]:
    """Each picture in the folder of its class."""
    for item in items:
        yield item.picture(place(item))
