"""COCO JSON as tools write it, tidy or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepsight.data.importers import coco
from keepsight.runtime import rle

from .reading import HEIGHT, WIDTH, put, read, text

IMAGE = {"id": 1, "file_name": "images/1.png", "width": WIDTH, "height": HEIGHT}
CATEGORIES = [{"id": 1, "name": "RBC"}, {"id": 7, "name": "WBC"}]


def document(*things: dict[str, Any], images: list[Any] | None = None, **more: Any) -> str:
    listed = [{"id": number, "image_id": 1, "category_id": 1, **thing} for number, thing in enumerate(things, start=1)]
    return json.dumps({"images": images or [IMAGE], "annotations": listed, "categories": CATEGORIES, **more})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    put(tmp_path / "images" / "1.png")
    return tmp_path


def test_boxes(data: Path) -> None:
    text(data / "coco.json", document({"bbox": [1, 2.1, 10.2, 20]}, {"bbox": [0, 0, 5, 5], "category_id": 7}))
    found = read(coco, data, "boxes")
    assert found.values == {
        "images/1.png": {
            "boxes": [{"label": "RBC", "box": [1.0, 2.1, 11.2, 22.1]}, {"label": "WBC", "box": [0.0, 0.0, 5.0, 5.0]}]
        }
    }
    assert read(coco, data / "coco.json", "subjects").values["images/1.png"]["subjects"][1]["label"] == "WBC"
    assert read(coco, data, "flags").values == {"images/1.png": {"flags": ["RBC", "WBC"]}}
    assert read(coco, data, "label").faults == {"images/1.png": "several_classes"}


def test_every_bad_thing_costs_itself(data: Path) -> None:
    things: list[dict[str, Any]] = [
        {"bbox": [1, 1, 5, 5]},
        {"bbox": [1, 1, 5, 5], "category_id": 99},
        {"bbox": [1, 1, -5, 5]},
        {"bbox": [1, 1, 0, 5]},
        {"bbox": [50, 1, 30, 5]},
        {"bbox": [-1.5, 1, 30, 40.5]},
        {"bbox": [1, 1, 5]},
        {"bbox": [1, 1, None, 5]},
        {"bbox": [1, 1, float("nan"), 5]},
        {"bbox": [1, 1, 5, 5], "iscrowd": 1},
        {},
        {"bbox": [1, 1, 5, 5], "image_id": 5},
        {"segmentation": "x", "bbox": [1, 1, 5, 5]},
    ]
    text(data / "coco.json", document(*things))
    found = read(coco, data, "boxes")
    assert [item["box"] for item in found.values["images/1.png"]["boxes"]] == [
        [1.0, 1.0, 6.0, 6.0],
        [0.0, 1.0, 28.5, 40.0],
    ]
    assert found.faults == {
        "coco.json: annotation 12": "picture_unknown",
        "images/1.png: annotation 2": "category_unknown",
        "images/1.png: annotation 3": "box_invalid",
        "images/1.png: annotation 4": "box_invalid",
        "images/1.png: annotation 5": "box_outside",
        "images/1.png: annotation 7": "annotation_invalid",
        "images/1.png: annotation 8": "annotation_invalid",
        "images/1.png: annotation 9": "box_invalid",
        "images/1.png: annotation 10": "crowd",
        "images/1.png: annotation 11": "box_missing",
        "images/1.png: annotation 13": "annotation_invalid",
    }


def test_nothing_in_a_picture_is_said_and_faults_alone_are_not_nothing(data: Path) -> None:
    text(data / "coco.json", document())
    assert read(coco, data, "boxes").values == {"images/1.png": {"boxes": []}}
    assert read(coco, data, "flags").values == {"images/1.png": {"flags": []}}
    text(data / "coco.json", document({"bbox": [1, 1, -5, 5]}))
    assert read(coco, data, "boxes").values == {"images/1.png": None}


def test_pictures_that_are_not_as_they_are_listed(data: Path) -> None:
    images = [
        IMAGE,
        {**IMAGE, "id": 2},
        {"id": 3, "file_name": "missing.png"},
        {"id": 4},
        {"file_name": "images/1.png"},
        {"id": 6, "file_name": "../../secret.png"},
        {"id": 7, "file_name": "images/small.png", "width": 640, "height": 480},
        "x",
    ]
    put(data / "images" / "small.png", 2)
    put(data.parent / "secret.png", 3)
    text(data / "coco.json", document({"bbox": [1, 1, 5, 5], "image_id": 7}, images=images))
    found = read(coco, data, "boxes")
    assert found.values == {"images/1.png": {"boxes": []}, "images/small.png": None}
    assert found.faults == {
        "images/1.png": "picture_twice",
        "missing.png": "file_missing",
        "picture without a name": "file_missing",
        "coco.json: picture 5": "id_missing",
        "../../secret.png": "file_missing",
        "coco.json: picture 8": "id_missing",
        "images/small.png": "size_differs",
    }


@pytest.mark.parametrize(
    "content", ['{"images": [], "annotations"', '{"images": {}, "annotations": [], "categories": []}']
)
def test_documents_that_cannot_be_read(data: Path, content: str) -> None:
    text(data / "coco.json", content)
    assert read(coco, data, "boxes").faults == {"coco.json": "bad_input"}


def test_polygons_and_run_lengths_become_masks(data: Path) -> None:
    drawn = np.zeros((HEIGHT, WIDTH), np.bool_)
    drawn[30:35, 50:55] = True
    small = {"size": [5, 5], "counts": [25]}
    text(
        data / "coco.json",
        document(
            {"segmentation": [[10, 10, 20, 10, 20, 20, 10, 20]], "bbox": [10, 10, 10, 10]},
            {"segmentation": rle.encode(drawn)},
            {"segmentation": small},
            {"segmentation": [[1, 1, 2]]},
            {"segmentation": [[-20, 0, 5, 0, 5, 5]]},
            {"bbox": [1, 1, 5, 5]},
        ),
    )
    found = read(coco, data, "mask")
    expected = drawn.copy()
    expected[10:20, 10:20] = True
    assert np.array_equal(rle.decode(found.values["images/1.png"]["mask"]), expected)
    assert found.faults == {
        "images/1.png: annotation 3": "mask_invalid",
        "images/1.png: annotation 4": "annotation_invalid",
        "images/1.png: annotation 5": "mask_invalid",
        "images/1.png: annotation 6": "mask_missing",
    }
    boxes = read(coco, data, "boxes").values["images/1.png"]["boxes"]
    assert [item["box"] for item in boxes[:2]] == [[10.0, 10.0, 20.0, 20.0], [50.0, 30.0, 55.0, 35.0]]


@pytest.mark.parametrize(
    ("place", "pictures", "split"),
    [
        ("annotations/instances_train2017.json", "train2017", "train"),
        ("annotations/instances_val.json", "images/val", "val"),
        ("annotations/data.json", "images", None),
        ("train/_annotations.coco.json", "train", "train"),
        ("test/annotations/coco.json", "test/images", "test"),
        ("valid/coco.json", "valid/images", "val"),
        ("coco.json", "photos", None),
        ("train.json", "train", "train"),
    ],
)
def test_where_files_lie(tmp_path: Path, place: str, pictures: str, split: str | None) -> None:
    put(tmp_path / pictures / "1.png")
    text(tmp_path / place, document(images=[{**IMAGE, "file_name": "1.png"}]))
    found = read(coco, tmp_path, "boxes")
    assert found.faults == {}
    assert found.splits == {f"{pictures}/1.png": split}


def test_other_folders_beside_splits_are_left_out(tmp_path: Path) -> None:
    for folder in ("train", "val", "night"):
        put(tmp_path / folder / "images" / "1.png")
        text(tmp_path / folder / "coco.json", document())
    found = read(coco, tmp_path, "boxes")
    assert set(found.splits.values()) == {"train", "val"}
    (left_out,) = found.source.skipped
    assert (left_out.name, left_out.code) == ("night", "not_a_split")
    assert "--split" in left_out.text
    assert read(coco, tmp_path / "night", "boxes").splits == {"images/1.png": None}


def test_instances_are_taken_of_the_files_that_coco_publishes(tmp_path: Path) -> None:
    put(tmp_path / "val2017" / "1.png")
    for name in ("captions_val2017", "instances_val2017", "person_keypoints_val2017"):
        text(tmp_path / "annotations" / f"{name}.json", document(images=[{**IMAGE, "file_name": "1.png"}]))
    assert len(read(coco, tmp_path, "boxes").source.entries) == 1
