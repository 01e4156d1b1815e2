"""Pretrained networks ready to use: built from verified weights once and kept in the cache."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from keepsight.errors import StorageError
from keepsight.zoo import catalogue, fetch, licences
from keepsight.zoo.entry import Entry

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrained:
    """What an entry's builder made.

    Attributes:
        entry: Name, licence, preprocessing, labels.
        content: An ONNX network, or another part of a model.
        digest: sha256 of ``content`` in hex.
    """

    entry: Entry
    content: bytes = field(repr=False)
    digest: str


def load(
    name: str, *, task: str | None = None, cache: Path | None = None, allowed_licences: Iterable[str] = ()
) -> Pretrained:
    """The pretrained network or part of that name; nothing is downloaded.

    Args:
        name: As `keepsight zoo list` has it.
        task: What it must be for; None: anything.
        cache: The folder for weights and networks; ``fetch.default_cache()`` when not given.
        allowed_licences: Restricted licences (see ``keepsight.zoo.licences``) that the user takes nevertheless.

    Raises:
        NotFoundError: There is no such name.
        WeightsError: The weights are not on this machine (it says how to fetch them), not genuine, or under a
            restricted licence.
    """
    entry = catalogue.entry(name, task=task)
    for licence in entry.licences:
        licences.check(entry.name, licence, allowed=allowed_licences)
    content = build(entry, cache=cache)
    return Pretrained(entry, content, hashlib.sha256(content).hexdigest())


def build(entry: Entry, *, cache: Path | None = None) -> bytes:
    """What the entry's builder makes, from the cache where file and digest agree, else built from the weights."""
    folder = cache or fetch.default_cache()
    path = folder / "onnx" / f"{entry.name}-{entry.sha256[:16]}-g{entry.graph_version}.onnx"
    digest_path = path.with_suffix(".sha256")
    try:
        content = path.read_bytes()
        expected = digest_path.read_text("ascii", errors="replace").strip()
    except FileNotFoundError:
        pass
    except OSError as error:
        _log.warning("The cached graph %s cannot be read: %s.", path, error.strerror)
    else:
        if hashlib.sha256(content).hexdigest() == expected:
            return content
        _log.warning("The cached graph %s is damaged; it is built again from the weights.", path)
    content = entry.builder(fetch.read_weights(entry, cache=folder))
    try:
        fetch.write_atomically(path, content)
        fetch.write_atomically(digest_path, hashlib.sha256(content).hexdigest().encode())
    except StorageError as error:
        # What was built is fine; only the next start is slower.
        _log.warning("The graph of %s is not kept for the next start. %s", entry.name, error)
    return content
