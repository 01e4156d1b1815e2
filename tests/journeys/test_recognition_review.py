"""Recognition in a real browser: confirm, choose another, nobody known, somebody new; what is saved is what is seen."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keepsight.data import adding, samples
from keepsight.delivery import deployments
from keepsight.review import intake, queue
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.training import models
from tests import tiny
from tests.gallery import bundle_with

pytestmark = [pytest.mark.journey, pytest.mark.chromium]
PEOPLE = ("Anna", "Ben", "Carla", "Dora")
BOXES = ([40.0, 60.0, 90.0, 130.0], [130.0, 50.0, 190.0, 130.0], [230.0, 70.0, 280.0, 140.0])


def _load(name: str) -> Any:
    path = Path(__file__).parents[1] / "web" / "conftest.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


world = _load("keepsight_test_world_of_faces")


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    settings = "projects: {door: {task: recognition, gallery.subject: face}}\n"
    with world.open_workspace(tmp_path_factory.mktemp("faces") / "ws", settings) as opened:
        opened.ensure_project("door")
        items = [
            adding.NewSample(world.draw(number), f"{name}.jpg", {"subjects": [{"label": name}]}, "train")
            for number, name in enumerate(PEOPLE)
        ]
        adding.add(opened, "door", items, author="me")
        model = models.register(
            opened, "door", bundle_with(), run_id=None, dataset_version=None, metrics={}, actor="me"
        )
        deployments.promote(opened, "door", model.number, actor="me", reason="test", kind="override")
        yield opened


@pytest.fixture(scope="module")
def base_url(ws: Workspace) -> Iterator[str]:
    with world.run_server(ws) as url:
        yield url


@pytest.fixture(scope="module")
def chrome(chromium: Path) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(chrome: Any, base_url: str) -> Iterator[Callable[[str], Any]]:
    """``open_page(event_id)``: the review page of an event, whose console must stay free of errors."""
    troubles: list[str] = []
    context = chrome.new_context(base_url=base_url, viewport={"width": 1200, "height": 900})
    context.set_default_timeout(20_000)

    def make(event_id: str) -> Any:
        page = context.new_page()
        page.on("console", lambda said: troubles.extend([said.text] if said.type in ("error", "warning") else []))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(f"/door/review?item={event_id}")
        page.wait_for_function("document.querySelector('.recognition .choices button[data-key]') !== null")
        return page

    yield make
    context.close()
    assert troubles == []


def event(ws: Workspace, number: int, subjects: list[dict[str, Any]], *, kind: str = "uncertain") -> str:
    """A picture in the queue, with what the model said."""
    row = world.event_row(
        "door", at=ws.clock() - 60 + number, label="x", confidence=0.6, digest="d" * 64, labels=PEOPLE,
        selected_by=kind, sealed=world.seal(ws, world.draw(500 + number, side=320)),
    )  # fmt: skip
    row["prediction"] = {"label": "x", "confidence": 0.6, "subjects": subjects, "alternatives": []}
    with ws.database.write("events") as connection:
        connection.execute(schema.event.insert(), [row])
    intake.run(ws)
    return str(row["id"])


def face(label: str, place: int, *nearest: str) -> dict[str, Any]:
    return {
        "label": label,
        "similarity": 0.5,
        "confidence": 0.8,
        "box": BOXES[place],
        "alternatives": [{"label": name, "similarity": 0.3} for name in nearest],
    }


def saved(ws: Workspace, event_id: str) -> Any:
    found = queue.get(ws, "door", event_id)
    assert found.answered_at is not None
    return found.verdict


def answered(page: Any) -> None:
    page.locator(".outcome").wait_for()


def test_agreeing_saves_every_face_with_its_box(ws: Workspace, open_page: Any) -> None:
    event_id = event(ws, 1, [face("Anna", 0), face("unknown", 1, "Ben")])
    page = open_page(event_id)
    assert "Yes, Anna, 1 unknown" in page.locator("[data-save]").inner_text()
    # The boxes lie where the faces are in the picture as it is shown.
    shown = page.locator(".picture img").bounding_box()
    scale = min(shown["width"] / 320, shown["height"] / 240)
    left = shown["x"] + (shown["width"] - 320 * scale) / 2
    box = page.locator('[data-face="1"] rect').bounding_box()
    assert box["x"] == pytest.approx(left + BOXES[0][0] * scale, abs=4)
    page.keyboard.press("Enter")
    answered(page)
    assert saved(ws, event_id) == {
        "subjects": [{"label": "Anna", "box": BOXES[0]}, {"label": "unknown", "box": BOXES[1]}]
    }


def test_another_name_nobody_known_and_not_a_face_by_keyboard(ws: Workspace, open_page: Any) -> None:
    event_id = event(ws, 2, [face("Anna", 0, "Dora", "Ben"), face("Carla", 1), face("Ben", 2)])
    page = open_page(event_id)
    assert page.locator(".choices button").first.inner_text().split() == ["1", "Dora"], "the nearest comes first"
    page.keyboard.press("1")
    page.keyboard.press("n")
    page.keyboard.press("x")
    assert page.locator(".subjects li").count() == 2
    assert page.locator("[data-save] span").inner_text() == "Save: Dora, 1 unknown"
    seen = json.loads(page.locator("input[name=value]").input_value())
    page.keyboard.press("Enter")
    answered(page)
    assert (
        saved(ws, event_id)
        == seen
        == {"subjects": [{"label": "Dora", "box": BOXES[0]}, {"label": "unknown", "box": BOXES[1]}]}
    )


def test_somebody_new_is_added_for_the_face_that_was_clicked(ws: Workspace, open_page: Any) -> None:
    event_id = event(ws, 3, [face("Anna", 0), face("unknown", 1)])
    page = open_page(event_id)
    page.locator('[data-face="2"] rect').click()
    page.keyboard.press("a")
    page.locator("[data-new]").fill("Emil")
    page.keyboard.press("Enter")
    assert page.locator("[data-save] span").inner_text() == "Save: Anna, Emil"
    page.keyboard.press("Enter")
    answered(page)
    assert saved(ws, event_id) == {"subjects": [{"label": "Anna", "box": BOXES[0]}, {"label": "Emil", "box": BOXES[1]}]}
    assert "Emil" in {
        item["label"] for row in samples.current(ws, "door") for item in (row.value or {"subjects": []})["subjects"]
    }


def test_one_subject_is_answered_by_one_key(ws: Workspace, open_page: Any) -> None:
    event_id = event(ws, 4, [{"label": "Ben", "similarity": 0.5, "confidence": 0.6, "alternatives": []}])
    page = open_page(event_id)
    page.keyboard.press("/")
    page.keyboard.type("carl")
    page.keyboard.press("Enter")
    answered(page)
    assert saved(ws, event_id) == {"subjects": [{"label": "Carla"}]}


def test_a_blind_check_hides_names_and_boxes_and_takes_several(ws: Workspace, open_page: Any) -> None:
    event_id = event(ws, 5, [face("Anna", 0), face("Ben", 1)], kind="audit")
    page = open_page(event_id)
    assert page.locator(".faces").count() == 0
    assert page.locator("[data-save]").is_disabled()
    page.keyboard.press("2")
    page.keyboard.press("1")
    page.keyboard.press("1")
    assert page.locator("[data-save] span").inner_text() == "Save: Ben"
    page.keyboard.press("n")
    assert page.locator("[data-save] span").inner_text() == "Save: Ben, 1 unknown"
    page.keyboard.press("Enter")
    answered(page)
    assert saved(ws, event_id) == {"subjects": [{"label": "Ben"}, {"label": "unknown"}]}


def test_pictures_are_enrolled_by_choosing_files(ws: Workspace, chrome: Any, base_url: str, tmp_path: Path) -> None:
    (tmp_path / "part.png").write_bytes(tiny.picture(41))
    context = chrome.new_context(base_url=base_url)
    page = context.new_page()
    page.goto("/door/gallery")
    page.set_input_files("[data-files]", [str(tmp_path / "part.png")])
    page.fill("input[name=name]", "Fred")
    page.click("[data-send]")
    page.get_by_text("Enrolled.").wait_for()
    page.get_by_role("heading", name="Fred").wait_for()
    context.close()
