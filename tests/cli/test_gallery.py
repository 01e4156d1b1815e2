"""``keepsight enrol`` and ``keepsight gallery``: what people and programs are told; a fault costs one picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepsight.cli.app import run_app
from keepsight.delivery import deployments
from keepsight.store.workspace import Workspace
from keepsight.training import models
from tests import tiny
from tests.gallery import bundle_with


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    (tmp_path / "keepsight.yaml").write_text("projects: {parts: {task: recognition}, shop: {}}\n")
    for number in (1, 2, 3):
        (tmp_path / f"{number}.png").write_bytes(tiny.picture(number))
    (tmp_path / "bad.png").write_bytes(b"text")
    monkeypatch.chdir(tmp_path)
    opened = Workspace.open(tmp_path, environment={})
    opened.ensure_project("parts")
    yield opened
    opened.close()


@pytest.fixture
def live(ws: Workspace) -> None:
    model = models.register(ws, "parts", bundle_with(), run_id=None, dataset_version=None, metrics={}, actor="me")
    deployments.promote(ws, "parts", model.number, actor="me", reason="test", kind="override")


def told(capsys: Any, *arguments: str) -> tuple[int, Any]:
    code = run_app([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("live")
def test_enrol_list_predict_remove(capsys: Any) -> None:
    code, answer = told(capsys, "enrol", "parts", "bolt", "1.png", "bad.png", "gone.png", "2.png")
    assert code == 1
    assert [item["picture"] for item in answer["enrolled"]] == ["1.png", "2.png"]
    assert [item["error"]["code"] for item in answer["failed"]] == ["picture_unreadable", "bad_input"]
    code, listed = told(capsys, "gallery", "list", "parts")
    assert (code, listed["people"], listed["model"]) == (0, [{"name": "bolt", "pictures": 2}], 1)
    code, answer = told(capsys, "enrol", "parts", "nut", "3.png")
    assert (code, answer["enrolled"][0]["live"]) == (0, True)
    _, predicted = told(capsys, "predict", "parts", "3.png")
    assert predicted["predictions"][0]["label"] == "nut"
    code, answer = told(capsys, "gallery", "remove", "parts", "nut", "--erase", "--reason", "asked")
    assert (code, answer["erased"], len(answer["samples"])) == (0, True, 1)
    _, predicted = told(capsys, "predict", "parts", "3.png")
    assert predicted["predictions"][0]["label"] == "unknown"
    code, answer = told(capsys, "gallery", "remove", "parts", "nut")
    assert (code, answer["error"]["code"]) == (2, "not_found")
    assert run_app(["gallery", "list", "parts"]) == 0
    assert "names somebody from a similarity of 0.950 on" in capsys.readouterr().out


@pytest.mark.usefixtures("ws")
def test_before_there_is_a_model(capsys: Any) -> None:
    assert run_app(["enrol", "parts", "bolt", "1.png"]) == 0
    assert "No model is live yet. Next: keepsight train parts" in capsys.readouterr().out
    _, listed = told(capsys, "gallery", "list", "parts")
    assert listed == {"model": None, "threshold": None, "people": [{"name": "bolt", "pictures": 1}]}
    code, answer = told(capsys, "enrol", "shop", "bolt", "1.png")
    assert (code, "has no gallery" in answer["error"]["found"]) == (2, True)
