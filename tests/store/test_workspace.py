"""Opening a workspace: its key, its projects and where settings come from."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from keepsight.errors import ConflictError, NotFoundError, SettingsError, WorkspaceKeyError
from keepsight.store.keys import KEY_FILE, KEY_VARIABLE
from keepsight.store.workspace import Workspace


def test_another_key_is_refused_and_the_right_one_opens_again(workspace: Workspace) -> None:
    root = workspace.config.root
    name = workspace.blobs.put(b"picture", now=1.0)
    wrong = {KEY_VARIABLE: base64.b64encode(bytes(32)).decode()}
    with pytest.raises(WorkspaceKeyError):
        Workspace.open(root, environment=wrong)
    path = workspace.state / KEY_FILE
    key = path.read_text()
    path.unlink()
    with pytest.raises(WorkspaceKeyError, match="missing"):
        Workspace.open(root, environment={})
    path.write_text(key)
    again = Workspace.open(root, environment={})
    assert again.blobs.get(name) == b"picture"
    again.close()


def test_projects_of_file_and_database(workspace: Workspace) -> None:
    assert workspace.projects() == ["other", "shop"]
    assert workspace.check_project("shop") == "shop"
    with pytest.raises(NotFoundError, match="shop"):
        workspace.check_project("shp")


def test_a_project_keeps_its_task(workspace: Workspace) -> None:
    path = workspace.config.root / "keepsight.yaml"
    path.write_text(path.read_text().replace("shop: {}", "shop: {task: detection}"))
    again = Workspace.open(workspace.config.root, environment={})
    with pytest.raises(ConflictError, match="classification"):
        again.check_project("shop")
    again.close()


def test_settings_say_where_they_come_from(workspace: Workspace) -> None:
    root = workspace.config.root
    workspace.set_setting("shop", "gate.margin", 0.1, actor="me")
    workspace.set_setting("shop", "gate.margin", 0.2, actor="me")
    resolved = workspace.settings("shop")
    assert (resolved["gate.margin"], resolved.values["gate.margin"].origin) == (0.2, "database")
    assert resolved.values["gate.margin_drift"].origin == "default"
    path = root / "keepsight.yaml"
    path.write_text(path.read_text().replace("shop: {}", "shop: {gate: {margin: 0.3}}"))
    again = Workspace.open(root, environment={})
    assert again.settings("shop").values["gate.margin"].origin == "file"
    with pytest.raises(ConflictError, match="file"):
        again.set_setting("shop", "gate.margin", 0.4, actor="me")
    with pytest.raises(SettingsError):
        again.set_setting("shop", "gate.margine", 0.4, actor="me")
    again.close()


def test_there_must_be_a_workspace(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="keepsight init"):
        Workspace.open(tmp_path, environment={})
