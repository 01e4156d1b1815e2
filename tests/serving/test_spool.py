"""A server without a database: its events lie encrypted on disk and reach a workspace, whatever happens in between."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepsight.errors import SettingsError, StorageError, WorkspaceKeyError
from keepsight.review import intake
from keepsight.runtime.decode import probe
from keepsight.serving.app import create_app
from keepsight.serving.bundles import BundleSource
from keepsight.serving.events import Event, Feedback
from keepsight.serving.guard import EnvironmentTokens, Guard
from keepsight.serving.spool import SpoolSink, load_key
from keepsight.store import schema, tokens
from keepsight.store.workspace import Workspace

KEY = bytes(range(32))
NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens


def rows(ws: Workspace, table: sa.Table = schema.event) -> list[dict[str, Any]]:
    with ws.database.read("events") as connection:
        return [dict(row) for row in connection.execute(sa.select(table).order_by("seq")).mappings()]


def event(number: int, **changes: Any) -> Event:
    values: dict[str, Any] = {
        "id": f"{number:032x}",
        "project_id": "shop",
        "at": 1000.0 + number,
        "model_number": 0,
        "bundle_digest": "d" * 64,
        "variant": "float",
        "prediction": {"label": "red", "confidence": 0.9, "alternatives": []},
        "label": "red",
        "confidence": 0.9,
        "decision": "auto",
        "quality": {"blur": 0.5},
        "reasons": [],
        "features": b"\x00\x3c" * 3,
        "picture_id": None,
        "sealed": None,
        "selected_by": None,
        "probability": 0.05,
        "source": "camera",
        "trace_id": f"{number:032x}",
        "meta": {},
        "latency_ms": 3.5,
    }
    return Event(**{**values, **changes})


@contextmanager
def opened(folder: Path, **options: Any) -> Iterator[SpoolSink]:
    sink = SpoolSink(folder, KEY, **options)
    sink.start()
    try:
        yield sink
    finally:
        sink.close()


@pytest.fixture
def camera(tmp_path: Path, make_bundle: Any, running: Any) -> Callable[[str], Any]:
    """``camera(url)``: a server with a bundle on disk, spooling into one folder."""
    path = make_bundle(threshold=0.0).to_zip(tmp_path / "shop.zip")

    def start(url: str) -> Any:
        sink = SpoolSink(tmp_path / "spool", KEY, forward_url=url)
        source = BundleSource({"shop": path}, environment={"KEEPSIGHT_REVIEW_AUDIT_SHARE": "1"})
        return running(create_app(source, sink, Guard(EnvironmentTokens({})), threads=1))

    return start


def test_events_pictures_and_feedback_reach_the_workspace(
    shop: Any, ws: Workspace, camera: Any, picture: Any, wait_until: Any
) -> None:
    device = camera(shop.url)
    data = picture("blue", noise=5)
    body = device.predict(data, source="gate", group="lorry 3").json()
    assert body["label"] == "blue"
    said = {"prediction_id": body["prediction_id"], "correct": False}
    assert device.client.post("/v1/shop/feedback", json=said).status_code == 200
    wait_until(lambda: len(rows(ws)) == 1 and len(rows(ws, schema.feedback)) == 1)
    (row,) = rows(ws)
    assert row["id"] == body["prediction_id"]
    # Here the model has a number, which the device does not know.
    assert (body["model"]["version"], row["model_number"]) == (0, 1)
    assert (row["source"], row["meta"], row["selected_by"]) == ("gate", {"group": "lorry 3"}, "audit")
    assert "/" in rows(ws, schema.feedback)[0]["author"]
    assert intake.run(ws) == 1
    assert ws.blobs.get(ws.blobs.name(data)) == data
    wait_until(lambda: device.app.state.services.sink.waiting() == 0)


def test_what_was_not_forwarded_survives_a_restart(
    shop: Any, ws: Workspace, camera: Any, picture: Any, wait_until: Any, tmp_path: Path
) -> None:
    device = camera(NOWHERE)
    pictures = [picture("red", noise=number) for number in range(5)]
    ids = [device.predict(data).json()["prediction_id"] for data in pictures]
    device.stop()
    assert rows(ws) == []
    for path in (tmp_path / "spool").rglob("*.spool"):
        content = path.read_bytes()
        assert b"red" not in content
        assert base64.b64encode(pictures[0])[:100] not in content
    device = camera(shop.url)
    wait_until(lambda: len(rows(ws)) == 5)
    assert [row["id"] for row in rows(ws)] == ids
    wait_until(lambda: device.app.state.services.sink.waiting() == 0)
    # Nothing that was forwarded stays on the device.
    assert list((tmp_path / "spool").rglob("*.spool")) == []


def test_forwarding_begins_again_when_the_server_comes_and_sends_nothing_twice(
    ws: Workspace, make_app: Any, make_bundle: Any, deployed: Any, running: Any, tmp_path: Path, wait_until: Any,
    monkeypatch: Any,
) -> None:  # fmt: skip
    deployed(ws, make_bundle())
    server = running(make_app(ws))
    secret = tokens.create(ws.database, "device", scopes=["predict"], actor="me", now=1.0)
    with opened(tmp_path / "spool", forward_url=server.url, token="ks_wrong") as sink:
        for number in range(4):
            sink.write(event(number)).result()
        wait_until(lambda: "401" in sink._trouble or sink.waiting() == 0)
    wait_until(lambda: server.client.post("/v1/shop/predict", content=b"").status_code == 401)
    before = len(rows(ws))
    with opened(tmp_path / "spool", forward_url=server.url, token=secret) as sink:
        wait_until(lambda: sink.waiting() == 0)
        # The same events once more, as after a crash between sending and noting it.
        for number in range(4):
            sink.write(event(number)).result()
        wait_until(lambda: sink.waiting() == 0)
    assert before <= 4
    assert len(rows(ws)) == 4


def test_a_record_that_does_not_fit_costs_no_other_and_is_set_aside(
    shop: Any, ws: Workspace, tmp_path: Path, wait_until: Any
) -> None:
    with opened(tmp_path / "spool", forward_url=shop.url) as sink:
        futures = [
            sink.write(event(1)),
            sink.write(event(2, confidence=7.0)),
            sink.write(event(3, sealed={"location": "aa/stolen"}, selected_by="audit")),
            sink.write(event(4)),
        ]
        for future in futures:
            future.result()
        wait_until(lambda: sink.waiting() == 0)
        assert len(list(sink._rejected.read())) == 2
    assert [row["id"][-1] for row in rows(ws)] == ["1", "4"]


def test_a_foreign_event_cannot_name_an_object_of_ours(shop: Any, ws: Workspace, picture: Any) -> None:
    sealed = {"id": "x", "location": "aa/stolen", "wrapped_key": "eA==", "data": base64.b64encode(picture()).decode()}
    sent = event(1, sealed=sealed, picture_id="y" * 64, selected_by="audit").as_dict()
    answer = shop.client.post("/v1/shop/events", json={"events": [sent]})
    assert answer.json() == {"taken": 1, "known": 0, "rejected": []}
    (row,) = rows(ws)
    assert row["picture_id"] == row["sealed"]["id"] == ws.blobs.name(picture())
    assert row["sealed"]["location"] != "aa/stolen"
    assert shop.client.post("/v1/shop/events", json={"events": [sent]}).json()["known"] == 1


def test_forwarded_records_are_checked_field_by_field(shop: Any, ws: Workspace) -> None:
    good = event(1).as_dict()
    bad = [
        {**good, "id": "short"},
        {**good, "project_id": "empty"},
        {**good, "label": "a\x00b"},
        {**good, "at": "yesterday"},
        {**good, "model_number": 2**40},
        {**good, "decision": "maybe"},
        {**good, "features": "not base64!"},
        {**good, "surprise": 1},
        {key: value for key, value in good.items() if key != "label"},
        "no object",
        7,
    ]
    answer = shop.client.post("/v1/shop/events", json={"events": [*bad, good]})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["taken"], len(body["rejected"])) == (1, len(bad))
    assert all(item["error"]["expected"] for item in body["rejected"])
    assert len(rows(ws)) == 1
    bodies: list[Any] = [{"events": 7}, {"other": []}, {"events": [good] * 1001}]
    for content in bodies:
        assert shop.client.post("/v1/shop/events", json=content).status_code == 422
    assert shop.client.post("/v1/nothing/events", json={}).status_code == 404
    text = json.dumps({"events": [good]}).replace("0.05", "NaN")
    assert shop.client.post("/v1/shop/events", content=text).status_code == 422


def test_a_full_spool_says_so_and_keeps_what_it_promised(tmp_path: Path) -> None:
    with opened(tmp_path / "spool", forward_url=NOWHERE, max_bytes=5000) as sink:
        done = 0
        error: BaseException | None = None
        while error is None:
            error = sink.write(event(done)).exception()
            done += error is None
        assert isinstance(error, StorageError)
        assert "limit" in error.found
    assert done > 2
    with opened(tmp_path / "spool") as sink:
        assert sink.waiting() == done


def test_a_torn_or_changed_record_costs_only_itself(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with opened(folder) as sink:
        for number in range(3):
            sink.write(event(number)).result()
    (path,) = folder.glob("slot-0/*.spool")
    content = bytearray(path.read_bytes())
    content[24 + 4 + 12 + 5] ^= 1
    path.write_bytes(bytes(content[:-10]))
    with opened(folder) as sink:
        sink.write(event(9)).result()
        left = [json.loads(stored.data)[1]["id"] for stored in sink._log.read()]
    assert left == [event(1).id, event(9).id]


def test_another_key_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "spool") as sink:
        sink.write(event(1)).result()
    with pytest.raises(WorkspaceKeyError, match="another key"):
        SpoolSink(tmp_path / "spool", bytes(32))


def test_two_processes_share_a_folder_and_take_over_what_a_dead_one_left(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with opened(folder) as first, opened(folder) as second:
        first.write(event(1)).result()
        second.write(event(2)).result()
        assert first.waiting() == second.waiting() == 1
    with opened(folder) as sink:
        assert sink.waiting() == 2
        assert {json.loads(stored.data)[1]["id"] for stored in sink._log.read()} == {event(1).id, event(2).id}


def test_the_place_of_forwarding_is_never_ahead_of_new_records(
    shop: Any, ws: Workspace, tmp_path: Path, wait_until: Any
) -> None:
    folder = tmp_path / "spool"
    for number in range(3):
        with opened(folder, forward_url=shop.url) as sink:
            sink.write(event(number)).result()
            wait_until(lambda sink=sink: sink.waiting() == 0)
    with opened(folder) as sink:
        sink.write(event(7)).result()
        assert sink.waiting() == 1
        assert len(list(sink._log.read())) == 1
    assert len(rows(ws)) == 3


def test_the_key_comes_from_the_environment_or_a_file_of_its_own(tmp_path: Path) -> None:
    assert load_key(tmp_path, environment={"KEEPSIGHT_SPOOL_KEY": base64.b64encode(KEY).decode()}) == KEY
    made = load_key(tmp_path / "new", environment={})
    assert load_key(tmp_path / "new", environment={}) == made
    assert (tmp_path / "new" / "spool.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(WorkspaceKeyError, match="KEEPSIGHT_SPOOL_KEY"):
        load_key(tmp_path, environment={"KEEPSIGHT_SPOOL_KEY": "short"})


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    for url in ("keepsight.example", "file:///etc/passwd", "ftp://host"):
        with pytest.raises(SettingsError, match="no address"):
            SpoolSink(tmp_path / "spool", KEY, forward_url=url)


def test_events_and_feedback_survive_the_wire(picture: Any) -> None:
    data = picture()
    sealed = {"data": base64.b64encode(data).decode(), "format": probe(data).format}
    sent = event(5, sealed=sealed, selected_by="uncertain", meta={"group": "ü"})
    assert Event.from_dict(json.loads(json.dumps(sent.as_dict()))) == sent
    said = Feedback("a" * 32, "shop", "b" * 32, 5.0, "label", {"label": "red"}, "anna")
    assert Feedback.from_dict(json.loads(json.dumps(said.as_dict()))) == said
