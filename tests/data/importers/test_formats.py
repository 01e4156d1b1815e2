"""What a path is taken for, and the formats with a file for each picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepsight import tasks
from keepsight.data import importers
from keepsight.data.importers import brush, formats, marks, polygons
from keepsight.errors import AnnotationError, BadInputError, DataError, NotFoundError
from keepsight.runtime import rle

from ..any_task import any_task
from .reading import HEIGHT, WIDTH, put, read, text

# --- Pascal VOC ---------------------------------------------------------------------------------------------------


def voc(*boxes: str, size: str = f"<width>{WIDTH}</width><height>{HEIGHT}</height>") -> str:
    things = "".join(f"<object><name>cup</name>{box}</object>" for box in boxes)
    return f"<annotation><size>{size}</size>{things}</annotation>"


def bounds(x1: object, y1: object, x2: object, y2: object) -> str:
    return f"<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"


def test_voc_boxes_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    names = "abcdefgh"
    for seed, name in enumerate(names):
        put(tmp_path / "images" / f"{name}.png", seed)
    notes = tmp_path / "annotations"
    wrong = [bounds(9, 1, 2, 2), bounds(1, 1, 99, 9), bounds("x", 1, 2, 2), "", "<bndbox/>"]
    text(notes / "a.xml", voc(bounds(1, 2.5, 30, 41), *wrong))
    text(notes / "b.xml", voc())
    text(notes / "c.xml", "<annotation>")
    text(notes / "d.xml", "<!DOCTYPE a [<!ENTITY x 'y'>]><annotation>&x;</annotation>")
    text(notes / "e.xml", voc(bounds(1, 2, 3, 4), size="<width>640</width><height>480</height>"))
    text(notes / "f.xml", voc(bounds(1, 2, 3, 4), size="<width>inf</width><height>x</height>"))
    text(notes / "g.xml", f"<annotation><object><name> </name>{bounds(1, 2, 3, 4)}</object></annotation>")
    text(notes / "z.xml", voc())
    found = read("voc", tmp_path, "boxes")
    assert found.values == {
        "images/a.png": {"boxes": [{"label": "cup", "box": [1.0, 2.5, 30.0, 40.0]}]},
        "images/b.png": {"boxes": []},
        **{f"images/{name}.png": None for name in "cdegh"},
        "images/f.png": {"boxes": [{"label": "cup", "box": [1.0, 2.0, 3.0, 4.0]}]},
    }
    assert found.faults == {
        "images/a.png: object 2": "box_invalid",
        "images/a.png: object 3": "box_outside",
        "images/a.png: object 4": "annotation_invalid",
        "images/a.png: object 5": "box_missing",
        "images/a.png: object 6": "annotation_invalid",
        "images/c.png": "annotation_invalid",
        "images/d.png": "annotation_invalid",
        "images/e.png": "size_differs",
        "images/g.png: object 1": "annotation_invalid",
        "annotations/z.xml": "picture_missing",
    }
    assert "1 picture has no annotation" in found.source.notes[0]


@pytest.mark.parametrize(
    ("picture", "note", "lists", "split"),
    [
        ("a.png", "a.xml", {}, None),
        ("JPEGImages/a.png", "Annotations/a.xml", {"ImageSets/Main/val.txt": "a\nb"}, "val"),
        ("train/a.png", "train/a.xml", {}, "train"),
        ("Test/images/x/a.png", "Test/annotations/x/a.xml", {}, "test"),
    ],
)
def test_where_voc_files_lie(tmp_path: Path, picture: str, note: str, lists: dict[str, str], split: str | None) -> None:
    put(tmp_path / picture)
    for path, content in {note: voc(bounds(1, 2, 3, 4)), **lists}.items():
        text(tmp_path / path, content)
    found = read("voc", tmp_path, "boxes")
    assert (found.faults, found.splits) == ({}, {picture: split})
    assert found.values[picture]["boxes"]


# --- YOLO ---------------------------------------------------------------------------------------------------------


def test_yolo_lines(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        put(tmp_path / "images" / f"{name}.png", seed)
    lines = [
        "0 0.5 0.5 0.5 0.25",
        "1 0 0 0.5 0 0.5 0.5 0 0.5",
        "7 0.5 0.5 0.1 0.1",
        "0 0.5 0.5 0.1",
        "0 0.5 0.5 0.1 0.1 0.9",
        "0 0.5 0.5 -0.1 0.1",
        "0 0.95 0.5 0.4 0.1",
        "0 30 20 10 10",
        "0.5 0.5 0.5 0.1 0.1",
        "0 0.5 0.5 0.1 nan",
    ]
    text(tmp_path / "labels" / "a.txt", "\n".join(lines))
    text(tmp_path / "labels" / "b.txt", "")
    text(tmp_path / "data.yaml", "names: {0: cup, 1: 'on'}")
    found = read("yolo", tmp_path, "boxes")
    assert found.values == {
        "images/a.png": {
            "boxes": [{"label": "cup", "box": [15.0, 15.0, 45.0, 25.0]}, {"label": "on", "box": [0.0, 0.0, 30.0, 20.0]}]
        },
        "images/b.png": {"boxes": []},
        "images/c.png": None,
    }
    assert found.faults == {
        "images/a.png: line 3": "category_unknown",
        "images/a.png: line 4": "line_invalid",
        "images/a.png: line 5": "line_invalid",
        "images/a.png: line 6": "box_invalid",
        "images/a.png: line 7": "box_outside",
        "images/a.png: line 8": "line_invalid",
        "images/a.png: line 9": "category_unknown",
        "images/a.png: line 10": "line_invalid",
    }
    assert rle.bounds(read("yolo", tmp_path, "mask").values["images/a.png"]["mask"]) == (0, 0, 30, 20)


@pytest.mark.parametrize(
    ("files", "split"),
    [
        ({"images/train/a.png": "", "labels/train/a.txt": "", "data.yaml": "names: [cup]"}, "train"),
        ({"valid/images/a.png": "", "valid/labels/a.txt": "", "data.yaml": "names: [cup]"}, "val"),
        ({"a.png": "", "a.txt": "", "classes.txt": "cup\n"}, None),
        ({"images/a.png": "", "labels/a.txt": "", "labels/classes.txt": "cup\n"}, None),
        ({"obj_train_data/a.png": "", "obj_train_data/a.txt": "", "obj_train_data/obj.names": "cup"}, None),
    ],
)
def test_where_yolo_files_lie(tmp_path: Path, files: dict[str, str], split: str | None) -> None:
    picture = next(iter(files))
    put(tmp_path / picture)
    for path, content in list(files.items())[1:]:
        text(tmp_path / path, "0 0.5 0.5 0.5 0.5" if content == "" else content)
    root = tmp_path / "obj_train_data" if "obj" in picture else tmp_path
    found = read("yolo", root, "boxes")
    assert (found.faults, list(found.splits.values())) == ({}, [split])
    assert next(iter(found.values.values()))["boxes"][0]["label"] == "cup"
    text(tmp_path / "note.yaml", "x: [")
    if (tmp_path / "data.yaml").is_file():
        assert read("yolo", tmp_path / "data.yaml", "boxes").values == found.values


def test_yolo_folders_beside_splits_and_classes_without_names(tmp_path: Path) -> None:
    for folder in ("train", "night"):
        put(tmp_path / "images" / folder / "a.png", len(folder))
        text(tmp_path / "labels" / folder / "a.txt", "0 0.5 0.5 0.5 0.5")
    with pytest.raises(DataError, match="nothing names the classes"):
        read("yolo", tmp_path, "boxes")
    text(tmp_path / "classes.txt", "cup")
    found = read("yolo", tmp_path, "boxes")
    assert found.splits == {"images/train/a.png": "train"}
    assert [item.name for item in found.source.skipped] == ["night"]


# --- Label Studio -------------------------------------------------------------------------------------------------


def studio(*results: dict[str, Any], image: str = "/data/local-files/?d=images%2F1.png", **more: Any) -> dict[str, Any]:
    return {"data": {"image": image}, "annotations": [{"result": list(results)}], **more}


def rectangle(label: str, **value: Any) -> dict[str, Any]:
    sides = {"x": 10, "y": 25, "width": 50, "height": 50, "rotation": 0, **value}
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    return {"type": "rectanglelabels", "id": label, "value": {**sides, "rectanglelabels": [label]}, **size}


@pytest.fixture
def export(tmp_path: Path) -> Path:
    for seed in range(3):
        put(tmp_path / "images" / f"{seed}.png", seed)
    return tmp_path


def test_label_studio_shapes(export: Path) -> None:
    drawn = np.zeros((HEIGHT, WIDTH), np.bool_)
    drawn[30:35, 50:55] = True
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    strokes = {"format": "rle", "rle": brush.encode(drawn), "brushlabels": ["person"]}
    outline = {"points": [[0, 0], [50, 0], [50, 50], [0, 50]], "polygonlabels": ["person"]}
    items = [
        studio(rectangle("cup"), rectangle("pot", rotation=15), rectangle("jar", x=90), rectangle("", x="a")),
        studio(
            {"type": "brushlabels", "id": "b", "value": strokes, **size},
            {"type": "polygonlabels", "id": "p", "value": outline, **size},
            {"type": "ellipselabels", "id": "e", "value": {"x": 1}},
            image="/data/upload/3/0123abcd-2.png",
        ),
        studio(image="s3://bucket/0.png"),
    ]
    text(export / "export.json", json.dumps(items))
    found = read("label-studio", export, "boxes")
    assert found.values["images/1.png"] == {"boxes": [{"label": "cup", "box": [6.0, 10.0, 36.0, 30.0]}]}
    assert found.values["images/0.png"] == {"boxes": []}
    assert found.values["images/2.png"]["boxes"][0] == {"label": "person", "box": [50.0, 30.0, 55.0, 35.0]}
    assert sorted(found.faults) == [
        "images/1.png: result 4",
        "images/1.png: result jar",
        "images/1.png: result pot",
        "images/2.png: result e",
    ]
    expected = drawn.copy()
    expected[:20, :30] = True
    masks = read("label-studio", export / "export.json", "mask")
    assert np.array_equal(rle.decode(masks.values["images/2.png"]["mask"]), expected)


def test_label_studio_choices_and_texts(export: Path) -> None:
    choice = {"type": "choices", "value": {"choices": ["apple"]}}
    box = {"x": 10, "y": 25, "width": 50, "height": 50}
    lines = [
        {"type": "textarea", "id": "r", "value": {**box, "text": ["TOTAL 9"]}},
        {"type": "rectangle", "id": "r", "value": box},
        {"type": "labels", "id": "r", "value": {**box, "labels": ["Text"]}},
        {"type": "textarea", "from_name": "total", "value": {"text": ["9.00"]}},
    ]
    text(
        export / "export.json",
        json.dumps(
            [
                studio(choice, {"type": "choices", "value": {"choices": None}}),
                studio(*lines, image="2.png"),
                {"data": {"image": "0.png"}},
            ]
        ),
    )
    assert read("label-studio", export, "label").values == {
        "images/1.png": {"label": "apple"},
        "images/2.png": None,
        "images/0.png": None,
    }
    found = read("label-studio", export, "lines", "fields")
    assert found.values["images/2.png"] == {
        "lines": [{"text": "TOTAL 9", "box": [6.0, 10.0, 36.0, 30.0]}],
        "fields": {"total": "9.00"},
    }
    assert found.faults == {"images/1.png": "not_for_task"}


def test_two_people_who_annotated_one_picture(export: Path) -> None:
    notes: list[dict[str, Any]] = [
        {"result": [rectangle("cup")]},
        {"result": [rectangle("pot")]},
        {"result": [rectangle("x")], "was_cancelled": True},
    ]
    agreed = [notes[0], {**notes[1], "ground_truth": True}]
    items = [
        {"data": {"image": "1.png"}, "annotations": notes},
        {"data": {"image": "2.png"}, "annotations": agreed},
        {"data": {"image": "9.png"}, "annotations": []},
        {"image": "0.png"},
        {"data": {"text": "hello"}, "annotations": []},
    ]
    text(export / "export.json", json.dumps(items))
    found = read("label-studio", export, "boxes")
    assert found.values["images/1.png"] is None
    assert found.values["images/2.png"]["boxes"][0]["label"] == "pot"
    assert found.faults == {
        "images/1.png": "annotation_invalid",
        "9.png": "file_missing",
        "task 4": "task_invalid",
        "task 5": "file_missing",
    }


@pytest.mark.parametrize("cut", [0, 3, 9, 12])
def test_strokes_that_are_cut_off(cut: int) -> None:
    drawn = np.random.default_rng(0).random((9, 11)) < 0.5
    numbers = brush.encode(drawn)
    assert np.array_equal(brush.decode(numbers, width=11, height=9), drawn)
    with pytest.raises(AnnotationError, match="brush strokes"):
        brush.decode(numbers[:cut], width=11, height=9)
    with pytest.raises(AnnotationError, match="brush strokes"):
        brush.decode(numbers, width=9, height=9)


def test_strokes_as_label_studio_writes_them() -> None:
    # Its encoder packs values that do not repeat: 1 x 2 pixels, opaque and clear, as eight values in one piece.
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "0" + "00" + "111" + "1" * 32 + "0" * 32
    numbers = [int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8)]
    assert brush.decode(numbers, width=2, height=1).tolist() == [[True, False]]


# --- masks and documents --------------------------------------------------------------------------------------------


def test_masks_of_every_kind(tmp_path: Path) -> None:
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[5:20, 10:30] = 1
    alpha = np.dstack([np.full((HEIGHT, WIDTH, 3), 90, np.uint8), drawn * 255])
    palette = Image.fromarray(drawn * 3, "L").convert("P")
    pictures = {
        "one": Image.fromarray(drawn.astype(np.bool_)),
        "zero_one": Image.fromarray(drawn),
        "grey": Image.fromarray(np.where(drawn, 250, 30).astype(np.uint8)),
        "soft": Image.fromarray(np.where(drawn, 200, np.arange(WIDTH, dtype=np.uint8)[None])),
        "alpha": Image.fromarray(alpha),
        "opaque": Image.fromarray(np.dstack([drawn * 255] * 3 + [np.full_like(drawn, 255)])),
        "deep": Image.fromarray(drawn.astype(np.uint16) * 60000),
        "indexed": palette,
    }
    for seed, (name, mask) in enumerate(pictures.items()):
        put(tmp_path / "images" / f"{name}.png", seed)
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / f"{name}{'_mask' if seed % 2 else ''}.png")
    found = read("masks", tmp_path, "mask")
    assert found.faults == {}
    for name, value in found.values.items():
        if "/grey" not in name:  # two values, and both are light: everything belongs to it
            assert np.array_equal(rle.decode(value["mask"]), drawn.astype(np.bool_)), name


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    for seed, name in enumerate(("turned", "broken", "none", "twice")):
        put(tmp_path / "train" / "images" / f"{name}.png", seed)
    masks = tmp_path / "train" / "masks"
    put(masks / "turned.png", size=(HEIGHT, WIDTH))
    text(masks / "broken.png", "no picture")
    put(masks / "twice.png")
    put(masks / "twice_mask.png")
    put(masks / "other.png")
    found = read("masks", tmp_path, "mask")
    assert [name for name, value in found.values.items() if value] == ["train/images/twice.png"]
    assert found.faults == {
        "train/images/turned.png": "annotation_invalid",
        "train/images/broken.png": "annotation_invalid",
        "train/masks/twice_mask.png": "annotated_twice",
        "train/masks/other.png": "picture_missing",
    }


def test_documents_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    about = {"image": "x.png", "width": WIDTH, "height": HEIGHT}
    contents: dict[str, Any] = {
        "a": {**about, "lines": [{"text": "A", "box": [1, 2, 30, 40]}, {"text": "B", "box": [1, 2, 300, 40]}]},
        "b": {**about, "fields": {"total": 9.5}},
        "c": {**about, "width": 999, "fields": {"total": "9"}},
        "d": [1],
        "e": {**about, "lines": "x"},
        "f": {**about, "lines": [{"text": "A", "box": [1, 2, "x"]}]},
        "g": {"boxes": []},
        "h": {"label": "apple", "colour": "red"},
    }
    for seed, (name, content) in enumerate(contents.items()):
        put(tmp_path / f"{name}.png", seed)
        text(tmp_path / f"{name}.json", json.dumps(content))
    found = read("json", tmp_path, "lines", "fields")
    assert {name[0]: value for name, value in found.values.items() if value} == {
        "a": {"lines": [{"text": "A", "box": [1.0, 2.0, 30.0, 40.0]}]},
        "b": {"fields": {"total": "9.5"}},
        "h": {"colour": "red"},
    }
    assert found.faults == {
        "a.png: line 2": "box_outside",
        "c.png": "size_differs",
        "d.png": "annotation_invalid",
        "e.png": "annotation_invalid",
        "f.png": "annotation_invalid",
        "g.png": "not_for_task",
    }


# --- outlines -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_outlines_are_filled_as_coco_fills_them() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(1)
    for _ in range(30):
        angles = np.sort(random.uniform(0, 2 * np.pi, 9))
        corners = np.stack([100 + 80 * np.cos(angles), 75 + 60 * np.sin(angles)], axis=1)
        ours = polygons.filled([corners], size=(200, 150))
        theirs = coco.decode(coco.frPyObjects([corners.ravel().tolist()], 150, 200))[..., 0].astype(np.bool_)
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.97


def test_a_star_has_a_hole_and_two_outlines_are_one_mask() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], float)
    assert polygons.filled([square, square + 3], size=(8, 8)).sum() == 16 + 16 - 1
    bow = np.array([[0, 0], [8, 8], [8, 0], [0, 8]], float)
    filled = polygons.filled([bow], size=(8, 8))
    assert not filled[0, 4] and filled[4, 0] and filled[4, 7]


# --- what a path is taken for ---------------------------------------------------------------------------------------


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``task("boxes")``: from now on every task takes these parts."""

    def use(*parts: str) -> None:
        monkeypatch.setattr(tasks, "get", lambda _: any_task(*parts))

    return use


