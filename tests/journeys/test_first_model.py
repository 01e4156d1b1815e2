"""From a folder of photos to an answer, with the commands that users type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keepsight.cli.demo_pictures import DemoPicture
from tests.journeys.place import SETTINGS, Server, Workplace, wait_for, write_folder

pytestmark = pytest.mark.journey


def test_from_photos_to_an_answer(place: Workplace, pictures: list[DemoPicture], tmp_path: Path) -> None:
    (place.root / "keepsight.yaml").unlink()
    added = place.json("init", "shop", "--task", "classification")
    assert added["added"]
    assert (place.root / ".keepsight" / "workspace.key").stat().st_mode & 0o777 == 0o600

    photos = write_folder(tmp_path / "photos", pictures[:150])
    (photos / "one" / "notes.jpg").write_text("this is no picture")
    taken = place.run("data", "import", "shop", str(photos), "--json", check=False)
    report = json.loads(taken.stdout)
    assert taken.returncode == 1, "what was not taken shows in the exit code"
    assert report["added"] == 150
    assert [item["name"] for item in report["rejected"]] == ["one/notes.jpg"]
    again = json.loads(place.run("data", "import", "shop", str(photos), "--json", check=False).stdout)
    assert (again["added"], again["unchanged"], again["version"]) == (0, 150, None)

    run = place.json("train", "shop")
    assert run["outcome"] == "deployed"
    assert run["record"]["dataset"]["version"] == 1
    shown = place.json("models", "show", "shop")
    assert shown["status"] == "champion"
    assert (
        shown["metrics"]["accuracy"]["low"]
        <= shown["metrics"]["accuracy"]["value"]
        <= shown["metrics"]["accuracy"]["high"]
    )
    assert shown["metrics"]["accuracy"]["value"] > 0.8

    fresh = pictures[150:180]
    files = []
    for picture in fresh:
        (tmp_path / picture.name).write_bytes(picture.read())
        files.append(str(tmp_path / picture.name))
    answers = place.json("predict", "shop", *files)["predictions"]
    right = sum(answer["label"] == picture.label for answer, picture in zip(answers, fresh, strict=True))
    assert right >= 24, f"{right} of 30 unseen pictures are right"

    bundle = tmp_path / "model.zip"
    place.run("models", "export", "shop", str(bundle))
    assert place.json("predict", str(bundle), files[0])["predictions"][0]["label"] == answers[0]["label"]
    assert place.json("data", "verify", "shop")["verified"] == 1
    assert place.json("doctor")["ok"]


def test_replaying_a_run_gives_the_same_network(trained: Workplace) -> None:
    replayed = trained.json("models", "reproduce", "shop")
    assert replayed["same"], replayed
    recorded = trained.json("models", "show", "shop")["run"]["record"]
    assert replayed["digest"] == recorded["model_digest"]
    assert replayed["metrics"]["accuracy"] == recorded["metrics"]["accuracy"]
    for name in ("plan", "seed", "settings", "dataset", "backbone", "environment", "duration_s", "cost_eur"):
        assert name in recorded


def test_a_worse_model_stays_out_until_a_person_says_why(trained: Workplace, pictures: list[DemoPicture]) -> None:
    """Half of the labels are swapped: the gate keeps the model out, a person may overrule it with a reason."""
    photos = trained.root / "more"
    swapped = {"one": "four", "four": "seven", "seven": "one"}
    for picture in pictures[180:480]:
        target = photos / swapped[picture.label] / picture.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture.read())
    trained.run("data", "import", "shop", "more", "--split", "train")
    run = trained.run("train", "shop", "--json", check=False)
    assert run.returncode == 1
    result = json.loads(run.stdout)
    assert result["outcome"] == "rejected"
    failed = [check for check in result["gate"]["checks"] if check["status"] == "fail"]
    assert failed and failed[0]["reason"]
    assert trained.json("models", "show", "shop")["number"] == 1

    alert = next(item for item in trained.json("monitor", "status", "shop")["alerts"] if item["kind"] == "gate")
    assert "not released" in alert["title"]
    refused = trained.run("models", "promote", "shop", "2", "--json", check=False)
    assert refused.returncode == 2 and "reason" in refused.stdout
    trained.run("models", "promote", "shop", "2", "--reason", "the old labels were wrong")
    assert trained.json("models", "show", "shop")["number"] == 2
    records = trained.json("privacy", "audit")["records"]
    assert any(row["action"] == "model.override" and "old labels" in row["detail"]["reason"] for row in records)
    assert trained.json("models", "rollback", "shop")["model_number"] == 1
    assert trained.json("models", "show", "shop")["number"] == 1


@pytest.mark.postgres
def test_the_same_on_postgresql(
    place: Workplace, pictures: list[DemoPicture], tmp_path: Path, postgres_database: str
) -> None:
    """Import, training, the gate, deployment, the log and review with all tables in a PostgreSQL server."""
    (place.root / "keepsight.yaml").write_text(f"database: {postgres_database}\n" + SETTINGS)
    place.run("data", "import", "shop", str(write_folder(tmp_path / "photos", pictures[:120])))
    with place.up() as server:
        run = server.post("retrain", reason="first")["id"]
        done = wait_for(lambda: _ended(server, run), "the end of the run", timeout_s=120)
        assert done["outcome"] == "deployed", done
        answers = [server.predict(picture.read()) for picture in pictures[120:160]]
        logged = {event["id"] for event in server.get("events")["events"]}
        assert {answer["prediction_id"] for answer in answers} <= logged
        item = wait_for(lambda: server.get("review/next")["item"], "a picture to judge")
        server.post(f"review/{item['event_id']}", label="four")
        wait_for(lambda: server.get("monitor")["drift"]["units"], "the watch", timeout_s=20)
    assert place.json("doctor")["ok"]
    assert not list((place.root / ".keepsight").glob("*.db")), "nothing is kept in SQLite files"


def _ended(server: Server, run_id: str) -> Any:
    run = server.get(f"runs/{run_id}")
    return run if run["status"] not in {"queued", "running"} else None
