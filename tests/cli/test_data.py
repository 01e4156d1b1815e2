"""Boxes in, boxes out: what the command line says about formats, faults and versions, on real pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ..clips import clip
from .conftest import Run


@pytest.fixture
def cells(run: Run, tmp_path: Path, test_data: Path) -> Path:
    """Twelve pictures in train and val with COCO and VOC files, a folder beside them, and a few faults."""
    root = tmp_path / "cells"
    for split, count in (("train", 8), ("val", 4), ("night", 2)):
        source = test_data / "blood-cells-bccd" / ("test" if split == "night" else split)
        document = json.loads((source / "coco.json").read_text())
        document["images"] = document["images"][:count]
        kept = {image["id"] for image in document["images"]}
        document["annotations"] = [item for item in document["annotations"] if item["image_id"] in kept]
        for image in document["images"]:
            for name in (image["file_name"], f"annotations/{Path(image['file_name']).stem}.xml"):
                (root / split / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / name, root / split / name)
        if split == "val":
            document["annotations"][0]["category_id"] = 77
            document["annotations"][1]["bbox"] = [470, 10, 100, 20]
        (root / split / "coco.json").write_text(json.dumps(document))
    assert run("init", "cells", "--task", "detection", "--workspace", tmp_path / "ws").code == 0
    return root


@pytest.mark.pictures
def test_formats(run: Run, tmp_path: Path, cells: Path) -> None:
    at = ("--workspace", tmp_path / "ws")
    ran = run("data", "import", "cells", cells, *at)
    assert ran.code == 1
    assert "Taken for COCO JSON." in ran.out
    assert "12 added" in ran.out
    assert "left out: night:" in ran.out
    assert "--split train, val or test" in ran.out
    assert "it has the category 77" in ran.out.lower()
    assert "reaches 90 pixels out of its picture" in ran.out
    assert "--format voc" in ran.out
    told = run("data", "import", "cells", cells / "night", "--split", "test", "--format", "voc", "--json", *at)
    assert (told.code, told.json["kind"], told.json["added"]) == (0, "Pascal VOC XML", 2)
    shown = run("data", "show", "cells", "--json", *at).json["classes"]
    assert shown["WBC"]["test"] == 2
    check = run("data", "check", "cells", *at)
    assert (check.code, "2 pictures in test" in check.out) == (0, True)
    out = run("data", "export", "cells", tmp_path / "out", "--format", "yolo", *at)
    assert (out.code, "14 pictures: 2 test, 8 train, 4 val." in out.out) == (0, True)
    back = run("data", "import", "cells", tmp_path / "out", "--json", *at).json
    assert (back["kind"], back["unchanged"], back["rejected"], back["version"]) == ("YOLO text files", 14, [], None)
    refused = run("data", "export", "cells", tmp_path / "out", "--json", *at)
    assert (refused.code, refused.json["error"]["code"]) == (2, "conflict")
    unfit = run("data", "export", "cells", tmp_path / "other", "--format", "masks", "--json", *at)
    assert (unfit.code, unfit.json["error"]["code"]) == (2, "data_insufficient")
    assert not (tmp_path / "other").exists()


@pytest.mark.video
@pytest.mark.usefixtures("video_installed")
def test_videos(run: Run, shop: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    film = clip(tmp_path / "till.webm", ["red", "green"])
    bad = tmp_path / "bad.mp4"
    bad.write_text("x")
    ran = run("predict", tiny_bundle, film, bad, "--every", "2s")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert [line.partition(": ")[2].split()[0] for line in lines[:2]] == ["red", "green"]
    assert "0-3 s" in lines[0]
    assert "no video" in lines[2]
    told = run("predict", tiny_bundle, film, "--every", "1s", "--json").json["predictions"][0]
    assert [row["second"] for row in told["frames"]] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(told["segments"]) == 2
    assert run("predict", tiny_bundle, film, "--every", "soon").code == 2
    taken = run("data", "import", "shop", film, "--no-commit", "--json", "--workspace", shop)
    assert (taken.code, taken.json["kind"]) == (0, "videos")
    assert 2 <= taken.json["added"] <= 6
