"""`make demo ARGS=--exit`: the whole loop on real pictures, as the README promises it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.journey


def demo(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, stopped after its report."""
    return subprocess.run(
        [sys.executable, "-m", "keepsight", "demo", "--exit", "--port", "0", "--json", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


def test_the_demo_goes_once_around_the_loop(tmp_path: Path, environment: dict[str, str]) -> None:
    done = demo(environment, "--folder", str(tmp_path / "demo"))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["before"]["value"] > 0.9
    assert report["alarm"]["text"]
    checks = report["runs"][1]["gate"]["checks"]
    assert report["runs"][1]["outcome"] == "deployed", [check for check in checks if check["status"] != "pass"]
    assert report["after"]["low"] > report["under_drift"]["high"], "the loop made up for the worse camera"
    assert [run["status"] for run in report["runs"]] == ["done", "done"]
    assert report["runs"][1]["trigger"] == "drift"
    again = demo(environment, "--folder", str(tmp_path / "demo"), "--pictures", str(tmp_path / "nothing"))
    assert again.returncode == 2 and "class folders" in json.loads(again.stdout)["error"]["found"]
    assert (tmp_path / "demo" / "report.json").is_file(), "an error replaces nothing"


def test_the_demo_replaces_no_folder_of_somebody_else(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "photos.txt").write_text("mine")
    done = demo(environment, "--folder", str(tmp_path))
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "conflict"
    assert (tmp_path / "photos.txt").read_text() == "mine"