def test_a_task_is_asked_what_it_takes(task: Any) -> None:
    task("lines", "fields")
    assert marks.parts_of("ocr") == {"lines", "fields"}
    monkey = marks.parts_of
    task("label")
    assert monkey("classification") == {"label"}


def test_the_first_format_is_taken_and_others_are_named(tmp_path: Path, task: Any) -> None:
    task("boxes")
    put(tmp_path / "images" / "1.png")
    text(tmp_path / "annotations" / "1.xml", voc(bounds(1, 2, 3, 4)))
    image = {"id": 1, "file_name": "1.png"}
    text(tmp_path / "coco.json", json.dumps({"images": [image], "annotations": [], "categories": []}))
    source = importers.detect(tmp_path, task="x")
    assert (source.kind, len(source.entries)) == ("COCO JSON", 1)
    assert source.notes == ("There is Pascal VOC XML too; --format voc takes that instead.",)
    assert importers.detect(tmp_path, task="x", format="voc").kind == "Pascal VOC XML"


def test_what_a_task_cannot_use_is_named_with_what_it_could(tmp_path: Path, task: Any) -> None:
    put(tmp_path / "photos" / "apple" / "1.png")
    text(tmp_path / "photos" / "film.mp3", "x")
    text(tmp_path / "boxes" / "coco.json", json.dumps({"images": [], "annotations": [], "categories": []}))
    task("boxes")
    with pytest.raises(DataError, match=r"holds class folders.*cannot be imported for x.*COCO JSON.*YOLO") as raised:
        importers.detect(tmp_path / "photos", task="x")
    assert "class folders (" not in raised.value.expected
    with pytest.raises(DataError, match="Name one of its folders: boxes"):
        importers.detect(tmp_path, task="x")
    with pytest.raises(DataError, match="no pictures"):
        importers.detect(tmp_path / "boxes", task="x")
    with pytest.raises(BadInputError, match="single file"):
        importers.detect(tmp_path / "photos" / "film.mp3", task="x")
    with pytest.raises(NotFoundError, match='format "cocoa"'):
        importers.detect(tmp_path, task="x", format="cocoa")
    with pytest.raises(DataError, match="cannot say what x needs"):
        importers.detect(tmp_path, task="x", format="folders")


