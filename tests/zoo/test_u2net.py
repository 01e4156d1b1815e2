"""The zoo's U2-Net answers as rembg does with the published file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from keepsight.errors import WeightsError
from keepsight.runtime.decode import decode
from keepsight.zoo import catalogue, fetch, pretrained, u2net
from tests import matting


def published(content: bytes, picture: Image.Image) -> np.ndarray:
    """The steps of rembg 2: by the brightest value, ImageNet's mean and deviation, least to 0 and most to 1."""
    pixels = np.asarray(picture.resize((320, 320), Image.Resampling.BILINEAR, reducing_gap=1.0)) / 1.0
    pixels = pixels / pixels.max()
    image = ((pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)[None].astype(np.float32)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: image})[0][0, 0]
    spread: np.ndarray = (found - found.min()) / (found.max() - found.min())
    return spread


def test_mattes_are_those_of_the_published_file(weights: Callable[[str], Path], test_data: Path) -> None:
    cache = weights("u2netp")
    network = pretrained.load("u2netp", task="segmentation", cache=cache)
    assert network.digest == pretrained.load("u2netp", cache=cache).digest
    content = fetch.read_weights(catalogue.entry("u2netp"), cache=cache)
    folder = test_data / "clothing-coparsing-masks" / "test" / "images"
    files = sorted(folder.glob("*.jpg"))[:2]
    tensors = np.stack([network.entry.preprocessing.apply(decode(file.read_bytes())) for file in files])
    tensors[1] /= 2  # a darker picture is brightened again inside
    session = onnxruntime.InferenceSession(network.content, providers=["CPUExecutionProvider"])
    features, alpha = session.run(["features", "alpha"], {"image": tensors})
    assert features.shape == (2, network.entry.features_dim)
    assert alpha.shape == (2, 320, 320)
    for file, found in zip(files, alpha, strict=True):
        assert np.abs(found - published(content, Image.open(file).convert("RGB"))).max() < 1e-3


def test_other_networks_are_refused() -> None:
    with pytest.raises(WeightsError, match="not an ONNX file"):
        u2net.build(b"nonsense")
    with pytest.raises(WeightsError, match="its input"):
        u2net.build(matting.network())


def test_the_entries_are_free_to_use() -> None:
    for name in ("u2netp", "u2net"):
        assert catalogue.entry(name, task="segmentation").licences == ("Apache-2.0", "MIT")
    assert catalogue.entries("segmentation")[0].name == "u2netp"
