"""What a user has at the start: pictures, an empty workspace, or one with a live model."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from keepsight.cli.demo_pictures import DemoPicture, digits
from tests.journeys.place import SETTINGS, Workplace, write_folder


@pytest.fixture(scope="session")
def pictures() -> list[DemoPicture]:
    """Real handwritten digits of three classes, mixed: their file goes from writer to writer."""
    chosen = [picture for picture in digits() if picture.label in {"one", "four", "seven"}]
    random.Random(1).shuffle(chosen)
    return chosen


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of every command: this one without Keepsight's variables, and a cache of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEEPSIGHT_")}
    return {**kept, "KEEPSIGHT_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture
def place(tmp_path: Path, environment: dict[str, str]) -> Workplace:
    """An empty workspace with one project."""
    return empty_workplace(tmp_path / "work", environment)


@pytest.fixture(scope="session")
def template(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], pictures: list[DemoPicture]
) -> Workplace:
    """A workspace with a live model, trained on 180 pictures, from which tests get copies."""
    made = empty_workplace(tmp_path_factory.mktemp("template") / "work", environment)
    write_folder(made.root / "photos", pictures[:180])
    made.run("data", "import", "shop", "photos")
    made.run("train", "shop")
    return made


@pytest.fixture
def trained(template: Workplace, tmp_path: Path) -> Workplace:
    """A workspace with a live model, as somebody would get it back from a backup."""
    shutil.copytree(template.root, tmp_path / "work")
    return Workplace(tmp_path / "work", template.environment)


def empty_workplace(root: Path, environment: dict[str, str]) -> Workplace:
    """A folder with a ``keepsight.yaml`` of one project."""
    root.mkdir()
    (root / "keepsight.yaml").write_text(SETTINGS)
    return Workplace(root, environment)
