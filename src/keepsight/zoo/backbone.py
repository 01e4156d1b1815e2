"""Loads a backbone: the ONNX graph that turns pictures into features, with all that training must know about it.

A name of the catalogue gives a graph built from verified weights (kept in the cache, since building takes longer than
reading). ``timm/NAME`` gives any network of timm, by ``keepsight.zoo.timm_models``. A path ending in ``.onnx`` gives
the user's own network, adapted by ``keepsight.zoo.own``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

from keepsight.errors import BadInputError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.zoo import catalogue, own, pretrained, timm_models, torch_networks


@dataclass(frozen=True)
class Backbone:
    """A network without a head.

    Attributes:
        name: The catalogue's name, ``timm/NAME``, or the file name of the user's own.
        onnx: The serialised model: input ``image`` (n, 3, size, size) float32, output ``features`` (n, d) float32, and
            ``logits`` of the original classifier for those of the catalogue.
        digest: sha256 of ``onnx`` in hex; with the preprocessing's digest it names the vectors that the backbone makes.
        preprocessing: How a picture becomes ``image``.
        features_dim: d.
        licences: SPDX identifiers, the weights' first.
        weights: The file with the weights of a timm network, as ``torch_networks.load`` takes it; None for others.
    """

    name: str
    onnx: bytes = field(repr=False)
    digest: str
    preprocessing: Preprocessing
    features_dim: int
    licences: tuple[str, ...]
    weights: Path | None = field(default=None, repr=False, compare=False)


def load_backbone(
    name_or_path: str | Path,
    *,
    cache: Path | None = None,
    preprocessing: Preprocessing | None = None,
    weights: Path | None = None,
    allowed_licences: Iterable[str] = (),
) -> Backbone:
    """The backbone of that name, or the one in that ``.onnx`` file.

    Args:
        name_or_path: A name of the catalogue, ``timm/NAME``, or a path that ends in ``.onnx``.
        cache: The folder for weights and graphs; ``fetch.default_cache()`` when not given.
        preprocessing: For a file only: size, mean and deviation, instead of the ``.json`` file beside it.
        weights: For a timm network only: a file with its weights, instead of those that were fetched or the hub's.
        allowed_licences: Restricted licences (see ``keepsight.zoo.licences``) that the user takes nevertheless.

    Raises:
        NotFoundError: There is no such name.
        BadInputError: A preprocessing or weights were given for a backbone that has its own.
        MissingExtraError: The timm network is not in the cache, and torch or timm is not installed.
        WeightsError: The weights are not on this machine, not genuine or under a restricted licence, or the user's file
            cannot serve as a backbone.
    """
    if isinstance(name_or_path, Path) or name_or_path.endswith(".onnx"):
        torch_networks.refuse_weights(Path(name_or_path).name, weights)
        network = own.adapt(Path(name_or_path), preprocessing=preprocessing)
        return Backbone(
            name=network.name,
            onnx=network.onnx,
            digest=hashlib.sha256(network.onnx).hexdigest(),
            preprocessing=network.preprocessing,
            features_dim=network.features_dim,
            licences=network.licences,
        )
    if name_or_path.startswith(torch_networks.TIMM_PREFIX):
        made = timm_models.load(name_or_path, cache=cache, weights=weights, allowed_licences=allowed_licences)
        _check_preprocessing(made.name, preprocessing, made.preprocessing)
        return Backbone(**{item.name: getattr(made, item.name) for item in fields(Backbone)})
    entry = catalogue.entry(name_or_path, task=catalogue.BACKBONE)
    torch_networks.refuse_weights(entry.name, weights)
    _check_preprocessing(entry.name, preprocessing, entry.preprocessing)
    model = pretrained.build(entry, cache=cache)
    return Backbone(
        name=entry.name,
        onnx=model,
        digest=hashlib.sha256(model).hexdigest(),
        preprocessing=entry.preprocessing,
        features_dim=entry.features_dim,
        licences=entry.licences,
    )


def _check_preprocessing(name: str, given: Preprocessing | None, own_: Preprocessing) -> None:
    if given is not None and given != own_:
        raise BadInputError(
            f"Another preprocessing was given for {name}.",
            expected="none: the weights were trained with one of their own.",
            do="Leave it out, or name your own .onnx file.",
        )
