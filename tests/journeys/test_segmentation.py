"""Cutting out from end to end: masks in, a pretrained model, answers as JSON and as pictures, a corrected mask back."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keepsight.runtime import rle
from tests import fetched
from tests.journeys.place import Workplace

pytestmark = pytest.mark.journey

SETTINGS = """projects:
  cutout:
    task: segmentation
    train: {recipe: pretrained}
    evaluation: {robustness_pictures: 0}
    review: {audit_share: 0}
"""


@pytest.fixture
def place(tmp_path: Path, environment: dict[str, str], test_data: Path) -> Workplace:
    """A workspace with the weights, pictures and their masks, one mask of another size and one that is empty."""
    fetched.ensure("u2netp", cache=Path(environment["KEEPSIGHT_CACHE"]))
    root = tmp_path / "work"
    root.mkdir()
    (root / "keepsight.yaml").write_text(SETTINGS)
    source = test_data / "clothing-coparsing-masks"
    for split, count in (("train", 3), ("test", 1)):
        for kind in ("images", "masks"):
            (root / "photos" / split / kind).mkdir(parents=True)
        for picture in sorted((source / split / "images").glob("*.jpg"))[:count]:
            shutil.copy(picture, root / "photos" / split / "images")
            mask = source / split / "masks" / f"{picture.stem}.png"
            shutil.copy(mask, root / "photos" / split / "masks")
    masks = sorted((root / "photos" / "train" / "masks").glob("*.png"))
    Image.new("1", (50, 60), 1).save(masks[0])
    with Image.open(masks[1]) as opened:
        size = opened.size
    Image.new("1", size).save(masks[1])
    return Workplace(root, environment)


def test_a_product_photo_leaves_its_background(place: Workplace, shared: Callable[[Path], np.ndarray]) -> None:
    told = place.run("data", "import", "cutout", "photos", check=False).stdout
    assert "Dataset version 1" in told
    assert "The mask is empty" in told
    assert "50 x 60" in told
    place.run("train", "cutout")
    figures = place.json("models", "show", "cutout")["metrics"]
    assert figures["iou"]["n"] == 1
    assert figures["iou"]["value"] > 0.85

    picture = sorted((place.root / "photos" / "test" / "images").glob("*.jpg"))[0]
    true = shared(picture)
    place.run("predict", "cutout", str(picture), "--save", "out", "--background", "white")
    with Image.open(place.root / "out" / f"{picture.stem}.png") as made:
        cut = np.asarray(made)
    assert cut.shape == (*true.shape, 3)
    assert (cut[~true] > 250).all(axis=1).mean() > 0.9

    data = picture.read_bytes()
    with place.up() as server:
        answer = server.client.post("/v1/cutout/predict", content=data).json()
        found = rle.decode(answer["mask"])
        assert (found & true).sum() / (found | true).sum() > 0.85
        sent = server.client.post("/v1/cutout/predict", params={"as": "picture"}, content=data)
        alpha = np.asarray(Image.open(io.BytesIO(sent.content)))[..., 3]
        assert alpha[true].mean() > 200
        assert alpha[~true].mean() < 20
        corrected = {"prediction_id": sent.headers["x-keepsight-prediction-id"], "value": {"mask": rle.encode(true)}}
        assert server.client.post("/v1/cutout/feedback", json=corrected).is_success
        empty = {**corrected, "value": {"mask": rle.encode(np.zeros_like(true))}}
        refused = server.client.post("/v1/cutout/feedback", json=empty)
        assert refused.status_code == 422
        assert "empty" in refused.json()["error"]["found"]


@pytest.fixture
def shared(test_data: Path) -> Callable[[Path], np.ndarray]:
    """The mask of a picture."""
    folder = test_data / "clothing-coparsing-masks" / "test" / "masks"

    def read(picture: Path) -> np.ndarray:
        with Image.open(folder / f"{picture.stem}.png") as mask:
            return np.asarray(mask)

    return read
