"""SIGKILL at any point of a run: after a restart it ends, and nothing was done twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepsight.cli.demo_pictures import DemoPicture
from tests.journeys.place import Workplace, wait_for, write_folder

pytestmark = pytest.mark.journey

# STEP:after is when the step has worked and nobody has noted it: it runs again and must find its work done.
PARENT = (
    "version:after",
    "features:after",
    "train:after",
    "train:recorded",
    "evaluate:after",
    "gate:after",
    "deploy:after",
)
TRAINER = ("train:trained", "train:registered")


@pytest.fixture
def imported(place: Workplace, pictures: list[DemoPicture]) -> Workplace:
    """A workspace with 120 pictures and no model."""
    write_folder(place.root / "photos", pictures[:120])
    place.run("data", "import", "shop", "photos")
    return place


@pytest.mark.parametrize("point", PARENT)
def test_a_killed_process_is_followed_by_one_that_ends_the_run(imported: Workplace, point: str, tmp_path: Path) -> None:
    once = str(tmp_path / "killed")
    killed = imported.run("train", "shop", check=False, KEEPSIGHT_FAULT=point, KEEPSIGHT_FAULT_ONCE=once)
    assert killed.returncode == -9 and Path(once).exists(), f"the process was killed at {point}"
    wait_for(lambda: not _trainers(imported), "no orphan trainer", timeout_s=10)
    with imported.up() as server:
        wait_for(lambda: server.get("runs")["runs"][0]["status"] == "done", "the end of the run", timeout_s=90)
    _check_done_once(imported)


@pytest.mark.parametrize("point", TRAINER)
def test_a_killed_trainer_is_started_again(imported: Workplace, point: str, tmp_path: Path) -> None:
    once = str(tmp_path / "killed")
    done = imported.run("train", "shop", KEEPSIGHT_FAULT=point, KEEPSIGHT_FAULT_ONCE=once)
    assert Path(once).exists() and done.returncode == 0
    _check_done_once(imported)


def _check_done_once(place: Workplace) -> None:
    runs = place.json("runs", "list", "shop")
    assert [(run["status"], run["outcome"]) for run in runs] == [("done", "deployed")]
    assert len(place.json("data", "versions", "shop")) == 1
    assert [(model["number"], model["status"]) for model in place.json("models", "list", "shop")] == [(1, "champion")]
    actions = [row["action"] for row in place.json("privacy", "audit")["records"]]
    assert actions.count("model.register") == 1
    assert actions.count("model.promote") == 1
    assert actions.count("data.commit") == 1


def _trainers(place: Workplace) -> list[int]:
    """Trainers that work in this workspace."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            home = (folder / "cwd").readlink()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        if b"keepsight.loop.child" in command and home == place.root:
            found.append(int(folder.name))
    return found
