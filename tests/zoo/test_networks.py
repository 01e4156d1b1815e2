"""The networks of the catalogue give what torch gave: golden outputs in ``fixtures/``, made by ``make_golden.py``."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from keepsight.errors import WeightsError
from keepsight.zoo import catalogue, fetch

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = [entry.name for entry in catalogue.entries(catalogue.BACKBONE)]
BLOCKS = {"efficientnet-lite0": 16, "efficientnet-lite2": 21, "mobilenet-v2": 17}


def pictures(size: int) -> NDArray[np.float32]:
    """The pictures of ``make_golden.py``."""
    spec = importlib.util.spec_from_file_location("make_golden", Path(__file__).parent / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: NDArray[np.float32] = module.pictures(size)
    return made


def build(name: str, cache: Path) -> bytes:
    entry = catalogue.entry(name)
    return entry.builder(fetch.read_weights(entry, cache=cache))


def run(model: bytes, image: NDArray[np.float32], *names: str) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[Any]] = session.run(list(names), {"image": image})
    return outputs


@pytest.mark.parametrize("name", NAMES)
def test_features_and_logits_are_those_of_torch(name: str, weights: Callable[[str], Path]) -> None:
    entry = catalogue.entry(name)
    image = pictures(entry.preprocessing.size)
    features, logits = run(build(name, weights(name)), image, "features", "logits")
    with np.load(FIXTURES / f"{name}.npz") as golden:
        assert features.shape == (2, entry.features_dim)
        for found, expected in ((features, golden["features"]), (logits, golden["logits"])):
            assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
        assert (logits.argmax(axis=1) == golden["logits"].argmax(axis=1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_gives_the_same_alone_and_in_a_batch(name: str, weights: Callable[[str], Path]) -> None:
    model = build(name, weights(name))
    image = pictures(catalogue.entry(name).preprocessing.size)
    (together,) = run(model, np.concatenate([image, image[::-1]]), "features")
    for index, one in enumerate([*image, *image[::-1]]):
        np.testing.assert_allclose(run(model, one[None], "features")[0][0], together[index], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_can_be_cut_behind_each_block(name: str, weights: Callable[[str], Path]) -> None:
    model = onnx.load_model_from_string(build(name, weights(name)))
    made = {output for node in model.graph.node for output in node.output}
    blocks = [f"block{index}" for index in range(BLOCKS[name])]
    assert {"stem", "head", *blocks} <= made
    assert f"block{BLOCKS[name]}" not in made
    # What is behind a block takes nothing from before it: ancestors of the next block need only the last one's result.
    producers = {output: node for node in model.graph.node for output in node.output}
    for before, after in zip(blocks, [*blocks[1:], "head"], strict=True):
        open_names, reached = [after], set()
        while open_names:
            current = open_names.pop()
            if current != before and current in producers:
                open_names += producers[current].input
            reached.add(current)
        assert "image" not in reached


def test_the_default_graph_is_unchanged(weights: Callable[[str], Path]) -> None:
    """A changed graph makes every cached vector worthless: change this digest and ``GRAPH_VERSION`` on purpose only."""
    digest = hashlib.sha256(build("efficientnet-lite0", weights("efficientnet-lite0"))).hexdigest()
    assert digest == "f04a28b13da5960e1e49ed09c1a8131985bc1ffb5a0a41a2b3594e12f2abd2b2"


def test_weights_of_another_network_are_refused(weights: Callable[[str], Path]) -> None:
    lite0 = fetch.read_weights(catalogue.entry("efficientnet-lite0"), cache=weights("efficientnet-lite0"))
    for name in ("efficientnet-lite2", "mobilenet-v2"):
        with pytest.raises(WeightsError, match=f"not those of {name}"):
            catalogue.entry(name).builder(lite0)


def test_neither_torch_nor_the_package_is_imported(weights: Callable[[str], Path]) -> None:
    code = (
        "import sys; from keepsight.zoo import catalogue, fetch; from pathlib import Path;"
        "entry = catalogue.entry('efficientnet-lite0');"
        f"entry.builder(fetch.read_weights(entry, cache=Path({str(weights(NAMES[0]))!r})));"
        "print([name for name in sys.modules if name.startswith(('torch', 'efficientnet'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
