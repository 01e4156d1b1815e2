"""Backbones as torch networks in stages, for recipes that train more than a head; needs the extra [train].

The stages, run one after the other, and the pool behind them give the ``features`` of the ONNX graph of the same name
(``keepsight.zoo.backbone``) within 1e-4. Where that graph has places to be cut, the stages carry their names: ``stem``,
``block0``, ``block1``, ... and ``head``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from keepsight.errors import BadInputError, MissingExtraError, WeightsError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.zoo import catalogue, fetch, timm_stages, torchfile
from keepsight.zoo.entry import Entry
from keepsight.zoo.timm_stages import Stages

if TYPE_CHECKING:
    from torch import nn

TIMM_PREFIX = "timm/"


@dataclass(frozen=True)
class TorchNetwork:
    """A pretrained network without its classifier, in eval mode, on the CPU; nothing else holds its parameters.

    Attributes:
        name: What users call it.
        stages: Name and module, in order: the image tensor (n, 3, size, size) goes into the first, and the last gives
            the feature map, (n, c, h, w) for a convolutional network and tokens (n, t, c) for a transformer. The
            network may be cut between any two. One that cannot be cut has the single stage ``all``, which gives the
            features themselves.
        pool: What the last stage gives -> features (n, d). It may have parameters too, such as a norm.
        features_dim: d.
        preprocessing: How a picture becomes the image tensor.
        licences: SPDX identifiers, the weights' first.
    """

    name: str
    stages: Stages = field(repr=False)
    pool: nn.Module = field(repr=False)
    features_dim: int
    preprocessing: Preprocessing
    licences: tuple[str, ...]


def load(name: str, *, cache: Path | None = None, weights: Path | None = None) -> TorchNetwork:
    """The backbone of that name as a torch network.

    Args:
        name: A name of the catalogue, or ``timm/NAME``.
        cache: The folder for weights; ``fetch.default_cache()`` when not given.
        weights: For a timm network only: a file with its weights, instead of those that were fetched.

    Raises:
        MissingExtraError: torch or timm is not installed.
        NotFoundError: There is no such name.
        BadInputError: ``name`` is an ONNX file, or ``weights`` was given for a name of the catalogue.
        WeightsError: The weights are not on this machine, not genuine, or those of another network.
    """
    if name.endswith(".onnx"):
        raise BadInputError(
            f"{Path(name).name} is an ONNX file, which only gives features.",
            expected="for fine-tuning, a backbone whose layers can be trained: a name from `keepsight zoo list`.",
            do='Name another backbone in train.backbone, or use the recipe "head".',
        )
    if name.startswith(TIMM_PREFIX):
        from keepsight.zoo import timm_models

        return timm_models.network(name, cache=cache, weights=weights)
    entry = catalogue.entry(name, task=catalogue.BACKBONE)
    refuse_weights(entry.name, weights)
    make = _BUILDERS[entry.name]
    network = make(entry, torchfile.parse(fetch.read_weights(entry, cache=cache), name=entry.filename))
    for _, stage in network.stages:
        stage.eval()
    return network


def refuse_weights(name: str, weights: Path | None) -> None:
    """Refuses a weights file for a backbone that has its own.

    Raises:
        BadInputError: There is one.
    """
    if weights is not None:
        raise BadInputError(
            f"The weights file {weights.name} was given for {name}.",
            expected=f"a weights file for {TIMM_PREFIX}NAME only; {name} brings its own.",
            do="Leave train.weights empty, or name the timm network in train.backbone.",
        )


def import_timm() -> Any:
    """The module ``timm``.

    Raises:
        MissingExtraError: It or torch is not installed.
    """
    try:
        import timm
        import torch  # noqa: F401 - timm without torch would fail later
        import torchvision  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is not installed, which this backbone or recipe is built with.",
            expected='the extra "train".',
            do='Run `pip install "keepsight[train]"`.',
            extra="train",
        ) from error
    return timm


def _lite(entry: Entry, tensors: Mapping[str, NDArray[Any]]) -> TorchNetwork:
    """timm has the same network with the tensors in the same order, under other names."""
    timm = import_timm()
    model = timm.create_model(f"tf_{entry.name.replace('-', '_')}", pretrained=False)
    own = model.state_dict()
    if [tensor.shape for tensor in tensors.values()] != [tuple(tensor.shape) for tensor in own.values()]:
        raise _foreign(entry, "its tensors have other shapes")
    _fill(model, dict(zip(own, tensors.values(), strict=True)))
    return _network(entry, timm_stages.efficientnet(model), model.global_pool)


def _mobilenet_v2(entry: Entry, tensors: Mapping[str, NDArray[Any]]) -> TorchNetwork:
    """The network that the weights are from, torchvision's."""
    import_timm()
    from torch import nn
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2(weights=None)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        raise _foreign(entry, "its tensors have other names or shapes")
    _fill(model, tensors)
    first, *blocks, last = model.features
    stages = (
        ("stem", first),
        *((f"block{index}", block) for index, block in enumerate(blocks)),
        ("head", last),
    )
    return _network(entry, stages, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1)))


_BUILDERS: dict[str, Callable[[Entry, Mapping[str, NDArray[Any]]], TorchNetwork]] = {
    "efficientnet-lite0": _lite,
    "efficientnet-lite2": _lite,
    "mobilenet-v2": _mobilenet_v2,
}


def _fill(model: Any, tensors: Mapping[str, NDArray[Any]]) -> None:
    import torch

    # A copy of its own: the arrays are read-only views of the file.
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in tensors.items()}, strict=True)


def _network(entry: Entry, stages: Stages, pool: nn.Module) -> TorchNetwork:
    return TorchNetwork(
        name=entry.name,
        stages=stages,
        pool=pool,
        features_dim=entry.features_dim,
        preprocessing=entry.preprocessing,
        licences=entry.licences,
    )


def _foreign(entry: Entry, reason: str) -> WeightsError:
    return WeightsError(
        f"The weights file {entry.filename} does not fit the torch network of {entry.name}: {reason}.",
        expected="versions of timm and torchvision in which the network has its known layers.",
        do='Run `pip install "keepsight[train]"`, which brings versions that fit.',
        backbone=entry.name,
        reason=reason,
    )
