"""Models out of a workspace's deployments, events into its database: swaps, troubles and load."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from keepsight.delivery import deployments
from keepsight.errors import NotReadyError, StorageError
from keepsight.monitoring import alerts
from keepsight.serving.database import DatabaseSink, DatabaseSource
from keepsight.store import schema
from keepsight.store.workspace import Workspace


def count(ws: Workspace, table: sa.Table = schema.event) -> int:
    with ws.database.read("events") as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


def test_a_swap_under_load_fails_no_request_and_mixes_none(
    shop: Any, ws: Workspace, picture: Any, make_bundle: Any, deployed: Any, wait_until: Any
) -> None:
    labels = {1: ("red", "green", "blue")}
    stop = threading.Event()
    seen: list[tuple[int, dict[str, Any]]] = []

    def send(number: int) -> None:
        data = picture("green", noise=number)
        with httpx.Client(base_url=shop.url, timeout=30) as client:
            while not stop.is_set():
                answer = client.post("/v1/shop/predict", content=data)
                seen.append((answer.status_code, answer.json()))

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(send, number) for number in range(4)]
        wait_until(lambda: bool(seen))
        for number in range(2, 6):
            labels[number] = (f"red{number}", f"green{number}", f"blue{number}")
            assert deployed(ws, make_bundle(labels[number])) == number
            wait_until(lambda number=number: any(body["model"]["version"] == number for _, body in seen[-8:]))
        stop.set()
        for future in futures:
            future.result()
    assert {status for status, _ in seen} == {200}
    assert {body["model"]["version"] for _, body in seen} == {1, 2, 3, 4, 5}
    for _, body in seen:
        assert body["label"] == labels[body["model"]["version"]][1]
        assert {item["label"] for item in body["alternatives"]} < set(labels[body["model"]["version"]])
    assert count(ws) == len(seen)
    assert deployments.current(ws, "shop").live_at is not None  # type: ignore[union-attr]


def test_a_model_that_cannot_be_loaded_leaves_the_old_one_answering(
    shop: Any, ws: Workspace, picture: Any, make_bundle: Any, deployed: Any, wait_until: Any
) -> None:
    number = deployed(ws, make_bundle(("a", "b", "c")))
    wait_until(lambda: shop.predict(picture("green")).json()["model"]["version"] == number)
    broken = make_bundle(("x", "y", "z"))
    blob_id = ws.blobs.put(b"no bundle at all", now=1.0)
    with ws.database.write() as connection:
        connection.execute(
            sa.insert(schema.model).values(
                project_id="shop",
                number=number + 1,
                bundle_digest=broken.digest,
                blob_id=blob_id,
                run_id=None,
                status="challenger",
                dataset_version=None,
                metrics={},
                created_at=1.0,
            )
        )
    bad = deployments.promote(ws, "shop", number + 1, actor="tester", reason="test", kind="override")
    wait_until(lambda: bool(deployments.failures(ws, bad.id)))
    assert "bundle" in deployments.failures(ws, bad.id)[0]
    answer = shop.predict(picture("green"))
    assert (answer.status_code, answer.json()["model"]["version"]) == (200, number)
    assert shop.client.get("/readyz").status_code == 200
    deployments.rollback(ws, "shop", actor="tester", reason="test")
    wait_until(lambda: deployments.current(ws, "shop").live_at is not None)  # type: ignore[union-attr]
    assert shop.predict(picture("green")).json()["model"]["version"] == number


def test_settings_and_alarms_are_followed_while_serving(
    make_workspace: Any, make_app: Any, make_bundle: Any, deployed: Any, running: Any, picture: Any, wait_until: Any
) -> None:
    ws: Workspace = make_workspace("projects:\n  shop: {}\n")
    deployed(ws, make_bundle())
    server = running(make_app(ws))

    def settings() -> Any:
        return server.app.state.services.source.current("shop").settings

    assert settings().audit_share == 0.05
    ws.set_setting("shop", "serving.top_k", 2, actor="tester")
    wait_until(lambda: settings().top_k == 2)
    assert len(server.predict(picture()).json()["alternatives"]) == 1
    ws.set_setting("shop", "review.min_confidence", 1.0, actor="tester")
    wait_until(lambda: settings().min_confidence == 1.0)
    body = server.predict(picture()).json()
    assert body["decision"] == "review"
    assert [item["code"] for item in body["reasons"]] == ["low_confidence"]
    with ws.database.write() as connection:
        connection.execute(
            sa.insert(schema.alert).values(
                id="1" * 32,
                project_id="shop",
                kind="drift",
                title="t",
                text="t",
                data={},
                trace_id=None,
                created_at=ws.clock(),
                closed_at=None,
                closed_by=None,
            )
        )
    wait_until(lambda: settings().audit_share == 0.25)
    alerts.close(ws, "shop", "1" * 32, actor="tester")
    wait_until(lambda: settings().audit_share == 0.05)


def test_a_selected_picture_is_kept_encrypted_and_its_event_says_where(
    make_workspace: Any, make_app: Any, make_bundle: Any, deployed: Any, running: Any, picture: Any
) -> None:
    ws: Workspace = make_workspace("projects:\n  shop:\n    review: {audit_share: 1.0}\n")
    deployed(ws, make_bundle())
    data = picture("blue")
    server = running(make_app(ws))
    assert server.predict(data).status_code == 200
    with ws.database.read("events") as connection:
        event = connection.execute(sa.select(schema.event)).mappings().one()
    assert (event["selected_by"], event["probability"]) == ("audit", 1.0)
    assert event["picture_id"] == event["sealed"]["id"] == ws.blobs.name(data)
    assert (event["sealed"]["format"], event["sealed"]["width"]) == ("jpeg", 32)
    stored = (ws.state / "blobs" / event["sealed"]["location"]).read_bytes()
    assert data not in stored
    with ws.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.blob)) == 1  # the bundle alone


def test_a_server_is_on_the_list_while_it_lives(ws: Workspace, make_app: Any, running: Any) -> None:
    server = running(make_app(ws, server_id="b" * 32))
    assert deployments.live_servers(ws) == ["b" * 32]
    server.stop()
    assert deployments.live_servers(ws) == []


def test_ready_only_once_what_is_deployed_is_loaded(
    ws: Workspace, make_bundle: Any, deployed: Any, make_app: Any, running: Any
) -> None:
    number = deployed(ws, make_bundle())
    with ws.database.write() as connection:
        connection.execute(sa.update(schema.model).values(bundle_digest="0" * 64))
    server = running(make_app(ws))
    answer = server.client.get("/readyz")
    assert answer.status_code == 503
    assert f"model {number}" in answer.json()["error"]["found"]


class Gate:
    """A database whose event writes wait or fail at will."""

    def __init__(self, ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.open.set()
        self.error: StorageError | None = None
        write = ws.database.write

        @contextmanager
        def gated(area: str = "truth") -> Any:
            if area == "events":
                self.open.wait(30)
                if self.error is not None:
                    raise self.error
            with write(area) as connection:
                yield connection

        monkeypatch.setattr(ws.database, "write", gated)


FULL = StorageError("The disk is full.", expected="room.", do="Make room.")


def test_too_much_waiting_is_refused_and_nothing_accepted_is_lost(
    ws: Workspace, make_app: Any, make_bundle: Any, deployed: Any, running: Any, picture: Any, monkeypatch: Any,
    wait_until: Any,
) -> None:  # fmt: skip
    deployed(ws, make_bundle())
    gate = Gate(ws, monkeypatch)
    server = running(make_app(ws, sink=DatabaseSink(ws, capacity=3)))
    gate.open.clear()
    with ThreadPoolExecutor(12) as pool:
        futures = [pool.submit(server.predict, picture(noise=number)) for number in range(12)]
        wait_until(lambda: sum(future.done() for future in futures) >= 12 - 3 - 3)
        gate.open.set()
        answers: list[httpx.Response] = [future.result() for future in futures]
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "not_ready"
    assert count(ws) == statuses.count(200)


def test_too_many_pictures_waiting_for_a_thread_are_refused(
    ws: Workspace, make_app: Any, make_bundle: Any, deployed: Any, running: Any, picture: Any
) -> None:
    deployed(ws, make_bundle())
    server = running(make_app(ws, threads=1, max_waiting=1))
    release = threading.Event()
    answerer = server.app.state.services.answerer
    blocked: Future[Any] = answerer._pool.submit(release.wait)
    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(server.predict, picture()) for _ in range(6)]
        while sum(future.done() for future in futures) < 4:
            release.wait(0.01)
        release.set()
        statuses = sorted(future.result().status_code for future in futures)
    blocked.result()
    assert statuses == [200, 200, 503, 503, 503, 503]


def test_a_full_disk_fails_the_requests_and_room_heals_it(shop: Any, ws: Workspace, picture: Any) -> None:
    engine = ws.database.engine("events")

    def limit(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA max_page_count=1")  # what it has now is the least

    sa.event.listen(engine, "connect", limit)
    engine.dispose()
    answers = [shop.predict(picture(noise=number)) for number in range(100)]
    assert answers[-1].status_code == 507
    error = answers[-1].json()["error"]
    assert error["code"] == "storage_failed"
    assert "Make room" in error["do"]
    sa.event.remove(engine, "connect", limit)
    engine.dispose()
    assert shop.predict(picture()).status_code == 200
    assert count(ws) == 1 + sum(answer.status_code == 200 for answer in answers)


def test_relaxed_answers_do_not_wait_and_are_written_when_there_is_room(
    make_workspace: Any, make_app: Any, make_bundle: Any, deployed: Any, running: Any, picture: Any, monkeypatch: Any,
    wait_until: Any,
) -> None:  # fmt: skip
    ws: Workspace = make_workspace("serving: {log: relaxed}\nprojects:\n  shop: {}\n")
    deployed(ws, make_bundle())
    gate = Gate(ws, monkeypatch)
    gate.error = FULL
    server = running(make_app(ws))
    prediction = server.predict(picture()).json()["prediction_id"]
    # The event is not in the database yet, and still known.
    answer = server.client.post("/v1/shop/feedback", json={"prediction_id": prediction, "correct": True})
    assert answer.status_code == 200
    assert count(ws) == 0
    gate.error = None
    wait_until(lambda: count(ws) == 1 and count(ws, schema.feedback) == 1)


def test_stopping_finishes_requests_and_writes_their_events(
    ws: Workspace, make_app: Any, make_bundle: Any, deployed: Any, running: Any, picture: Any, monkeypatch: Any,
    wait_until: Any,
) -> None:  # fmt: skip
    deployed(ws, make_bundle())
    gate = Gate(ws, monkeypatch)
    server = running(make_app(ws))
    gate.open.clear()
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(server.predict, picture(noise=number)) for number in range(3)]
        wait_until(lambda: server.app.state.services.sink.waiting() == 3)
        server.server.should_exit = True
        gate.open.set()
        assert [future.result().status_code for future in futures] == [200] * 3
    server.stop()
    assert count(ws) == 3


def test_the_same_on_postgresql(
    postgres_database: str,
    make_workspace: Any,
    make_app: Any,
    make_bundle: Any,
    deployed: Any,
    running: Any,
    picture: Any,
) -> None:
    settings = f"database: {postgres_database}\nprojects:\n  shop:\n    review: {{audit_share: 1.0}}\n"
    ws: Workspace = make_workspace(settings)
    deployed(ws, make_bundle())
    server = running(make_app(ws))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: server.predict(picture(noise=number)), range(12)))
    assert [answer.status_code for answer in answers] == [200] * 12
    assert count(ws) == 12
    prediction = answers[0].json()["prediction_id"]
    answer = server.client.post("/v1/shop/feedback", json={"prediction_id": prediction, "label": "blue"})
    assert answer.status_code == 200
    assert server.client.post("/v1/shop/feedback", json={"prediction_id": prediction, "label": "blue"}).is_success
    assert count(ws, schema.feedback) == 1


def test_a_silent_database_makes_a_server_not_ready(ws: Workspace, monkeypatch: Any) -> None:
    source = DatabaseSource(ws, server_id="c" * 32, url="http://127.0.0.1:1")
    source.start()
    try:
        assert source.check() == {}
        monkeypatch.setattr("keepsight.serving.database.SILENT_S", -1.0)
        with pytest.raises(NotReadyError, match="has not followed the database"):
            source.check()
    finally:
        source.close()
