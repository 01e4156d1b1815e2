"""Loads a backbone: the ONNX graph that turns pictures into features, with all that training must know about it.

A name of the catalogue gives a graph built from verified weights (kept in the cache, since building takes longer than
reading). A path ending in ``.onnx`` gives the user's own network, adapted by ``keepsight.zoo.own``.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

from keepsight.errors import BadInputError, StorageError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.zoo import catalogue, fetch, own, torchfile
from keepsight.zoo.catalogue import Entry
from keepsight.zoo.graph import GRAPH_VERSION

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backbone:
    """A network without a head.

    Attributes:
        name: The catalogue's name, or the file name of the user's own.
        onnx: The serialised model: input ``image`` (n, 3, size, size) float32, output ``features`` (n, d) float32, and
            ``logits`` of the original classifier for those of the catalogue.
        digest: sha256 of ``onnx`` in hex; with the preprocessing's digest it names the vectors that the backbone makes.
        preprocessing: How a picture becomes ``image``.
        features_dim: d.
        licences: SPDX identifiers, the weights' first.
    """

    name: str
    onnx: bytes = field(repr=False)
    digest: str
    preprocessing: Preprocessing
    features_dim: int
    licences: tuple[str, ...]


def load_backbone(
    name_or_path: str | Path, *, cache: Path | None = None, preprocessing: Preprocessing | None = None
) -> Backbone:
    """The backbone of that name, or the one in that ``.onnx`` file.

    Args:
        name_or_path: A name of the catalogue, or a path that ends in ``.onnx``.
        cache: The folder for weights and graphs; ``fetch.default_cache()`` when not given.
        preprocessing: For a file only: size, mean and deviation, instead of the ``.json`` file beside it.

    Raises:
        NotFoundError: The catalogue has no such name.
        WeightsError: The weights are not on this machine or not genuine, or the user's file cannot serve as a backbone.
    """
    if isinstance(name_or_path, Path) or name_or_path.endswith(".onnx"):
        network = own.adapt(Path(name_or_path), preprocessing=preprocessing)
        return Backbone(
            name=network.name,
            onnx=network.onnx,
            digest=hashlib.sha256(network.onnx).hexdigest(),
            preprocessing=network.preprocessing,
            features_dim=network.features_dim,
            licences=network.licences,
        )
    entry = catalogue.entry(name_or_path)
    if preprocessing is not None and preprocessing != entry.preprocessing:
        raise BadInputError(
            f"Another preprocessing was given for {entry.name}.",
            expected="none: the weights were trained with the catalogue's.",
            do="Leave it out, or name your own .onnx file.",
        )
    model = _cached_graph(entry, cache or fetch.default_cache())
    return Backbone(
        name=entry.name,
        onnx=model,
        digest=hashlib.sha256(model).hexdigest(),
        preprocessing=entry.preprocessing,
        features_dim=entry.features_dim,
        licences=entry.licences,
    )


def _cached_graph(entry: Entry, cache: Path) -> bytes:
    """The entry's graph from the cache where file and digest agree, else built from the weights and kept there."""
    path = cache / "onnx" / f"{entry.name}-{entry.sha256[:16]}-g{GRAPH_VERSION}.onnx"
    digest_path = path.with_suffix(".sha256")
    try:
        model = path.read_bytes()
        expected = digest_path.read_text("ascii", errors="replace").strip()
    except FileNotFoundError:
        pass
    except OSError as error:
        _log.warning("The cached graph %s cannot be read: %s.", path, error.strerror)
    else:
        if hashlib.sha256(model).hexdigest() == expected:
            return model
        _log.warning("The cached graph %s is damaged; it is built again from the weights.", path)
    model = entry.builder(torchfile.parse(fetch.read_weights(entry, cache=cache), name=entry.filename))
    try:
        fetch.write_atomically(path, model)
        fetch.write_atomically(digest_path, hashlib.sha256(model).hexdigest().encode())
    except StorageError as error:
        # The graph itself is fine; only the next start is slower.
        _log.warning("The graph of %s is not kept for the next start. %s", entry.name, error)
    return model
