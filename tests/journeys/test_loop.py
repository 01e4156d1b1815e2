"""Once around the loop over the real server: serve, drift, review, retrain, promote."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from keepsight.cli.demo_pictures import DemoPicture, through_worse_camera
from tests.journeys.place import Server, Workplace, wait_for

pytestmark = pytest.mark.journey


def test_drift_is_noticed_reviewed_and_learned(trained: Workplace, pictures: list[DemoPicture]) -> None:
    truth: dict[str, str] = {}
    with trained.up() as server:
        for picture in pictures[180:240]:
            answer = server.predict(picture.read())
            truth[answer["prediction_id"]] = picture.label
        assert server.get("monitor")["drift"]["alarm"] is False

        worse = iter(pictures[240:500])

        def alarm() -> list[Any]:
            for _ in range(10):
                picture = next(worse)
                answer = server.predict(through_worse_camera(picture.read()))
                truth[answer["prediction_id"]] = picture.label
            return [item for item in server.get("monitor")["alerts"] if item["kind"] == "drift"]

        alert = wait_for(alarm, "a drift alarm", timeout_s=60)[0]
        assert alert["title"] == "The pictures have changed"
        for picture in list(worse)[:120]:
            answer = server.predict(through_worse_camera(picture.read()))
            truth[answer["prediction_id"]] = picture.label

        labelled = _answer_queue(server, truth, wanted=30)
        assert labelled >= 30
        run = wait_for(lambda: _run_of(server, trigger="drift"), "a retrain", timeout_s=60)
        done = wait_for(lambda: _finished(server, run["id"]), "the end of the retrain", timeout_s=120)
        assert done["status"] == "done", done
        assert done["trace_id"] == alert["trace_id"], "one trace follows the alarm into the retrain"
        assert done["dataset_version"] > 1, "the labels became a dataset version"
        checks = {check["name"]: check for check in done["gate"]["checks"]}
        assert {"test", "recent"} <= set(checks)
        if done["outcome"] == "deployed":
            assert server.predict(pictures[0].read())["model"]["version"] == done["model_number"]
            assert server.get("monitor")["alerts"] == []


def _answer_queue(server: Server, truth: dict[str, str], *, wanted: int) -> int:
    labelled = 0

    def one() -> bool:
        nonlocal labelled
        item = server.get("review/next")["item"]
        if item is None:
            return labelled >= wanted
        if item["selected_by"] == "audit":
            assert item["prediction"] is None, "an audit is judged blind"
        else:
            assert item["prediction"] is not None
        server.post(f"review/{item['event_id']}", label=truth[item["event_id"]])
        labelled += 1
        return False

    wait_for(one, "an empty queue", timeout_s=90)
    return labelled


def _run_of(server: Server, *, trigger: str) -> Any:
    return next((run for run in server.get("runs")["runs"] if run["trigger"] == trigger), None)


def _finished(server: Server, run_id: str) -> Any:
    run = server.get(f"runs/{run_id}")
    return run if run["status"] not in {"queued", "running"} else None


def test_a_new_model_goes_live_without_a_lost_or_mixed_answer(trained: Workplace, pictures: list[DemoPicture]) -> None:
    data = pictures[200].read()
    with trained.up() as server:
        digests: set[tuple[int, str]] = set()
        failures: list[str] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                response = server.client.post("/v1/shop/predict", content=data)
                if response.status_code != 200:
                    failures.append(response.text)
                else:
                    model = response.json()["model"]
                    digests.add((model["version"], model["digest"]))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            run = server.post("retrain", reason="again")["id"]
            done = wait_for(lambda: _finished(server, run), "the end of the run", timeout_s=120)
            assert done["outcome"] == "deployed", done
            wait_for(lambda: any(number == 2 for number, _ in digests), "an answer of model 2", timeout_s=10)
            server.post("rollback", reason="back")
            wait_for(lambda: server.predict(data)["model"]["version"] == 1, "an answer of model 1", timeout_s=10)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failures
        assert {number for number, _ in digests} == {1, 2}
        assert len(digests) == 2, "a version always answers with its own bundle"


def test_customers_who_report_only_errors_do_not_move_accuracy(trained: Workplace, pictures: list[DemoPicture]) -> None:
    with trained.up() as server:
        ids = [server.predict(picture.read())["prediction_id"] for picture in pictures[180:220]]
        before = server.get("monitor")["accuracy"]
        for prediction_id in ids:
            response = server.client.post("/v1/shop/feedback", json={"prediction_id": prediction_id, "correct": False})
            assert response.is_success, response.text
        after = server.get("monitor")["accuracy"]
        assert (after["value"], after["low"], after["high"]) == (before["value"], before["low"], before["high"])


def test_an_answer_that_left_survives_a_power_cut(trained: Workplace, pictures: list[DemoPicture]) -> None:
    with trained.up() as server:
        ids = {server.predict(picture.read())["prediction_id"] for picture in pictures[180:200]}
        server.kill()
    with trained.up() as server:
        logged = {event["id"] for event in server.get("events")["events"]}
    assert ids <= logged


def test_a_second_server_is_refused_and_stateless_ones_are_not(trained: Workplace, pictures: list[DemoPicture]) -> None:
    with trained.up() as server:
        second = trained.run("up", "--port", "0", check=False)
        assert second.returncode == 2
        third = trained.run("up", "--port", str(server.port + 1), check=False)
        assert third.returncode == 2
        assert "Another Keepsight server runs on this workspace" in third.stderr
        with trained.up("serve", "--workers", "2") as more:
            answer = more.predict(pictures[0].read())
            assert answer["model"]["version"] == 1
            run = server.post("retrain", reason="again")["id"]
            done = wait_for(lambda: _finished(server, run), "the end of the run", timeout_s=120)
            assert done["outcome"] == "deployed", done
            assert {more.predict(pictures[0].read())["model"]["version"] for _ in range(10)} == {2}, (
                "live means that every live server has it"
            )
