"""Whatever goes out in a format comes back the same: annotations, splits, groups and metadata."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image

from keepsight import tasks
from keepsight.data import adding, exporters, importers, samples, versions
from keepsight.data.adding import NewSample
from keepsight.errors import ConflictError, DataError, NotFoundError
from keepsight.runtime import rle
from keepsight.store import schema
from keepsight.store.workspace import Workspace

from ..any_task import any_task

Values = list[dict[str, Any]]
WIDTH, HEIGHT = 61, 43


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG" if seed % 2 else "JPEG")
    return out.getvalue()


def mask(seed: int) -> dict[str, Any]:
    drawn = np.zeros((HEIGHT, WIDTH), np.bool_)
    drawn[3 + seed : 30, 10:50] = True
    drawn[10:20, 20:25] = False
    return {"mask": rle.encode(drawn)}


def box(label: str, *sides: float) -> dict[str, Any]:
    return {"label": label, "box": [float(side) for side in sides]}


BOXES: Values = [
    {"boxes": [box("RBC", 0.0, 0.8, 20.5, 30.25), box("WBC", 51.0, 36.2, 61.0, 43.0), box("RBC", 1, 1, 3, 3)]},
    {"boxes": []},
    {"boxes": [box('a <b> & "c": d', 1.25, 2, 3.5, 4)]},
]
MASKS: Values = [mask(0), mask(7), mask(12)]
CLASSES: Values = [{"label": "apple"}, {"label": "pear"}, {"label": "Äpfel"}]
SETS: Values = [{"labels": ["a", "b"]}, {"labels": []}, {"labels": ["c"]}]
FLAGS: Values = [{"flags": ["plate visible"]}, {"flags": []}, {"flags": ["nudity", "plate visible"]}]
GALLERY: Values = [{"subjects": [{"label": "Anna"}]}, {"subjects": []}, {"subjects": [{"label": "Ben"}]}]
FACES: Values = [{"subjects": [box("Anna", 1, 2, 30, 40.5), box("unknown", 31, 3, 60, 40)]}, {"subjects": []}]
TEXTS: Values = [
    {
        "lines": [
            {"text": 'TOTAL "9,00" | x', "box": [1.0, 2.0, 30.0, 12.5]},
            {"text": "Äpfel", "box": [1.0, 20.0, 30.0, 30.0]},
        ],
        "fields": {"total": "9.00", "address": "NO. 1\nJALAN"},
    },
    {"lines": [{"text": "A", "box": [0.0, 0.0, 61.0, 43.0]}], "fields": {"total": "1"}},
]

WAYS = [
    *[("coco", values) for values in (BOXES, MASKS, FACES)],
    *[("voc", values) for values in (BOXES, FACES)],
    *[("yolo", values) for values in (BOXES, FACES)],
    *[("label-studio", values) for values in (BOXES, MASKS, CLASSES, GALLERY, FACES, TEXTS)],
    ("folders", CLASSES),
    ("masks", MASKS),
    *[("csv", values) for values in (BOXES, MASKS, CLASSES, SETS, FLAGS, GALLERY, FACES, TEXTS)],
    *[("json", values) for values in (BOXES, MASKS, CLASSES, SETS, FLAGS, GALLERY, FACES, TEXTS)],
]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "keepsight.yaml").write_text("projects: {shop: {}, other: {}}\n")
    opened = Workspace.open(tmp_path, environment={}, clock=lambda: 1000.0)
    for project in opened.config.projects:
        opened.ensure_project(project)
    return opened


@pytest.fixture
def fill(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[[Values], None]:
    """Adds a picture for each annotation, and makes a version of them."""

    def run(values: Values) -> None:
        parts = sorted({part for value in values for part in value})
        monkeypatch.setattr(tasks, "get", lambda _: any_task(*parts))
        items = [
            NewSample(
                picture(seed),
                f"images/{'ab'[seed % 2]}/1.jpg",
                value,
                split=("train", "val", "test")[seed % 3],
                group=f"shelf {seed}" if seed else None,
                meta={"light": "day", "n": str(seed)} if seed != 1 else {},
            )
            for seed, value in enumerate(values)
        ]
        assert adding.add(workspace, "shop", items, author="me").added == len(values)
        versions.commit(workspace, "shop", message="all", author="me")

    return run


def stored(workspace: Workspace, project: str) -> dict[str, tuple[Any, ...]]:
    """What is known of each picture, by its bytes."""
    return {
        hashlib.sha256(workspace.blobs.get(item.picture_id)).hexdigest(): (
            item.value, item.split, item.group, {name: str(fact) for name, fact in item.meta.items()}
        )
        for item in samples.current(workspace, project)
    }  # fmt: skip


@pytest.mark.parametrize(("format", "values"), WAYS, ids=[f"{name}-{'-'.join(values[0])}" for name, values in WAYS])
def test_everything_comes_back(
    workspace: Workspace, tmp_path: Path, fill: Callable[[Values], None], format: str, values: Values
) -> None:
    fill(values)
    export = exporters.prepare(workspace, "shop", format=format)
    assert (len(export.items), export.left_out) == (len(values), ())
    report = exporters.write(workspace, "shop", tmp_path / "out", export=export, actor="me")
    assert report.failed == ()
    place = tmp_path / "out" / ("pictures.csv" if format == "csv" else "")
    back = importers.import_path(workspace, "other", place, author="me")
    assert (back.rejected, back.added) == ((), len(values))
    assert stored(workspace, "other") == stored(workspace, "shop")
    # The same once more, into the project that it came from.
    again = importers.import_path(workspace, "shop", place, author="me", format=format)
    assert (again.rejected, again.unchanged) == ((), len(values))
    with pytest.raises(ConflictError, match="not empty"):
        exporters.write(workspace, "shop", tmp_path / "out", export=export, actor="me")


def test_a_zip_holds_the_same_files(workspace: Workspace, tmp_path: Path, fill: Callable[[Values], None]) -> None:
    fill(BOXES)
    export = exporters.prepare(workspace, "shop", format="coco")
    exporters.write(workspace, "shop", tmp_path / "out", export=export, actor="me")
    pieces = list(exporters.zipped(workspace, "shop", export=export, actor="me"))
    assert len(pieces) > 5
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    outside = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")
    }
    assert inside == outside
    with workspace.database.read() as connection:
        actions = connection.execute(sa.select(schema.audit.c.detail).where(schema.audit.c.action == "data.export"))
        assert [row.detail["to"] for row in actions] == ["out", "zip"]


def test_what_has_no_room_in_a_format_is_listed(
    workspace: Workspace, tmp_path: Path, fill: Callable[[Values], None]
) -> None:
    fill([*CLASSES, {"label": "a/b"}])
    extra = NewSample(picture(9), "without.png", None, split="train")
    adding.add(workspace, "shop", [extra], author="me")
    versions.commit(workspace, "shop", message="more", author="me")
    export = exporters.prepare(workspace, "shop", format="folders")
    assert [(item.name, item.code) for item in export.left_out] == [
        ("without.png", "not_annotated"),
        ("images/b/1.jpg", "not_in_format"),
    ]
    assert exporters.prepare(workspace, "shop", version=1, format="folders").left_out[0].code == "not_in_format"
    with pytest.raises(DataError, match=r"room for boxes.*folders, csv, json"):
        exporters.prepare(workspace, "shop", format="voc")
    with pytest.raises(NotFoundError, match="coco"):
        exporters.prepare(workspace, "shop", format="cocoa")
    with pytest.raises(DataError, match="no annotated pictures"):
        versions.commit(workspace, "other", message="", author="me")
        adding.add(workspace, "other", [extra], author="me")
        versions.commit(workspace, "other", message="", author="me")
        exporters.prepare(workspace, "other")


@pytest.mark.parametrize(
    ("values", "usual"),
    [(CLASSES, "folders"), (BOXES, "coco"), (MASKS, "masks"), (SETS, "csv"), (TEXTS, "csv"), (FACES, "coco")],
)
def test_the_usual_format(workspace: Workspace, fill: Callable[[Values], None], values: Values, usual: str) -> None:
    fill(values)
    assert exporters.prepare(workspace, "shop").format == usual


def test_a_picture_that_is_gone_costs_itself(
    workspace: Workspace, tmp_path: Path, fill: Callable[[Values], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(BOXES)
    export = exporters.prepare(workspace, "shop", format="coco")
    lost = export.items[0].sample.picture_id
    get = workspace.blobs.get

    def read(name: str) -> bytes:
        if name == lost:
            raise NotFoundError.among("blob", name, [])
        return get(name)

    monkeypatch.setattr(workspace.blobs, "get", read)
    export = exporters.prepare(workspace, "shop", format="coco")
    report = exporters.write(workspace, "shop", tmp_path / "out", export=export, actor="me")
    assert [item.code for item in report.failed] == ["not_found"]
    assert len(list((tmp_path / "out").rglob("*.*"))) == 2 + 3 + 1
    document = json.loads((tmp_path / "out" / "train" / "coco.json").read_text())
    assert document["categories"][0]["name"] == "RBC"


REAL = [
    ("detection", "blood-cells-bccd/val", 87, ("coco", "voc", "yolo", "label-studio", "json")),
    ("moderation", "license-plates/night", 60, ("csv", "json")),
    ("segmentation", "clothing-coparsing-masks/val", 20, ("masks", "coco", "label-studio", "csv")),
    ("ocr", "receipts-sroie/val", 10, ("json", "label-studio", "csv")),
    ("recognition", "faces-families/gallery", 18, ("folders", "csv", "json", "label-studio")),
]


@pytest.mark.pictures
@pytest.mark.parametrize(("task", "place", "count", "formats"), REAL, ids=[item[0] for item in REAL])
def test_real_pictures_come_back(
    tmp_path: Path, test_data: Path, task: str, place: str, count: int, formats: tuple[str, ...]
) -> None:
    names = {"shop": "out", **{f"back{number}": format for number, format in enumerate(formats)}}
    projects = ", ".join(f"{name}: {{task: {task}}}" for name in names)
    (tmp_path / "keepsight.yaml").write_text(f"projects: {{{projects}}}\n")
    ws = Workspace.open(tmp_path, environment={}, clock=lambda: 1000.0)
    for project in names:
        ws.ensure_project(project)
    report = importers.import_path(ws, "shop", test_data / place, author="me", split="val")
    assert (report.added, report.rejected) == (count, ())
    versions.commit(ws, "shop", message="all", author="me")
    before = stored(ws, "shop")
    assert all(value for value, *_ in before.values())
    for project, format in list(names.items())[1:]:
        export = exporters.prepare(ws, "shop", format=format)
        assert (len(export.items), export.left_out) == (count, ())
        out = tmp_path / format
        exporters.write(ws, "shop", out, export=export, actor="me")
        place_of = out / "pictures.csv" if format == "csv" else out
        assert importers.import_path(ws, project, place_of, author="me", format=format).rejected == ()
        assert stored(ws, project) == before, format
    ws.close()