def test_masks_and_documents_are_no_class_folders(tmp_path: Path, task: Any) -> None:
    for folder in ("images", "masks"):
        put(tmp_path / "cut" / folder / "1.png")
    put(tmp_path / "texts" / "images" / "1.png")
    text(tmp_path / "texts" / "annotations" / "1.json", '{"lines": []}')
    task("label")
    with pytest.raises(DataError, match="holds folders of masks"):
        importers.detect(tmp_path / "cut", task="x")
    with pytest.raises(DataError, match="holds JSON documents"):
        importers.detect(tmp_path / "texts", task="x")
    assert len(importers.detect(tmp_path / "cut", task="x", format="folders").entries) == 2
    task("lines")
    assert len(importers.detect(tmp_path / "texts", task="x").entries) == 1


def test_one_picture_for_each_class(tmp_path: Path, task: Any) -> None:
    put(tmp_path / "Anna.png", 1)
    put(tmp_path / "Ben Müller.png", 2)
    text(tmp_path / "README.md", "x")
    task("subjects", "label")
    source = importers.detect(tmp_path, task="x")
    assert (source.kind, [entry.label for entry in source.entries]) == (
        "one picture for each class",
        ["Anna", "Ben Müller"],
    )
    task("label")
    with pytest.raises(DataError, match="one-per-class"):
        importers.detect(tmp_path, task="x")
    assert len(importers.detect(tmp_path, task="x", format="one-per-class").entries) == 2


