"""The real command line, run in this process: exit code, what it printed, and where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keepsight.cli.app import run_app


@dataclass(frozen=True)
class Ran:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What stands on stdout, which must be one JSON value and nothing else."""
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``keepsight ARGUMENTS`` in an empty folder."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        code = run_app([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    return call


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that is made once and only copied."""
    folder = tmp_path_factory.mktemp("pristine") / "shop"
    assert run_app(["init", "shop", "--workspace", str(folder)]) == 0
    return folder


@pytest.fixture
def shop(pristine: Path, tmp_path: Path) -> Path:
    """A workspace with the project ``shop`` and nothing in it."""
    return Path(shutil.copytree(pristine, tmp_path / "shop"))


@pytest.fixture
def tiny_bundle() -> Path:
    """A real bundle of a network that tells red, green and blue pictures apart."""
    return Path(__file__).parent.parent / "runtime" / "fixtures" / "bundle-v1.zip"


@pytest.fixture
def red_picture(tmp_path: Path) -> Path:
    """A red JPEG."""
    from PIL import Image

    path = tmp_path / "red.jpg"
    Image.new("RGB", (64, 48), "red").save(path)
    return path
