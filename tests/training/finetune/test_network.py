from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from keepsight.errors import TrainingError
from keepsight.runtime.session import open_session
from keepsight.training.finetune.network import Tail, cuts, features_only, free_size, trunk, with_weights
from tests import tiny
from tests.training.finetune import small


def test_the_network_can_be_divided_where_all_of_it_flows_through_one_map() -> None:
    found = {cut.name: cut for cut in cuts(features_only(small.backbone().onnx))}

    assert list(found) == ["image", "stem", "deep", "wide"]  # inside the residual connection there are two
    assert found["wide"].shape == (16, 8, 8)
    assert 0.5 < found["wide"].trained < found["stem"].trained < 1


def test_a_network_without_weights_has_nothing_to_train() -> None:
    assert cuts(features_only(tiny.backbone().onnx)) == []


@pytest.mark.train
@pytest.mark.usefixtures("torch_installed")
@pytest.mark.parametrize("name", ["image", "stem", "deep", "wide"])
def test_trunk_and_tail_together_are_the_network(name: str) -> None:
    import torch

    model = features_only(small.backbone().onnx)
    cut = next(cut for cut in cuts(model) if cut.name == name)
    images = small.inputs(4)
    session: Any = open_session(small.backbone().onnx)
    expected = session.run(["features"], {"image": images})[0]
    part = trunk(model, cut)
    first: Any = open_session(part) if part else None
    maps = first.run(None, {"image": images})[0] if first else images
    tail = Tail(model, cut, half=True)

    with torch.no_grad():
        exact = tail(torch.from_numpy(maps), exact=True).numpy()
        rough = tail(torch.from_numpy(maps)).numpy()

    assert np.abs(exact - expected).max() < 1e-4
    assert 0 < np.abs(rough - expected).max() < 0.1


@pytest.mark.train
@pytest.mark.usefixtures("torch_installed")
def test_weights_go_back_into_the_graph_they_came_from() -> None:
    model = features_only(small.backbone().onnx)
    tail = Tail(model, next(cut for cut in cuts(model) if cut.name == "wide"))
    images = small.inputs(2)
    before: Any = open_session(small.backbone().onnx)

    same: Any = open_session(with_weights(model, tail.state()))
    other: Any = open_session(with_weights(model, {name: value * 0.5 for name, value in tail.state().items()}))

    expected = before.run(["features"], {"image": images})[0]
    assert np.abs(same.run(["features"], {"image": images})[0] - expected).max() < 1e-5
    assert np.abs(other.run(["features"], {"image": images})[0] - expected).max() > 0.01


def test_a_trunk_of_convolutions_takes_larger_pictures() -> None:
    model = features_only(small.backbone().onnx)
    cut = next(cut for cut in cuts(model) if cut.name == "wide")
    session: Any = open_session(trunk(model, cut, any_size=True))

    assert free_size(model)
    assert session.run(None, {"image": np.zeros((1, 3, 64, 64), np.float32)})[0].shape == (1, 16, 16, 16)


@pytest.mark.train
@pytest.mark.usefixtures("torch_installed")
def test_an_operation_that_cannot_be_followed_is_named() -> None:
    model = onnx.load_from_string(small.backbone().onnx)
    place = next(place for place, node in enumerate(model.graph.node) if node.output[0] == "inner")
    model.graph.node[place].CopyFrom(helper.make_node("Selu", ["inner.linear"], ["inner"]))
    network = features_only(model.SerializeToString())

    with pytest.raises(TrainingError, match="Selu"):
        Tail(network, cuts(network)[0])