def test_a_manifest_says_more_about_pictures(tmp_path: Path, task: Any) -> None:
    task("boxes")
    for seed, split in enumerate(("train", "val")):
        put(tmp_path / split / "images" / "1.png", seed)
        text(tmp_path / split / "annotations" / "1.xml", voc(bounds(1, 2, 3, 4)))
    text(tmp_path / "manifest.csv", "split,path,light,group\nval,train/images/1.png,day,v1\n,other.png,night,\n")
    by_name = {entry.name: entry for entry in importers.detect(tmp_path, task="x").entries}
    first = by_name["train/images/1.png"]
    assert (first.split, first.group, first.meta) == ("train", "v1", {"light": "day"})
    assert by_name["val/images/1.png"].meta == {}
    above = importers.detect(tmp_path / "train", task="x").entries
    assert [(entry.name, entry.group, entry.meta) for entry in above] == [("images/1.png", "v1", {"light": "day"})]
    text(tmp_path / "manifest.csv", "split,id,light\ntrain,1,day\n")
    assert importers.detect(tmp_path, task="x").notes == ()


def test_every_format_has_a_name_of_its_own() -> None:
    assert len(set(formats.names())) == len(formats.FORMATS)
    assert all(item.GIVES <= marks.PARTS for item in formats.FORMATS)
