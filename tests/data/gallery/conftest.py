"""A project with a gallery on either database, and the engine of a tiny model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keepsight.runtime.outputs.recognition.engine import RecognitionEngine
from keepsight.store.workspace import Workspace
from tests.gallery import bundle_with

PROJECT = "parts"


@pytest.fixture
def ws(workspace: Workspace) -> Iterator[Workspace]:
    """The workspace with the further project parts, which has a gallery."""
    path = workspace.config.root / "keepsight.yaml"
    path.write_text(path.read_text().replace("other: {}", f"other: {{}}, {PROJECT}: {{task: recognition}}"))
    opened = Workspace.open(workspace.config.root, environment={}, clock=lambda: 1000.0)
    opened.ensure_project(PROJECT)
    yield opened
    opened.close()


@pytest.fixture
def engine() -> RecognitionEngine:
    """The engine of that model, which knows nobody."""
    return RecognitionEngine(bundle_with())
