"""Index vectors: computed once, the same as serving's, and one bad picture is not the end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from keepsight.data import samples, vectors, versions
from keepsight.data.adding import NewSample
from keepsight.errors import BundleError, StorageError
from keepsight.runtime import quality
from keepsight.runtime.decode import read
from keepsight.runtime.preprocess import Preprocessing
from keepsight.store import schema
from keepsight.zoo.backbone import Backbone

from .conftest import DIMENSIONS, Shop, build_picture


def pictures(shop: Shop, count: int) -> list[str]:
    shop.fill(count)
    return [item.picture_id for item in samples.current(shop.workspace, "shop")]


def test_vectors_are_those_of_the_network_and_its_preprocessing(shop: Shop, backbone: Backbone) -> None:
    shop.fill(3)
    wanted = [shop.workspace.blobs.name(build_picture(seed)) for seed in (2, 0, 1, 0)]
    vectors.ensure(shop.workspace, wanted, backbone)
    found = vectors.load(shop.workspace, wanted, backbone)
    assert found.present.all()
    for place, seed in enumerate((2, 0, 1, 0)):
        tensor, image = backbone.preprocessing.from_bytes(build_picture(seed))
        np.testing.assert_allclose(found.features[place], tensor.ravel(), atol=2e-3)
        measured = quality.measure(image, info=read(build_picture(seed))[1])
        expected = [measured.blur, measured.brightness, measured.contrast]
        np.testing.assert_allclose(found.quality[place], expected, rtol=1e-6)
    assert found.sizes.tolist() == [[8, 8]] * 4
    assert found.features.dtype == np.float32


def test_nothing_is_computed_twice(shop: Shop, backbone: Backbone) -> None:
    wanted = pictures(shop, 5)
    seen: list[tuple[int, int]] = []
    report = vectors.ensure(shop.workspace, wanted[:3] * 2, backbone, progress=lambda *done: seen.append(done))
    assert (report.computed, report.present, report.unreadable) == (3, 0, ())
    assert seen == [(3, 3)]
    report = vectors.ensure(shop.workspace, wanted, backbone)
    assert (report.computed, report.present) == (2, 3)
    broken = replace(backbone, onnx=b"")
    assert vectors.ensure(shop.workspace, wanted, broken).present == 5, "not even the network is opened"


def test_spaces_never_mix(shop: Shop, backbone: Backbone, changed: Backbone) -> None:
    wanted = pictures(shop, 2)
    vectors.ensure(shop.workspace, wanted, backbone)
    other = replace(backbone, preprocessing=Preprocessing(size=8, mean=(0.0,) * 3, std=(255.0,) * 3))
    assert len({vectors.space(item) for item in (backbone, changed, other)}) == 3
    found = vectors.load(shop.workspace, wanted, changed)
    assert not found.present.any()
    assert not found.features.any()
    assert found.features.shape == (2, DIMENSIONS)
    assert vectors.ensure(shop.workspace, wanted, other).computed == 2


def test_each_vector_is_registered_for_erasure(shop: Shop, backbone: Backbone) -> None:
    (picture,) = pictures(shop, 1)
    vectors.ensure(shop.workspace, [picture], backbone)
    with shop.workspace.database.read("derived") as connection:
        (row,) = connection.execute(sa.select(schema.derived)).all()
    assert (row.picture_id, row.kind, row.location) == (picture, "vector", vectors.space(backbone))


def test_pictures_that_cannot_be_read_are_listed(shop: Shop, backbone: Backbone) -> None:
    wanted = pictures(shop, 4)
    _, gone, changed, erased = wanted
    for picture, spoil in ((gone, None), (changed, b"x" * 100)):
        (path,) = (shop.workspace.state / "blobs").rglob(f"{picture}-*")
        path.unlink()
        if spoil:
            path.write_bytes(spoil)
    with shop.workspace.database.write() as connection:
        shop.workspace.blobs.erase(connection, erased, now=2.0)
    report = vectors.ensure(shop.workspace, wanted, backbone)
    assert report.computed == 1
    assert {item.picture_id: item.code for item in report.unreadable} == {
        gone: "storage_failed",
        changed: "integrity_broken",
        erased: "not_found",
    }
    assert vectors.load(shop.workspace, wanted, backbone).present.tolist() == [True, False, False, False]


def test_a_store_that_fails_stops_the_work(shop: Shop, backbone: Backbone) -> None:
    wanted = pictures(shop, 2)
    for path in [item for item in (shop.workspace.state / "blobs").rglob("*") if item.is_file()]:
        path.unlink()
        path.symlink_to(path.name)  # a loop: a read fails, but not for want of the object
    with pytest.raises(StorageError):
        vectors.ensure(shop.workspace, wanted, backbone)


def test_a_store_that_lost_everything_stops_the_work(shop: Shop, backbone: Backbone) -> None:
    wanted = pictures(shop, 12)
    blobs = shop.workspace.state / "blobs"
    blobs.rename(blobs.with_name("unmounted"))
    blobs.mkdir()
    with pytest.raises(StorageError):
        vectors.ensure(shop.workspace, wanted, backbone)
    assert len(vectors.ensure(shop.workspace, wanted[:1], backbone).unreadable) == 1


def test_features_beyond_float16_are_refused(shop: Shop, backbone: Backbone) -> None:
    wanted = pictures(shop, 1)
    loud = replace(backbone, preprocessing=Preprocessing(size=8, mean=(0.0,) * 3, std=(1e-4,) * 3))
    with pytest.raises(BundleError, match="float16"):
        vectors.ensure(shop.workspace, wanted, loud)


def test_an_own_backbone_is_found_from_anywhere(
    shop: Shop, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path in the settings begins at the workspace, wherever the command was typed."""
    folder = shop.workspace.config.root / "networks"
    folder.mkdir()
    (folder / "mine.onnx").write_bytes(backbone.onnx)
    (folder / "mine.json").write_text(json.dumps({"size": 8, "mean": [127, 127, 127], "std": [64, 64, 64]}))
    shop.workspace.set_setting("shop", "train.backbone", "networks/mine.onnx", actor="me")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = vectors.backbone_of(shop.workspace, shop.workspace.settings("shop"))
    assert found.preprocessing.size == 8
    picture = build_picture(77)
    shop.add(NewSample(data=picture, name="new.png", value={"label": "a"}, split="pending", group=None, meta={}))
    made = versions.commit(shop.workspace, "shop", message="", author="me")
    assert made is not None, "the commit, which needs its vectors, finds it too"
