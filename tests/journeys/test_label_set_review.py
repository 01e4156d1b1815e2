"""Sets of labels in a real browser: block with reasons, approve, tick several labels; what is saved is what is seen."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keepsight.delivery import deployments
from keepsight.review import intake, queue
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.training import models
from tests import tiny
from tests.journeys.test_dashboard import _load
from tests.tasks.cases import CASES

pytestmark = [pytest.mark.journey, pytest.mark.chromium]

world = _load("keepsight_test_world_of_sets")
FLAGS = ("logo", "plate visible")
TAGS = tuple(f"{colour} {thing}" for colour in ("green", "red", "ripe") for thing in ("apple", "fig", "pear", "plum"))
SHOTS = os.environ.get("KEEPSIGHT_TEST_SCREENSHOTS")


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A project for policies and one for tags, each with a live model and pictures that wait."""
    folder = tmp_path_factory.mktemp("sets")
    settings = "projects: {policy: {task: moderation}, tags: {task: multilabel}}\n"
    with world.open_workspace(folder / "ws", settings) as opened:
        seed(opened, "policy", FLAGS, "moderation")
        seed(opened, "tags", TAGS, "multilabel")
        yield opened


def seed(ws: Workspace, project: str, labels: tuple[str, ...], task: str) -> None:
    ws.ensure_project(project)
    bundle = tiny.bundle(task=task, labels=labels)
    made = models.register(ws, project, bundle, run_id=None, dataset_version=None, metrics={}, actor="ana")
    deployments.promote(ws, project, made.number, actor="ana", reason="first", kind="override")


def ask(ws: Workspace, project: str, prediction: dict[str, Any], *, selected_by: str = "uncertain") -> str:
    """One more picture in the queue, with what the model said."""
    row = world.event_row(
        project,
        at=ws.clock(),
        label=prediction["label"],
        confidence=prediction["confidence"],
        digest="",
        labels=(),
        selected_by=selected_by,
        sealed=world.seal(ws, world.draw(uuid.uuid4().int % 100_000, side=400)),
    )
    with ws.database.write("events") as connection:
        connection.execute(schema.event.insert(), [{**row, "prediction": prediction}])
    intake.run(ws)
    return str(row["id"])


@pytest.fixture(scope="module")
def pages(ws: Workspace, chromium: Path) -> Iterator[Callable[[str], Any]]:
    """Opens a page; its console must stay free of errors and of violations of the content security policy."""
    from playwright.sync_api import sync_playwright

    troubles: list[str] = []
    with world.run_server(ws) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])

        def make(path: str) -> Any:
            page = browser.new_page(base_url=url, viewport={"width": 1100, "height": 760})
            page.set_default_timeout(20_000)
            page.on("console", lambda told: troubles.extend([told.text] if told.type in ("error", "warning") else []))
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.goto(path)
            page.wait_for_function("!!window.Alpine && document.querySelector('.picture img')?.complete")
            return page

        yield make
        browser.close()
    assert troubles == []


def look(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def ticked(page: Any) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        ".tick :checked", "boxes => boxes.map(box => box.name.replace('label:', ''))"
    )
    return found


def answered(ws: Workspace, page: Any, project: str, event_id: str) -> dict[str, Any] | None:
    page.locator(".outcome, .empty").first.wait_for()
    return queue.get(ws, project, event_id).verdict


def blur(page: Any) -> str:
    return str(page.locator(".picture img").evaluate("image => getComputedStyle(image).filter"))


def test_a_picture_is_blurred_until_somebody_asks_and_blocked_for_the_ticked_reasons(
    ws: Workspace, pages: Callable[[str], Any]
) -> None:
    event_id = ask(ws, "policy", CASES["moderation"].prediction({"flags": ["logo"]}))
    page = pages(f"/policy/review?item={event_id}")
    look(page, "moderation-blurred")
    assert "blur" in blur(page)
    assert page.locator(".question strong").inner_text() == "Block: logo"
    page.keyboard.press("v")
    assert blur(page) == "none"
    page.keyboard.press("2")
    assert ticked(page) == ["logo", "plate visible"]
    page.keyboard.press("1")
    # A box that was clicked has the focus, and the keys go on working.
    page.get_by_text("logo", exact=True).click()
    page.keyboard.press("1")
    assert ticked(page) == ["plate visible"]
    look(page, "moderation-shown")
    page.keyboard.press("b")
    assert answered(ws, page, "policy", event_id) == {"flags": ["plate visible"]}


def test_a_blind_check_shows_no_reasons_and_approving_takes_none(ws: Workspace, pages: Callable[[str], Any]) -> None:
    said = CASES["moderation"].prediction({"flags": ["logo", "plate visible"]})
    event_id = ask(ws, "policy", said, selected_by="audit")
    page = pages(f"/policy/review?item={event_id}")
    assert ticked(page) == []
    assert page.locator(".tick small").count() == 0
    page.keyboard.press("b")
    page.get_by_text("no reason is ticked").wait_for()
    page.keyboard.press("a")
    assert answered(ws, page, "policy", event_id) == {"flags": []}
    assert "it was wrong" in page.locator(".outcome").inner_text()


def test_a_new_reason_is_typed_beside_the_ticked_ones(ws: Workspace, pages: Callable[[str], Any]) -> None:
    event_id = ask(ws, "policy", CASES["moderation"].prediction({"flags": ["logo"]}))
    page = pages(f"/policy/review?item={event_id}")
    page.locator("input[name=new_label]").fill("blurry")
    page.keyboard.press("Enter")
    assert answered(ws, page, "policy", event_id) == {"flags": ["blurry", "logo"]}


def test_several_labels_are_found_ticked_and_saved_by_keyboard(ws: Workspace, pages: Callable[[str], Any]) -> None:
    given = ["green apple", "ripe plum"]
    others = [{"label": label, "confidence": 0.2, "threshold": 0.5} for label in TAGS if label not in given]
    said = {
        "label": ", ".join(given),
        "confidence": 0.4,
        "labels": [{"label": label, "confidence": 0.9, "threshold": 0.5} for label in given],
        "alternatives": others,
    }
    event_id = ask(ws, "tags", said)
    page = pages(f"/tags/review?item={event_id}")
    assert page.locator(".question strong").inner_text() == "green apple and ripe plum"
    assert ticked(page) == given
    page.keyboard.press("2")
    page.keyboard.press("/")
    page.keyboard.type("red pe")
    page.keyboard.press("Enter")
    look(page, "multilabel")
    page.locator("h1, .question").first.click()
    assert sorted(ticked(page)) == ["green apple", "red pear"]
    page.keyboard.press("Enter")
    assert answered(ws, page, "tags", event_id) == {"labels": ["green apple", "red pear"]}
