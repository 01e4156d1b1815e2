"""Loading a backbone by name or by path."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from keepsight.errors import BadInputError, NotFoundError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.zoo import catalogue
from keepsight.zoo.backbone import load_backbone


def test_a_name_gives_a_network_with_all_that_training_needs(tmp_path: Path) -> None:
    backbone = load_backbone("efficientnet-lite0", cache=tmp_path)
    assert backbone.digest == hashlib.sha256(backbone.onnx).hexdigest()
    assert backbone.preprocessing == catalogue.entry("efficientnet-lite0").preprocessing
    assert backbone.licences == ("Apache-2.0",)
    session = onnxruntime.InferenceSession(backbone.onnx, providers=["CPUExecutionProvider"])
    (features,) = session.run(["features"], {"image": np.zeros((1, 3, 224, 224), np.float32)})
    assert features.shape == (1, backbone.features_dim)


def test_the_graph_is_kept_and_read_again(tmp_path: Path) -> None:
    first = load_backbone("efficientnet-lite0", cache=tmp_path)
    (graph,) = tmp_path.glob("onnx/*.onnx")
    assert graph.read_bytes() == first.onnx
    kept = graph.stat().st_mtime_ns
    assert load_backbone("efficientnet-lite0", cache=tmp_path) == first
    assert graph.stat().st_mtime_ns == kept


@pytest.mark.parametrize("spoil", ["content", "digest", "no digest"])
def test_a_damaged_cached_graph_is_built_again(tmp_path: Path, spoil: str, caplog: pytest.LogCaptureFixture) -> None:
    first = load_backbone("efficientnet-lite0", cache=tmp_path)
    (graph,) = tmp_path.glob("onnx/*.onnx")
    digest = graph.with_suffix(".sha256")
    if spoil == "content":
        graph.write_bytes(first.onnx[:-1] + b"\xff")
    elif spoil == "digest":
        digest.write_bytes(b"\xff\xfe")
    else:
        digest.unlink()
    with caplog.at_level(logging.WARNING):
        assert load_backbone("efficientnet-lite0", cache=tmp_path) == first
    assert graph.read_bytes() == first.onnx
    assert digest.read_text() == first.digest
    assert ("damaged" in caplog.text) == (spoil != "no digest")


@pytest.mark.parametrize("kind", ["a file", "an impossible name"])
def test_a_cache_that_cannot_be_used_costs_only_time(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    cache = tmp_path / "cache" if kind == "a file" else tmp_path / ("x" * 300)
    with caplog.at_level(logging.WARNING):
        backbone = load_backbone("efficientnet-lite0", cache=cache)
    assert backbone.features_dim == 1280
    assert len(repr(backbone)) < 1000
    assert "not kept" in caplog.text


@pytest.mark.parametrize("name", ["efficientnet-lite2", "mobilenet-v2"])
def test_fetched_weights_load_by_name(name: str, weights: Callable[[str], Path]) -> None:
    assert load_backbone(name, cache=weights(name)).name == name


def test_a_path_gives_the_users_own_network(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["picture"], ["mean"], axes=[2, 3], keepdims=0)],
        "own",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["n", 3])],
    )
    path = tmp_path / "mine.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    preprocessing = Preprocessing(size=8)
    backbone = load_backbone(str(path), cache=tmp_path / "cache", preprocessing=preprocessing)
    assert (backbone.name, backbone.features_dim, backbone.preprocessing) == ("mine", 3, preprocessing)
    assert backbone.digest == hashlib.sha256(backbone.onnx).hexdigest()
    assert load_backbone(path, preprocessing=preprocessing) == backbone


def test_an_unknown_name_and_a_foreign_preprocessing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="efficientnet-lite9"):
        load_backbone("efficientnet-lite9", cache=tmp_path)
    with pytest.raises(BadInputError, match="preprocessing"):
        load_backbone("efficientnet-lite0", cache=tmp_path, preprocessing=Preprocessing(size=192))
