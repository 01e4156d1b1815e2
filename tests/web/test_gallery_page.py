"""The gallery on the dashboard and over REST: enrol, see, find, take out; bad input costs one picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from keepsight.delivery import deployments
from keepsight.store import tokens
from keepsight.store.workspace import Workspace
from keepsight.training import models
from tests import tiny
from tests.gallery import bundle_with

SETTINGS = "projects:\n  parts: {task: recognition, review: {audit_share: 0.0, min_confidence: 0.0}}\n  shop: {}\n"


@pytest.fixture
def ws(tmp_path: Path, world: Any) -> Iterator[Workspace]:
    with world.open_workspace(tmp_path / "ws", SETTINGS) as opened:
        opened.ensure_project("parts")
        model = models.register(
            opened, "parts", bundle_with(), run_id=None, dataset_version=None, metrics={}, actor="me"
        )
        deployments.promote(opened, "parts", model.number, actor="me", reason="test", kind="override")
        yield opened


@pytest.fixture
def client(ws: Workspace, world: Any) -> Iterator[httpx.Client]:
    with world.run_server(ws) as url, httpx.Client(base_url=url, timeout=30, follow_redirects=True) as opened:
        yield opened


def label(client: httpx.Client, seed: int) -> Any:
    return client.post("/v1/parts/predict", content=tiny.picture(seed)).json()["label"]


def test_rest_enrols_lists_and_takes_out(client: httpx.Client) -> None:
    answer = client.post("/v1/parts/gallery", params={"name": "bolt"}, content=tiny.picture(1))
    assert answer.status_code == 200
    assert answer.json()["enrolled"][0]["live"] is True
    # The server that was asked knows it when it answers.
    assert label(client, 1) == "bolt"
    files = [("picture", ("a.png", tiny.picture(3))), ("picture", ("b.png", b"no picture"))]
    both = client.post("/v1/parts/gallery", params={"name": "bolt"}, files=files).json()
    assert len(both["enrolled"]) == 1
    assert both["failed"][0]["code"] == "picture_unreadable"
    listed = client.get("/v1/parts/gallery").json()
    assert listed["people"] == [{"name": "bolt", "pictures": 2}]
    assert listed["model"] == 1
    gone = client.delete("/v1/parts/gallery", params={"name": "bolt"})
    assert len(gone.json()["samples"]) == 2
    assert label(client, 1) == "unknown"


@pytest.mark.parametrize(
    ("project", "params", "content", "status", "code"),
    [
        ("parts", {"name": "bolt"}, b"", 422, "bad_input"),
        ("parts", {"name": "bolt"}, b"text", 422, "picture_unreadable"),
        ("parts", {}, tiny.picture(1), 422, "bad_input"),
        ("parts", {"name": "unknown"}, tiny.picture(1), 422, "annotation_invalid"),
        ("shop", {"name": "bolt"}, tiny.picture(1), 422, "bad_input"),
        ("nothing", {"name": "bolt"}, tiny.picture(1), 404, "not_found"),
    ],
)
def test_bad_input_is_told(
    client: httpx.Client, project: str, params: dict[str, str], content: bytes, status: int, code: str
) -> None:
    answer = client.post(f"/v1/{project}/gallery", params=params, content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert client.delete("/v1/parts/gallery", params={"name": "nobody"}).status_code == 404


def test_staff_may_enrol_and_only_operators_take_out(ws: Workspace, client: httpx.Client) -> None:
    door, camera = (
        {"authorization": f"Bearer {tokens.create(ws.database, name, scopes=[scope], actor='me', now=1.0)}"}
        for name, scope in (("door", "review"), ("camera", "predict"))
    )
    picture, name = tiny.picture(1), {"name": "bolt"}
    assert client.post("/v1/parts/gallery", params=name, content=picture, headers=camera).status_code == 403
    assert client.post("/v1/parts/gallery", params=name, content=picture, headers=door).status_code == 200
    assert client.get("/v1/parts/gallery", headers=door).status_code == 200
    assert client.delete("/v1/parts/gallery", params=name, headers=door).status_code == 403


def test_the_page_shows_who_is_known(client: httpx.Client, world: Any) -> None:
    browser = world.Browser(client)
    page = browser.get("/parts/gallery").text
    assert "Nobody is enrolled." in page
    assert 'aria-current="page">Gallery' in page
    assert "Gallery</a>" not in browser.get("/shop/data").text.replace("\n", "")
    form = {"form_key": browser.form_key("/parts/gallery"), "name": "bolt M8"}
    files = [("picture", ("a.png", tiny.picture(1))), ("picture", ("b.png", b"text"))]
    told = client.post("/parts/gallery", data=form, files=files)
    assert "1 picture enrolled." in told.text
    assert "What to do:" in told.text
    page = browser.get("/parts/gallery").text
    assert "bolt M8" in page
    assert "knows 1 name" in page
    assert "Nobody of this name." in browser.get("/parts/gallery?find=nut").text
    assert "There is no picture." in client.post("/parts/gallery", data=form, files=[("picture", ("", b""))]).text
    stranger = client.post("/parts/gallery", data={**form, "form_key": "other"}, files=files)
    assert stranger.status_code == 403
    browser.post("/parts/gallery/remove", {"name": "bolt M8"})
    assert "Nobody is enrolled." in browser.get("/parts/gallery").text
