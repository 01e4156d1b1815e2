"""Small real pictures, and a tiny real network that makes vectors of them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from keepsight.data import adding, samples
from keepsight.data.adding import AddReport, NewSample, Rejected
from keepsight.runtime.preprocess import Preprocessing
from keepsight.store.workspace import Workspace
from keepsight.zoo.backbone import Backbone

SIDE = 8
DIMENSIONS = 3 * SIDE * SIDE


def build_picture(seed: int, *, light: float = 1.0, kind: str = "PNG", side: int = SIDE) -> bytes:
    """A picture of its own for each seed; ``light`` makes near-duplicates."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3)) * light
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, kind)
    return out.getvalue()


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """A network whose features are the pixels themselves: alike pictures have alike vectors."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", DIMENSIONS])
    graph = helper.make_graph([helper.make_node("Flatten", ["image"], ["features"])], "tiny", [image], [features])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = onnx.ModelProto.SerializeToString(model)
    return Backbone(
        name="tiny",
        onnx=content,
        digest=hashlib.sha256(content).hexdigest(),
        preprocessing=Preprocessing(size=SIDE, mean=(127.0,) * 3, std=(64.0,) * 3),
        features_dim=DIMENSIONS,
        licences=("Apache-2.0",),
    )


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """``picture(seed, light=1.0, kind="PNG", side=8)``: the bytes of a picture file."""
    return build_picture


class Shop:
    """Shorthand for the project shop."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def add(self, *items: NewSample | Rejected) -> AddReport:
        return adding.add(self.workspace, "shop", items, author="me", threads=2)

    def fill(self, count: int, *, classes: int = 2, split: str = "train", first: int = 0) -> list[str]:
        """Adds pictures ``first`` to ``first + count``, labelled c0, c1, ... in turn; their sample ids."""
        items = [
            NewSample(build_picture(seed), f"c{seed % classes}/{seed}.png", {"label": f"c{seed % classes}"}, split)
            for seed in range(first, first + count)
        ]
        assert self.add(*items).added == count
        return [self.id_of(seed) for seed in range(first, first + count)]

    def id_of(self, seed: int, *, light: float = 1.0) -> str:
        return self.sample_of(build_picture(seed, light=light))

    def sample_of(self, data: bytes) -> str:
        from keepsight.data import rows

        return rows.sample_id("shop", self.workspace.blobs.name(data))

    def label(self, sample_id: str, label: str, *, author: str = "reviewer") -> bool:
        with self.workspace.database.write() as connection:
            return samples.annotate(
                connection, self.workspace, "shop", sample_id, {"label": label}, author=author, origin="review"
            )

    def retract(self, sample_id: str) -> bool:
        with self.workspace.database.write() as connection:
            return samples.retract(connection, self.workspace, "shop", sample_id)

    def remove(self, sample_id: str) -> None:
        with self.workspace.database.write() as connection:
            samples.remove(connection, self.workspace, "shop", sample_id)

    def move(self, sample_id: str, split: str) -> bool:
        with self.workspace.database.write() as connection:
            return samples.move(connection, self.workspace, "shop", sample_id, split, actor="me")

    def labels(self) -> dict[str, str]:
        """Label of each sample now, by sample id."""
        return {item.sample_id: (item.value or {}).get("label", "") for item in samples.current(self.workspace, "shop")}


@pytest.fixture
def shop(workspace: Workspace) -> Shop:
    """The project shop of a fresh workspace, on both databases."""
    return Shop(workspace)


@pytest.fixture
def changed(backbone: Backbone) -> Iterator[Backbone]:
    """The same network under another digest."""
    yield replace(backbone, digest="f" * 64)
