"""The HTTP routes over the real server, with a real model and a real database."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image

from keepsight.store import schema
from keepsight.store.workspace import Workspace
from tests import matting


def events(ws: Workspace) -> list[dict[str, Any]]:
    with ws.database.read("events") as connection:
        return [dict(row) for row in connection.execute(sa.select(schema.event).order_by("seq")).mappings()]


def feedback_rows(ws: Workspace) -> list[dict[str, Any]]:
    with ws.database.read("events") as connection:
        return [dict(row) for row in connection.execute(sa.select(schema.feedback).order_by("seq")).mappings()]


def test_answers_a_raw_picture_and_has_logged_it_before_the_answer_leaves(
    shop: Any, ws: Workspace, picture: Any
) -> None:
    answer = shop.predict(picture("green"), source="till 2", group="crate 7", **{"meta.light": "dim"})
    assert answer.status_code == 200
    body = answer.json()
    assert body["label"] == "green"
    assert body["confidence"] > 0.9
    assert {item["label"] for item in body["alternatives"]} == {"red", "blue"}
    assert body["decision"] == "auto"
    assert body["reasons"] == []
    assert set(body["quality"]) == {"blur", "brightness", "contrast", "width", "height"}
    assert set(body["timings_ms"]) == {"decode", "model", "log", "total"}
    assert body["model"]["version"] == 1
    (event,) = events(ws)
    assert event["id"] == body["prediction_id"]
    assert event["trace_id"] == body["trace_id"]
    assert (event["label"], event["source"], event["meta"]) == ("green", "till 2", {"group": "crate 7", "light": "dim"})
    assert event["bundle_digest"] == body["model"]["digest"]
    assert event["prediction"]["alternatives"] == body["alternatives"]
    features = np.frombuffer(event["features"], "<f2")
    assert features.shape == (3,)
    assert features.argmax() == 1
    assert event["sealed"] is None and event["selected_by"] is None
    assert 0 < event["latency_ms"] <= body["timings_ms"]["total"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_takes_every_format_whatever_the_content_type_says(shop: Any, picture: Any, kind: str) -> None:
    data = picture("blue", kind=kind)
    for content_type in (f"image/{kind.lower()}", "application/x-www-form-urlencoded", "application/octet-stream"):
        answer = shop.client.post("/v1/shop/predict", content=data, headers={"Content-Type": content_type})
        assert answer.json()["label"] == "blue"


def test_a_form_with_one_picture_gets_one_answer(shop: Any, ws: Workspace, picture: Any) -> None:
    form = {"picture": ("a.jpg", picture("red"), "image/jpeg")}
    body = shop.client.post("/v1/shop/predict", files=form, data={"source": "phone", "meta.row": "3"}).json()
    assert body["label"] == "red"
    assert events(ws)[0]["source"] == "phone"
    assert events(ws)[0]["meta"] == {"row": "3"}


def test_in_a_form_with_many_pictures_a_bad_one_costs_only_itself(shop: Any, ws: Workspace, picture: Any) -> None:
    files = [
        ("picture", ("a.jpg", picture("red"))),
        ("file", ("b.jpg", b"this is no picture")),
        ("picture", ("c.jpg", picture("blue"))),
    ]
    answer = shop.client.post("/v1/shop/predict", files=files)
    assert answer.status_code == 200
    first, second, third = answer.json()
    assert (first["label"], third["label"]) == ("red", "blue")
    assert second["error"]["code"] == "picture_unreadable"
    assert [row["label"] for row in events(ws)].count("red") == 1
    assert len(events(ws)) == 2


def test_the_trace_of_the_caller_is_kept(shop: Any, ws: Workspace, picture: Any) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    answer = shop.client.post("/v1/shop/predict", content=picture(), headers=headers)
    assert answer.json()["trace_id"] == trace
    assert events(ws)[0]["trace_id"] == trace


def test_feedback_is_recorded_once_however_often_it_is_sent(shop: Any, ws: Workspace, picture: Any) -> None:
    prediction = shop.predict(picture()).json()["prediction_id"]
    said: list[dict[str, Any]] = [
        {"prediction_id": prediction, "correct": False},
        {"prediction_id": prediction, "correct": False},
        {"prediction_id": prediction, "correct": False, "id": "a second person"},
        {"prediction_id": prediction, "correct": True},
        {"prediction_id": prediction, "label": "blue"},
    ]
    answers = [shop.client.post("/v1/shop/feedback", json=item) for item in said]
    assert [answer.status_code for answer in answers] == [200] * 5
    ids = [answer.json()["feedback_id"] for answer in answers]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4
    rows = feedback_rows(ws)
    assert [row["kind"] for row in rows] == ["wrong", "wrong", "correct", "label"]
    assert rows[-1]["value"] == {"label": "blue"}
    assert all(row["event_id"] == prediction and row["author"] for row in rows)


def test_feedback_that_does_not_fit_says_what_would(shop: Any, ws: Workspace, picture: Any) -> None:
    prediction = shop.predict(picture()).json()["prediction_id"]

    def sent(content: Any, project: str = "shop") -> tuple[int, dict[str, Any]]:
        answer = shop.client.post(f"/v1/{project}/feedback", json=content)
        return answer.status_code, answer.json()["error"]

    status, error = sent({"prediction_id": prediction, "label": "geen"})
    assert status == 422
    assert 'Did you mean "green"?' in error["do"]
    status, error = sent({"prediction_id": "0" * 32, "correct": True})
    assert (status, error["code"]) == (404, "not_found")
    for content in (
        {"prediction_id": prediction},
        {"prediction_id": prediction, "correct": True, "label": "red"},
        {"prediction_id": prediction, "correct": "yes"},
        {"prediction_id": 7, "correct": True},
        {"prediction_id": "../etc", "correct": True},
        {"correct": True},
        {"prediction_id": prediction, "correct": True, "stars": 5},
        [prediction],
    ):
        assert sent(content)[0] == 422
    answer = shop.client.post("/v1/shop/feedback", content=b"{not json")
    assert answer.json()["error"]["code"] == "bad_input"
    assert feedback_rows(ws) == []


def test_bad_pictures_are_told_apart(shop: Any, ws: Workspace, picture: Any) -> None:
    small = picture(kind="PNG")
    size = b"IHDR" + struct.pack(">II", 30_000, 30_000) + small[24:29]
    bomb = small[:12] + size + struct.pack(">I", zlib.crc32(size)) + small[33:]
    cases = {b"": "bad_input", b"hello, I am a text": "picture_unreadable", picture()[:200]: "picture_unreadable"}
    for data, code in cases.items():
        answer = shop.predict(data)
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == code
    answer = shop.predict(bomb)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "picture_too_large"
    assert events(ws) == []


def test_facts_that_a_database_cannot_hold_are_refused(shop: Any, picture: Any) -> None:
    for query in ({"source": "a\x00b"}, {"source": "x" * 201}, {"meta.a": "y" * 1001}, {"colour": "red"}):
        answer = shop.predict(picture(), **query)
        assert answer.status_code == 422, query


def test_a_project_without_a_model_says_how_to_get_one(shop: Any, picture: Any) -> None:
    answer = shop.predict(picture(), project="empty")
    assert answer.status_code == 503
    assert "keepsight train empty" in answer.json()["error"]["do"]
    answer = shop.predict(picture(), project="shpo")
    assert answer.status_code == 404
    assert "Did you mean" in answer.json()["error"]["do"] or "keepsight init" in answer.json()["error"]["do"]


def test_health_readiness_and_metrics(shop: Any, picture: Any) -> None:
    assert shop.client.get("/healthz").json() == {"status": "ok"}
    assert shop.client.head("/healthz").status_code == 200
    assert shop.client.get("/readyz").json() == {"status": "ready", "models": {"shop": 1}}
    shop.predict(picture("red"))
    shop.predict(picture("blue"))
    shop.predict(b"no picture")
    shop.predict(picture(), project="no-such-project")
    text = shop.client.get("/metrics").text
    assert 'keepsight_requests_total{project="shop",model="1",status="200"} 2' in text
    assert 'keepsight_errors_total{project="shop",code="picture_unreadable"} 1' in text
    assert 'keepsight_decisions_total{project="shop",model="1",decision="auto"} 2' in text
    assert 'keepsight_predict_seconds_bucket{project="shop",model="1",le="+Inf"} 2' in text
    assert 'keepsight_predict_seconds_count{project="shop",model="1"} 2' in text
    assert 'keepsight_model_info{project="shop",model="1",digest="' in text
    assert "no-such-project" not in text


def test_every_error_of_every_route_has_the_one_shape(shop: Any) -> None:
    document = shop.client.get("/openapi.json").json()
    paths = list(document["paths"])
    assert {"/v1/{project}/predict", "/v1/{project}/feedback", "/v1/{project}/events", "/healthz"} <= set(paths)
    seen: set[int] = set()
    for path in [*paths, "/no/such/path", "/v1/shop/predict/"]:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            for project in ("shop", "empty", "no-such-project"):
                answer: httpx.Response = shop.client.request(method, path.replace("{project}", project), content=b"{")
                if answer.status_code >= 400:
                    error = answer.json()["error"]
                    assert set(error) == {"code", "found", "expected", "do", "details"}, (method, path)
                    assert all(error[part] for part in ("code", "found", "expected", "do")), (method, path)
                    seen.add(answer.status_code)
    assert {404, 405, 422, 503} <= seen


def test_what_may_be_sent_stands_in_the_api_document(shop: Any) -> None:
    document = shop.client.get("/openapi.json").json()
    predict = document["paths"]["/v1/{project}/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {"image/*", "multipart/form-data"}
    assert "source" in {item["name"] for item in predict["parameters"]}


@pytest.fixture
def cutout(make_workspace: Any, deployed: Any, running: Any, make_app: Any) -> Any:
    """A server with a model that cuts out, and one that classifies."""
    ws = make_workspace("projects: {cutout: {task: segmentation}}\n")
    deployed(ws, matting.bundle(), "cutout")
    return running(make_app(ws)), ws


def test_the_answer_may_be_a_picture(cutout: Any) -> None:
    server, ws = cutout
    mask = matting.disc((90, 60))
    data = matting.photo(mask)
    answer = server.client.post("/v1/cutout/predict?as=picture&background=%23ffffff&source=till", content=data)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    (event,) = events(ws)
    assert answer.headers["x-keepsight-prediction-id"] == event["id"]
    assert answer.headers["x-keepsight-decision"] == event["decision"]
    assert float(answer.headers["x-keepsight-confidence"]) == pytest.approx(event["confidence"], abs=1e-4)
    assert event["source"] == "till"
    pixels = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert pixels.shape == (60, 90, 3)
    assert pixels[2, 2].tolist() == [255, 255, 255]
    clear = server.client.post("/v1/cutout/predict?as=picture", files={"picture": data})
    assert Image.open(io.BytesIO(clear.content)).mode == "RGBA"
    behind = io.BytesIO()
    Image.new("RGB", (30, 30), (0, 0, 250)).save(behind, "PNG")
    files = {"picture": data, "background": behind.getvalue()}
    photo = server.client.post("/v1/cutout/predict", params={"as": "picture"}, files=files)
    assert np.asarray(Image.open(io.BytesIO(photo.content)))[2, 2].tolist() == [0, 0, 250]


def test_pictures_that_cannot_be_had_cost_no_prediction(cutout: Any, shop: Any, ws: Workspace, picture: Any) -> None:
    server, other = cutout
    data = matting.photo(matting.disc())
    for query, told in (
        ("as=picture&background=whiteish", "no colour"),
        ("as=film", "asked for as"),
    ):
        answer = server.client.post(f"/v1/cutout/predict?{query}", content=data)
        assert answer.status_code == 422
        assert told in answer.json()["error"]["found"]
    two = server.client.post(
        "/v1/cutout/predict?as=picture", files=[("picture", ("a.png", data)), ("picture", ("b.png", data))]
    )
    assert "2 pictures" in two.json()["error"]["found"]
    bad = server.client.post("/v1/cutout/predict?as=picture", files={"picture": data, "background": b"no picture"})
    assert bad.status_code == 422
    refused = shop.client.post("/v1/shop/predict?as=picture", content=picture("red"))
    assert "classification are no pictures" in refused.json()["error"]["found"]
    assert events(other) == events(ws) == []
