"""Work on a real Ray cluster of two nodes: the same results as on this machine, and clear words where it fails."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keepsight.errors import ConflictError, MissingExtraError
from keepsight.executors import worker
from keepsight.executors.cluster import check_client
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def told(ray_installed: None) -> dict[str, Any]:
    """What ``cluster_program.py`` saw; its processes have ended."""
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "cluster_program.py"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_results_are_in_order_and_complete(told: dict[str, Any]) -> None:
    expected: list[Any] = [3 * number for number in range(100)]
    expected[13] = "picture_unreadable"
    assert told["numbers"] == expected
    assert told["seen"][-1] == 100


def test_all_nodes_work_and_this_process_does_not(told: dict[str, Any]) -> None:
    assert told["nodes"] == 2
    assert told["own process"] is False
    assert told["text"].endswith("2 CPUs")


def test_only_two_chunks_for_each_cpu_are_under_way(told: dict[str, Any]) -> None:
    assert told["first"] == [40, 42, 44, 46]
    assert told["taken"] <= 4 + 2 * 2 * 2, "four results were fetched, and two chunks of two for each of two CPUs"


def test_the_vectors_are_the_same_bytes_as_on_this_machine(told: dict[str, Any]) -> None:
    local, ray = told["vectors"]
    assert local == ray
    assert local.startswith("28 2 "), "two of thirty cannot be read, here as there"


def test_what_fails_for_all_ends_the_map(told: dict[str, Any]) -> None:
    assert told["refused"]["code"] == "bundle_invalid"
    assert "ZeroDivisionError" in told["mistaken"]["text"]


def test_work_whose_worker_dies_is_done_again(told: dict[str, Any]) -> None:
    assert told["once"] == [7]


def test_work_whose_workers_always_die_is_given_up(told: dict[str, Any]) -> None:
    assert told["tries"] == 4
    assert told["always"]["code"] == "executor_failed"
    assert "4 times" in told["always"]["text"]


def test_a_cluster_that_is_away_is_told_at_once(told: dict[str, Any]) -> None:
    codes = [item["code"] for item in told["unreachable"]]
    assert codes == ["executor_failed", "executor_failed", "settings_invalid", "settings_invalid"]
    assert all("ray.address" in item["text"] for item in told["unreachable"])
    assert told["told within s"] < 10


def test_an_address_that_needs_rays_client_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="ray://"):
        check_client("ray://127.0.0.1:1")


def test_one_process_uses_one_cluster(told: dict[str, Any]) -> None:
    assert told["other"]["code"] == "conflict"


def test_this_process_keeps_its_signals(told: dict[str, Any]) -> None:
    assert told["signal kept"] is True


def test_a_machine_with_other_versions_is_refused() -> None:
    found = worker.versions()
    worker.check_versions(found, place="here")
    with pytest.raises(ConflictError, match=r"The machine there .* has onnxruntime") as caught:
        worker.check_versions({**found, "onnxruntime": "0.1"}, place="there")
    assert "onnxruntime 0.1" in caught.value.expected
