"""``predict-video`` over the real server: frames, segments, events, and videos that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepsight.store import schema
from keepsight.store.workspace import Workspace

from ..clips import clip
from .conftest import build_bundle, deploy

pytestmark = [pytest.mark.video, pytest.mark.usefixtures("video_installed")]


def post(server: Any, data: bytes, **query: str) -> Any:
    return server.client.post("/v1/shop/predict-video", content=data, params=query)


def test_frames_and_segments(shop: Any, ws: Workspace, tmp_path: Path) -> None:
    data = clip(tmp_path / "c.webm").read_bytes()
    answer = post(shop, data, every="2s", source="till", **{"meta.shift": "late"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [(row["second"], row["scene"], row["label"]) for row in body["frames"]] == [
        (0.0, 0, "red"),
        (2.0, 0, "red"),
        (3.0, 1, "green"),
        (5.0, 1, "green"),
        (6.0, 2, "blue"),
        (8.0, 2, "blue"),
    ]
    told = [(part["label"], part["start"], part["end"], part["frames"]) for part in body["segments"]]
    assert told == [("red", 0.0, 3.0, 2), ("green", 3.0, 6.0, 2), ("blue", 6.0, pytest.approx(8.9), 2)]
    assert {part["decision"] for part in body["segments"]} == {"auto"}
    assert body["video"]["stopped"] == ""
    with ws.database.read("events") as connection:
        events = connection.execute(sa.select(schema.event).order_by("seq")).mappings().all()
    assert sorted(float(event["meta"]["second"]) for event in events) == [0.0, 2.0, 3.0, 5.0, 6.0, 8.0]
    assert {event["id"] for event in events} == {row["prediction_id"] for row in body["frames"]}
    assert {(event["source"], event["meta"]["shift"], event["trace_id"]) for event in events} == {
        ("till", "late", body["video"]["trace_id"])
    }
    assert len({event["meta"]["group"] for event in events}) == 1
    assert len(post(shop, data, every="4s", scenes="false", group="g").json()["frames"]) == 3


@pytest.mark.parametrize(
    ("data", "query", "code", "status"),
    [
        (b"", {}, "picture_unreadable", 422),
        (b"no video at all", {}, "picture_unreadable", 422),
        (b"x", {"every": "0s"}, "bad_input", 422),
        (b"x", {"scenes": "maybe"}, "bad_input", 422),
        (b"x", {"colour": "red"}, "bad_input", 422),
    ],
)
def test_what_is_not_answered(shop: Any, data: bytes, query: dict[str, str], code: str, status: int) -> None:
    answer = post(shop, data, **query)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_forms_and_unknown_projects(shop: Any) -> None:
    form = shop.client.post("/v1/shop/predict-video", files={"video": b"x"})
    assert (form.status_code, form.json()["error"]["code"]) == (422, "bad_input")
    assert shop.client.post("/v1/shpo/predict-video", content=b"x").status_code == 404


def test_a_long_video_is_answered_to_the_limit(
    make_workspace: Callable[..., Workspace], running: Callable[..., Any], make_app: Callable[..., Any], tmp_path: Path
) -> None:
    ws = make_workspace("projects: {shop: {serving: {video_seconds: 4}}}\n")
    deploy(ws, build_bundle())
    server = running(make_app(ws))
    body = post(server, clip(tmp_path / "c.mp4").read_bytes()).json()
    assert body["video"]["stopped"] == "only the first 4 seconds are read"
    assert [row["second"] for row in body["frames"]] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert server.predict(b"x").status_code == 422
