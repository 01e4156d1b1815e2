"""The catalogue's backbones as torch networks: the same features as their graphs, in stages of the same names."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from keepsight.errors import BadInputError, MissingExtraError, NotFoundError
from keepsight.runtime.session import open_session, run
from keepsight.zoo import catalogue, torch_networks
from keepsight.zoo.backbone import load_backbone
from keepsight.zoo.torch_networks import TorchNetwork

NAMES = [entry.name for entry in catalogue.entries(catalogue.BACKBONE)]


def features(network: TorchNetwork, image: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    x = torch.from_numpy(image)
    with torch.no_grad():
        for _, stage in network.stages:
            x = stage(x)
        found: NDArray[np.float32] = network.pool(x).numpy()
    return found


def drawn() -> list[bytes]:
    """Files of two pictures with edges, shades and grain, for where no photographs are at hand."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:240, 0:320]
    shades = np.stack([rows % 256, columns % 256, (rows * columns // 64) % 256], axis=2)
    files = []
    for grain in (10, 60):
        pixels = np.clip(shades + rng.normal(0, grain, shades.shape), 0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=90)
        files.append(out.getvalue())
    return files


def agree(name: str, cache: Path, files: list[bytes]) -> None:
    backbone = load_backbone(name, cache=cache)
    network = torch_networks.load(name, cache=cache)
    image = np.stack([network.preprocessing.from_bytes(data)[0] for data in files])
    expected = run(open_session(backbone.onnx, threads=1), image, outputs=["features"])["features"]
    np.testing.assert_allclose(features(network, image), expected, atol=1e-4, rtol=0)
    assert network.features_dim == expected.shape[1]


@pytest.mark.train
@pytest.mark.parametrize("name", NAMES)
def test_the_features_are_those_of_the_graph(name: str, weights: Callable[[str], Path], torch_installed: None) -> None:
    agree(name, weights(name), drawn())


@pytest.mark.train
@pytest.mark.pictures
@pytest.mark.parametrize("name", NAMES)
def test_the_features_of_photographs_are_those_of_the_graph(
    name: str, weights: Callable[[str], Path], torch_installed: None, test_data: Path
) -> None:
    files = sorted((test_data / "grocery-store").rglob("*.jpg"))[:300:100]
    agree(name, weights(name), [path.read_bytes() for path in files])


@pytest.mark.train
@pytest.mark.parametrize("name", NAMES)
def test_stages_carry_the_names_and_shapes_of_the_graph(
    name: str, weights: Callable[[str], Path], torch_installed: None
) -> None:
    import torch

    cache = weights(name)
    network = torch_networks.load(name, cache=cache)
    model = onnx.load_model_from_string(load_backbone(name, cache=cache).onnx)
    stages = dict(network.stages)
    outputs = [output for node in model.graph.node for output in node.output if output in stages]
    assert outputs == list(stages)
    size = network.preprocessing.size
    x = torch.zeros(1, 3, size, size)
    image = np.zeros((1, 3, size, size), np.float32)
    for value in outputs:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(value))
    expected = run(open_session(model.SerializeToString(), threads=1), image, outputs=outputs)
    for stage, module in network.stages:
        with torch.no_grad():
            x = module(x)
        np.testing.assert_allclose(x.numpy(), expected[stage], atol=1e-3)


@pytest.mark.train
def test_two_networks_share_no_weights_and_are_ready_to_answer(
    weights: Callable[[str], Path], torch_installed: None
) -> None:
    import torch

    first, second = (torch_networks.load(NAMES[0], cache=weights(NAMES[0])) for _ in range(2))
    assert not any(module.training for _, stage in first.stages for module in stage.modules())
    with torch.no_grad():
        for _, stage in first.stages:
            for parameter in stage.parameters():
                parameter.zero_()
    image = np.ones((1, 3, 224, 224), np.float32)
    assert np.abs(features(first, image)).max() == 0
    assert np.abs(features(second, image)).max() > 0.1


def test_what_cannot_be_a_torch_network_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="efficientnet-lite9"):
        torch_networks.load("efficientnet-lite9", cache=tmp_path)
    with pytest.raises(BadInputError, match=r"mine\.onnx"):
        torch_networks.load("folder/mine.onnx", cache=tmp_path)
    with pytest.raises(BadInputError, match="brings its own"):
        torch_networks.load("mobilenet-v2", cache=tmp_path, weights=tmp_path / "other.pth")
    with pytest.raises(BadInputError, match="brings its own"):
        load_backbone("mobilenet-v2", cache=tmp_path, weights=tmp_path / "other.pth")


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"keepsight\[train\]"):
        torch_networks.load("efficientnet-lite0", cache=tmp_path)
    with pytest.raises(MissingExtraError, match=r"keepsight\[train\]"):
        load_backbone("timm/resnet18.a1_in1k", cache=tmp_path)
