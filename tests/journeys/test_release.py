"""The three ends of a run, where people see and decide them: in the browser and on the command line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepsight.cli.demo_pictures import DemoPicture
from tests.journeys.place import Server, Workplace, wait_for, write_folder

pytestmark = [pytest.mark.journey, pytest.mark.chromium]

WAITS_MS = 240_000


@pytest.fixture(scope="module")
def shop(template: Workplace, pictures: list[DemoPicture], tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A copy of the workspace with a live model, and a few test pictures whose label is wrong: no model gets all."""
    root = tmp_path_factory.mktemp("release") / "work"
    shutil.copytree(template.root, root)
    place = Workplace(root, template.environment)
    swapped = {"one": "four", "four": "seven", "seven": "one"}
    wrong = [DemoPicture(item.name, swapped[item.label], item.read) for item in pictures[180:192]]
    place.run("data", "import", "shop", str(write_folder(root / "wrong", wrong)), "--split", "test")
    return place


@pytest.fixture(scope="module")
def server(shop: Workplace) -> Iterator[Server]:
    with shop.up() as started:
        yield started


@pytest.fixture(scope="module")
def page(chromium: Path, server: Server) -> Iterator[Any]:
    """A page of a real browser, on whose console nothing may go wrong."""
    from playwright.sync_api import sync_playwright

    troubles: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        opened = browser.new_page(base_url=server.base)
        opened.set_default_timeout(WAITS_MS)
        opened.on(
            "console", lambda message: troubles.extend([message.text] if message.type in ("error", "warning") else [])
        )
        opened.on("pageerror", lambda error: troubles.append(str(error)))
        yield opened
        browser.close()
    assert troubles == []


def statuses(shop: Workplace) -> dict[int, str]:
    """What has become of each model."""
    return {row["number"]: row["status"] for row in shop.json("models", "list", "shop")}


def current(server: Server) -> dict[str, Any]:
    """The newest deployment."""
    found: dict[str, Any] = server.get("deployments")["deployments"][0]
    return found


def test_ask_is_decided_with_a_reason(shop: Workplace, server: Server, page: Any) -> None:
    shop.run("settings", "set", "shop", "gate.min_pictures", "100000")
    trained = shop.run("train", "shop", check=False)
    assert trained.returncode == 3, trained.stdout + trained.stderr
    assert statuses(shop) == {2: "challenger", 1: "champion"}
    # Nobody releases it without saying why, on the command line as in the browser.
    refused = shop.run("models", "promote", "shop", "2", check=False)
    assert refused.returncode == 2
    assert "reason" in refused.stderr

    page.goto("/")
    assert "1 decision waits for you" in page.locator(".decisions h2").inner_text()
    page.locator(".decision").click()
    card = page.locator("#decide")
    assert "Shall model 2 replace model 1" in card.inner_text()
    both = card.locator("table thead").first.inner_text()
    assert "model 1" in both
    assert "model 2" in both
    card.get_by_role("button", name="Release model 2").click()
    assert "said=" not in page.url, "the browser asks for the reason first"
    card.get_by_label("Why do you release it?").fill("I looked at both")
    card.get_by_role("button", name="Release model 2").click()
    page.get_by_text("The model is being released").wait_for()
    wait_for(lambda: current(server)["live_at"], "the release")
    assert statuses(shop) == {2: "champion", 1: "archived"}

    page.goto("/audit")
    row = page.locator("tr", has_text="model.override").inner_text()
    assert "shop@2" in row
    assert "I looked at both" in row
    written = next(row for row in shop.json("privacy", "audit")["records"] if row["action"] == "model.override")
    assert written["actor"]
    assert written["actor"] in row
    page.goto("/")
    assert page.locator(".decisions").count() == 0


def test_reject_leaves_the_live_model_alone(shop: Workplace, server: Server, page: Any) -> None:
    shop.run("settings", "set", "shop", "gate.min_pictures", "0")
    shop.run("settings", "set", "shop", "gate.min_accuracy", "1.0")
    live = current(server)["model_number"]
    trained = shop.run("train", "shop", check=False)
    assert trained.returncode == 1, trained.stdout + trained.stderr
    page.goto("/shop/runs")
    page.locator(".run-line").first.click()
    assert page.locator("h1 .badge").inner_text() == "not good enough"
    page.get_by_role("link", name="what it can and cannot do").click()
    assert "Not good enough to be released." in page.locator("#checks").inner_text()
    page.get_by_role("button", name="Discard it").click()
    page.locator("form[action$='/discard']").get_by_label("Why?").fill("too weak")
    page.get_by_role("button", name="Yes, discard").click()
    page.locator("h1 .badge", has_text="discarded").wait_for()
    found = statuses(shop)
    assert found[max(found)] == "discarded"
    assert current(server)["model_number"] == live


def test_deploy_is_released_by_itself(shop: Workplace, server: Server, page: Any) -> None:
    shop.run("settings", "set", "shop", "gate.min_accuracy", "0.3")
    before = current(server)["model_number"]
    page.goto("/shop/runs")
    page.get_by_role("button", name="Train a new model").click()
    page.get_by_label("Why?").fill("a try")
    page.get_by_label("At most so many minutes").fill("5")
    page.get_by_role("button", name="Start").click()
    # The page follows the run.
    page.locator("h1 .badge", has_text="released").wait_for()
    assert "of at most 5 min (asked for)" in page.locator(".spent").inner_text()
    made = current(server)["model_number"]
    assert made > before
    assert f"Model {made} went live" in page.locator(".chain > li").last.inner_text()
    page.get_by_role("link", name="what it can and cannot do").click()
    assert page.locator("h1 .badge").inner_text() == "live"
    assert "passed its checks" in page.locator("main").inner_text()
    assert shop.json("models", "show", "shop")["number"] == made
