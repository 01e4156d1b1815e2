"""An annotation that says where things are lies in its picture, whoever gives it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from keepsight.data import adding, samples
from keepsight.data.adding import NewSample
from keepsight.errors import AnnotationError
from tests import tiny


def picture(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (60, 40), (shade, 80, 80)).save(out, "PNG")
    return out.getvalue()


def boxes(*corners: list[float]) -> dict[str, Any]:
    return {"boxes": [{"label": "cup", "box": box} for box in corners]}


def test_a_misplaced_annotation_costs_its_picture_alone(tmp_path: Path) -> None:
    with tiny.workspace_with(tmp_path / "ws", "task: detection") as ws:
        items = [
            NewSample(picture(10), "good.png", boxes([1, 1, 60, 40]), split="train"),
            NewSample(picture(20), "outside.png", boxes([1, 1, 90, 40]), split="train"),
            NewSample(picture(30), "plain.png", None, split="train"),
        ]
        report = adding.add(ws, "shop", items, author="ana")
        again = adding.add(
            ws, "shop", [NewSample(picture(10), "good.png", boxes([1, 1, 61.5, 40]), split="train")], author="ana"
        )

        assert (report.added, [item.name for item in report.rejected]) == (2, ["outside.png"])
        assert "60 x 40 pixels" in report.rejected[0].text
        # The picture was stored before; its size is known all the same.
        assert [item.name for item in again.rejected] == ["good.png"]


def test_a_person_is_told_too(tmp_path: Path) -> None:
    with tiny.workspace_with(tmp_path / "ws", "task: detection") as ws:
        adding.add(ws, "shop", [NewSample(picture(10), "a.png", boxes([1, 1, 9, 9]), split="train")], author="ana")
        (sample,) = samples.current(ws, "shop")
        with ws.database.write() as connection, pytest.raises(AnnotationError, match="outside the picture"):
            samples.annotate(
                connection, ws, "shop", sample.sample_id, boxes([0, 30, 20, 55]), author="ben", origin="review"
            )

        assert samples.current(ws, "shop")[0].value == sample.value
