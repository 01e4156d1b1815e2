"""Tasks from outside: found by entry points, never in place of ours, and their faults are told in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepsight import plugins, tasks
from keepsight.errors import KeepsightError, NotFoundError, PluginError
from keepsight.runtime import outputs
from keepsight.training import recipes
from keepsight.web import render, widgets
from tests.plugins.installed import on_path, pretend

LOOKUPS: dict[str, Callable[[str], Any]] = {
    "outputs": outputs.output_module,
    "task": tasks.get,
    "recipes": lambda name: recipes.get(name, "auto"),
    "widget": widgets.get,
}


def test_every_floor_finds_an_installed_task(counting: Path) -> None:
    with on_path(counting):
        assert "counting" in tasks.names()
        assert "counting" in outputs.tasks()
        assert "counting" in widgets.names()
        assert tasks.get("counting").parse("7") == {"count": 7}
        assert outputs.output_module("counting").TENSORS == ("count",)
        assert recipes.get("counting", "ridge").__name__ == "ridge"
        assert widgets.get("counting").words({"count": 3}) == "3"
        assert widgets.script("counting") == "widgets/counting.js"
        assert render.static("widgets/counting.js").startswith("/static/widgets/counting.js?v=")
        editor = widgets.get("counting").editor(None, {}, size=(8, 8))
        page = '{% import "widgets/counting.html" as widget %}{{ widget.choose(editor) }}'
        assert "How many?" in render.environment().from_string(page).render(editor=editor)
    assert "counting" not in tasks.names()


@pytest.mark.parametrize("part", LOOKUPS)
def test_without_it_the_task_is_unknown(part: str) -> None:
    with pytest.raises(NotFoundError, match="counting"):
        LOOKUPS[part]("counting")


@pytest.mark.parametrize("part", LOOKUPS)
def test_a_name_of_ours_is_taken(part: str, tmp_path: Path) -> None:
    with on_path(pretend(tmp_path, "rival", classification="rival")):
        with pytest.raises(PluginError) as caught:
            LOOKUPS[part]("classification")
        assert 'task "classification" is brought by Keepsight itself and rival 1.0' in caught.value.found
        assert caught.value.do.startswith("Uninstall rival,")


def test_a_name_that_two_bring_is_an_error_for_both(tmp_path: Path) -> None:
    folders = [pretend(tmp_path / name, name, sorting="sorting") for name in ("first", "second")]
    with on_path(*folders), pytest.raises(PluginError, match=r"first 1\.0 and second 1\.0"):
        tasks.names()


def test_one_that_is_listed_twice_is_one(tmp_path: Path) -> None:
    folder = pretend(tmp_path, "once", sorting="sorting")
    with on_path(folder, folder):
        assert plugins.names(own=()) == ("sorting",)


def test_a_name_that_cannot_stand_in_an_address_is_refused(tmp_path: Path) -> None:
    with on_path(pretend(tmp_path, "odd", **{"../sorting": "sorting"})), pytest.raises(PluginError, match="called"):
        tasks.names()


@pytest.mark.parametrize("part", LOOKUPS)
def test_a_package_that_is_not_there_is_told_of(part: str, tmp_path: Path) -> None:
    with on_path(pretend(tmp_path, "empty", sorting="keepsight_gone")):
        with pytest.raises(PluginError, match=r'"sorting" of empty 1\.0 cannot be loaded'):
            LOOKUPS[part]("sorting")
        with pytest.raises(PluginError):
            widgets.file("sorting", "html")


def test_a_part_that_is_missing_or_broken_is_told_of(tmp_path: Path) -> None:
    package = tmp_path / "keepsight_half"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "outputs.py").write_text("import a_library_that_is_not_here\n")
    with on_path(pretend(tmp_path, "half", sorting="keepsight_half")):
        with pytest.raises(NotFoundError, match="has no task: half"):
            tasks.get("sorting")
        with pytest.raises(PluginError, match="a_library_that_is_not_here"):
            outputs.output_module("sorting")
        assert widgets.script("sorting") is None


def test_the_errors_say_what_to_do(tmp_path: Path) -> None:
    with on_path(pretend(tmp_path, "empty", sorting="keepsight_gone")), pytest.raises(KeepsightError) as caught:
        tasks.get("sorting")
    assert "uninstall" in caught.value.do
