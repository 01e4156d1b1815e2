"""The REST routes of the loop: thin, scoped, one shape of error."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from keepsight.review import queue
from keepsight.store.workspace import Workspace


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as made:
        yield made


GETS = (
    "events",
    "samples",
    "versions",
    "versions/1",
    "models",
    "models/1",
    "deployments",
    "review/next",
    "monitor",
    "alerts",
    "runs",
)


def test_reading(client: httpx.Client, shop: Any) -> None:
    for path in GETS:
        answer = client.get(f"/v1/shop/{path}")
        assert answer.status_code == 200, (path, answer.text)
        assert isinstance(answer.json(), dict)


def test_a_version_as_a_zip_file(client: httpx.Client, shop: Any) -> None:
    answer = client.get("/v1/shop/versions/1/export?format=csv")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert answer.headers["keepsight-left-out"] == "0"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        table = archive.read("pictures.csv").decode().splitlines()
        assert len(table) == len([name for name in archive.namelist() if name.startswith("images/")]) + 1
    assert client.get("/v1/shop/versions/1/export").headers["content-disposition"].endswith('"shop-1-folders.zip"')
    for path, status in (("1/export?format=voc", 422), ("1/export?format=x", 404), ("9/export", 404)):
        refused = client.get(f"/v1/shop/versions/{path}")
        assert refused.status_code == status
        assert set(refused.json()["error"]) == {"code", "found", "expected", "do", "details"}


def test_an_unknown_project_is_told_in_the_one_shape(client: httpx.Client, shop: Any) -> None:
    for path in (*GETS, "predictions/x", "runs/x"):
        answer = client.get(f"/v1/shpo/{path}")
        assert answer.status_code == 404, path
        assert set(answer.json()["error"]) == {"code", "found", "expected", "do", "details"}


def test_every_error_has_the_one_shape(client: httpx.Client, shop: Any) -> None:
    cases: tuple[tuple[str, str, object, int], ...] = (
        ("POST", "/v1/shop/review/x", {"label": "apple"}, 404),
        ("POST", "/v1/shop/review/x", {}, 422),
        ("POST", "/v1/shop/review/x", {"label": "apple", "skip": "dark"}, 422),
        ("POST", "/v1/shop/review/x", {"lable": "apple"}, 422),
        ("POST", "/v1/shop/models/9/promote", {}, 404),
        ("POST", "/v1/shop/models/0/promote", {}, 422),
        ("POST", "/v1/shop/models/1/discard", {}, 409),
        ("POST", "/v1/shop/rollback", {}, 409),
        ("POST", "/v1/shop/retrain", {"version": 99}, 404),
        ("POST", "/v1/shop/alerts/x/close", {}, 404),
        ("POST", "/v1/shop/runs/x/cancel", {}, 404),
        ("GET", "/v1/shop/versions/99", None, 404),
        ("GET", "/v1/shop/samples?version=99", None, 404),
        ("GET", "/v1/shop/events?limit=0", None, 422),
        ("GET", "/v1/shop/predictions/x", None, 404),
        ("DELETE", "/v1/shop/models", None, 405),
        ("GET", "/v1/shop/nothing", None, 404),
        ("POST", "/v1/shop/samples", {"not": "a picture"}, 422),
    )
    for method, path, body, status in cases:
        answer = client.request(method, path, json=body)
        assert answer.status_code == status, (path, answer.text)
        error = answer.json()["error"]
        assert set(error) == {"code", "found", "expected", "do", "details"}, path
        assert all(error[part] for part in ("code", "found", "expected", "do")), path


def test_reviewing_by_rest(client: httpx.Client, shop: Any, ws: Workspace) -> None:
    told = client.get("/v1/shop/review/next").json()
    assert told["counts"] == {"waiting": 7, "audits_waiting": 3, "answered": 0}
    assert told["classes"] == list(shop.labels)
    event_id = told["item"]["event_id"]
    assert client.get(told["item"]["picture"]).headers["content-type"] == "image/jpeg"
    answer = client.post(f"/v1/shop/review/{event_id}", json={"label": "fig"})
    assert answer.json()["item"]["verdict"] == {"label": "fig"}
    assert client.post(f"/v1/shop/review/{event_id}", json={"label": "fig"}).status_code == 409
    assert client.post("/v1/shop/review/undo").json()["answered_at"] is None
    assert client.post(f"/v1/shop/review/{event_id}", json={"skip": "dark"}).json()["item"]["verdict"]["skip"] == "dark"
    assert queue.counts(ws, "shop").waiting == 6


def test_a_new_class_by_rest(client: httpx.Client, shop: Any) -> None:
    answer = client.post(f"/v1/shop/review/{shop.uncertain[0]}", json={"label": "medlar"})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "annotation_invalid"
    answer = client.post(f"/v1/shop/review/{shop.uncertain[0]}", json={"value": {"label": "medlar"}, "new_class": True})
    assert answer.status_code == 200


def test_events_are_paged_and_audits_keep_their_answer(client: httpx.Client, shop: Any) -> None:
    seen: list[Any] = []
    before: int | None = None
    while True:
        page = client.get("/v1/shop/events", params={"limit": 30} | ({"before": before} if before else {})).json()
        seen += page["events"]
        before = page["next"]
        if before is None:
            break
    assert len(seen) == 67
    assert {event["id"] for event in seen if event["withheld"]} == set(shop.audits)
    assert all(event["label"] is None for event in seen if event["withheld"])
    assert all(event["label"] for event in seen if not event["withheld"])


def test_one_picture_is_imported_and_again_changes_nothing(client: httpx.Client, shop: Any) -> None:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (40, 30), "orange").save(out, "PNG")
    for expected in ({"added": 1, "unchanged": 0}, {"added": 0, "unchanged": 1}):
        answer = client.post("/v1/shop/samples?label=apple&name=mine.png", content=out.getvalue())
        assert answer.status_code == 200, answer.text
        assert expected.items() <= answer.json().items()
    assert client.get("/v1/shop/samples").json()["total"] == 21


def test_promote_roll_back_and_deployments(client: httpx.Client, shop: Any) -> None:
    assert client.post("/v1/shop/models/2/promote", json={}).status_code == 422
    assert client.post("/v1/shop/models/2/promote", json={"reason": "seen it"}).json()["kind"] == "override"
    assert client.post("/v1/shop/rollback", json={}).json()["model_number"] == 1
    told = client.get("/v1/shop/deployments").json()
    assert [row["model_number"] for row in told["deployments"]] == [1, 2, 1]
    assert len(told["servers"]) == 1


def test_retrain_is_queued_once(client: httpx.Client, shop: Any) -> None:
    answer = client.post("/v1/shop/retrain", json={"reason": "new labels"})
    assert answer.status_code == 202
    run = answer.json()
    assert (run["status"], run["trigger"]) == ("queued", "api")
    assert client.post("/v1/shop/retrain", json={}).status_code == 409
    assert client.get(f"/v1/shop/runs/{run['id']}").json()["reason"] == "new labels"
    assert client.get(f"/v1/empty/runs/{run['id']}").status_code == 404
    assert client.post(f"/v1/shop/runs/{run['id']}/cancel").json()["status"] == "cancelled"


def test_scopes(client: httpx.Client, shop: Any, ws: Workspace) -> None:
    from keepsight.store import tokens

    secrets = {
        scope: tokens.create(ws.database, scope, scopes=[scope], actor="test", now=ws.clock())
        for scope in ("predict", "review", "operate")
    }

    def ask(scope: str, method: str, path: str) -> int:
        headers = {"authorization": f"Bearer {secrets[scope]}"}
        return client.request(method, path, headers=headers, json={} if method == "POST" else None).status_code

    allowed = {"predict": 403, "review": 200, "operate": 200}
    assert {scope: ask(scope, "GET", "/v1/shop/models") for scope in secrets} == allowed
    assert {scope: ask(scope, "GET", "/v1/shop/review/next") for scope in secrets} == allowed
    assert {scope: ask(scope, "POST", "/v1/shop/retrain") for scope in secrets} == {
        "predict": 403,
        "review": 403,
        "operate": 202,
    }
    assert ask("predict", "GET", f"/v1/shop/predictions/{shop.uncertain[0]}") == 200
    assert ask("predict", "GET", "/") == 403


def test_probes_stay_open(client: httpx.Client) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/metrics").status_code == 200
    assert "paths" in client.get("/openapi.json").json()


def test_a_number_that_no_column_holds_is_a_mistake_of_the_asker(client: httpx.Client, shop: Any) -> None:
    huge = "9" * 30
    for path in (
        f"/v1/shop/events?before={huge}",
        f"/v1/shop/versions/{huge}",
        f"/v1/shop/versions/1?since={huge}",
        f"/v1/shop/models/{huge}",
        f"/v1/shop/samples?offset={huge}",
        f"/shop/data?offset={huge}",
        f"/shop/data/versions/{huge}",
        f"/shop/data/versions/1?since={huge}",
        f"/audit?before={huge}",
    ):
        assert client.get(path).status_code == 422, path
