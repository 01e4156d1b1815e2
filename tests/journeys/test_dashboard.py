"""The dashboard in a real browser: review by keyboard, no violation of the content security policy, light and dark."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keepsight.data import samples
from keepsight.loop import runs
from keepsight.review import queue

NOISE = ("error", "warning")
PAPER = "getComputedStyle(document.documentElement).backgroundColor"

pytestmark = [pytest.mark.journey, pytest.mark.chromium]


def _load(name: str) -> Any:
    path = Path(__file__).parents[1] / "web" / "conftest.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


world = _load("keepsight_test_world")


@pytest.fixture(scope="module")
def url_and_ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("dashboard")
    settings = "projects: {fruit: {}, shop: {}, groceries: {}, empty: {}}\n"
    with world.open_workspace(folder / "ws", settings) as ws:
        yield ws


@pytest.fixture(scope="module")
def base_url(url_and_ws: Any) -> Iterator[str]:
    with world.run_server(url_and_ws) as url:
        yield url


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any, base_url: str) -> Iterator[Callable[..., Any]]:
    """``open_page(path)``: a page whose console must stay free of errors."""
    troubles: list[str] = []
    contexts = []

    def make(path: str, **options: Any) -> Any:
        context = browser.new_context(base_url=base_url, **options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.extend([message.text] if message.type in NOISE else []))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(path)
        return page

    yield make
    for context in contexts:
        context.close()
    assert troubles == []


def test_a_shop_assistant_reviews_by_keyboard(open_page: Callable[..., Any], url_and_ws: Any) -> None:
    ws = url_and_ws
    world.seed(ws, "fruit", audits=1, uncertain=3)
    before = len(samples.current(ws, "fruit"))
    page = open_page("/fruit/review")
    page.locator(".picture img").wait_for()
    assert page.locator(".progress-line").inner_text().startswith("1 of 4")
    for _ in range(4):
        # Without this the key could meet the page before its script does.
        page.wait_for_function(
            "document.querySelector('#review [data-find], #review .choices') !== null && !!window.Alpine"
        )
        blind = page.locator("text=A blind check").count() == 1
        assert (page.locator(".agree").count() == 0) == blind
        number = page.locator(".progress-line span").first.inner_text()
        page.keyboard.press("2" if blind else "Enter")
        page.wait_for_function(
            "old => (document.querySelector('.progress-line span')?.innerText ?? '') !== old || "
            "document.querySelector('.empty') !== null",
            arg=number,
        )
        if blind:
            assert "The model said" in page.locator(".outcome").inner_text()
    page.get_by_text("All done. Thank you!").wait_for()
    assert queue.counts(ws, "fruit").waiting == 0
    assert len(samples.current(ws, "fruit")) == before + 4
    page.keyboard.press("u")
    page.get_by_text("Your last answer was taken back").wait_for()
    assert queue.counts(ws, "fruit").waiting == 1
    page.keyboard.press("s")
    page.get_by_text("Skipped.").wait_for()


def test_81_classes_are_found_by_typing(open_page: Callable[..., Any], url_and_ws: Any) -> None:
    ws = url_and_ws
    labels = [f"{colour}-{thing}" for colour in ("Red", "Green", "Ripe") for thing in [f"Fruit-{n}" for n in range(27)]]
    made = world.seed(ws, "groceries", labels=labels, audits=0, uncertain=2)
    page = open_page(f"/groceries/review?item={made.uncertain[0]}")
    page.wait_for_function("!document.querySelector('[data-find]').disabled")
    page.keyboard.press("/")
    page.keyboard.type("ripe 26")
    assert page.locator("button.choice:visible").all_inner_texts() == ["1 Ripe-Fruit-26"]
    page.keyboard.press("Enter")
    page.get_by_text("Saved: Ripe-Fruit-26").wait_for()
    assert queue.get(ws, "groceries", made.uncertain[0]).verdict == {"label": "Ripe-Fruit-26"}
    page.keyboard.press("/")
    page.keyboard.type("nothing of this name")
    page.get_by_text("No class of this name.").wait_for()
    page.keyboard.press("Escape")
    assert page.locator("button.choice:visible").count() == 81


def test_zoom_and_a_new_class(open_page: Callable[..., Any], url_and_ws: Any) -> None:
    ws = url_and_ws
    made = world.seed(ws, "shop", audits=1, uncertain=1)
    page = open_page(f"/shop/review?item={made.uncertain[0]}")
    page.wait_for_function("!!window.Alpine")
    page.keyboard.press("z")
    page.locator(".picture.zoomed").wait_for()
    page.keyboard.press("z")
    page.locator(".picture:not(.zoomed)").wait_for()
    page.get_by_text("None of these?").click()
    page.get_by_label("Name of the new class").fill("medlar")
    # Enter in the box means the new class, never the model's answer.
    page.keyboard.press("Enter")
    page.get_by_text("Saved: medlar").wait_for()
    assert queue.get(ws, "shop", made.uncertain[0]).verdict == {"label": "medlar"}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_all_pages_keep_the_policy_and_fit_the_screen(
    open_page: Callable[..., Any], url_and_ws: Any, theme: str, width: int
) -> None:
    ws = url_and_ws
    if not samples.current(ws, "shop"):
        world.seed(ws, "shop")
    page = open_page("/", color_scheme=theme, viewport={"width": width, "height": 800})
    tabs = ("monitor", "review", "data", "runs", "models", "settings")
    run = runs.list_runs(ws, "shop")[-1].id
    more = ("/shop/models/2", f"/shop/runs/{run}", "/shop/data/versions/1", "/audit", "/docs", "/login")
    for path in ("/", *(f"/shop/{tab}" for tab in tabs), *more):
        page.goto(path)
        page.evaluate("document.querySelectorAll('main details').forEach((part) => { part.open = true; })")
        page.wait_for_load_state("load")
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{path} is {wide} pixels wider than the screen"


def test_charts_are_drawn_from_their_tables(open_page: Callable[..., Any], url_and_ws: Any) -> None:
    ws = url_and_ws
    if not samples.current(ws, "shop"):
        world.seed(ws, "shop")
    page = open_page("/shop/monitor")
    page.locator("figure.chart canvas").first.wait_for()
    figure = page.locator("figure.chart").first
    figure.get_by_text("As a table").click()
    assert figure.locator("table").is_visible()


def test_the_theme_is_switched_and_remembered(open_page: Callable[..., Any]) -> None:
    page = open_page("/empty/monitor", color_scheme="light")
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate(PAPER)
    page.reload()
    assert page.evaluate(PAPER) == dark
    page.get_by_role("button", name="Light").click()
    assert page.evaluate(PAPER) != dark


def test_releasing_a_model_takes_a_reason(open_page: Callable[..., Any], url_and_ws: Any) -> None:
    from keepsight.delivery import deployments

    ws = url_and_ws
    if not samples.current(ws, "shop"):
        world.seed(ws, "shop")
    page = open_page("/shop/models")
    page.get_by_role("button", name="Decide").click()
    page.get_by_role("button", name="Release model 2").click()
    assert page.url.endswith("/shop/models/2#decide"), "the browser asks for the reason first"
    page.get_by_label("Why do you release it?").fill("I looked at both")
    page.get_by_role("button", name="Release model 2").click()
    page.get_by_text("The model is being released").wait_for()
    now = deployments.current(ws, "shop")
    assert now is not None
    assert now.model_number == 2


def test_where_a_model_looked_is_drawn_when_asked(open_page: Callable[..., Any], url_and_ws: Any) -> None:
    ws = url_and_ws
    if not samples.current(ws, "shop"):
        world.seed(ws, "shop")
    page = open_page("/shop/models/2")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(300)
    assert not [url for url in asked if "/looked/" in url], "nothing is computed that nobody asked for"
    with page.expect_response(lambda response: "/looked/" in response.url) as answered:
        page.get_by_text("Where did it look?").first.click()
    assert answered.value.status == 200
    assert page.locator(".where img").first.is_visible()


def test_a_run_is_followed_while_it_works(open_page: Callable[..., Any], url_and_ws: Any) -> None:
    ws = url_and_ws
    if not samples.current(ws, "shop"):
        world.seed(ws, "shop")
    run_id = runs.enqueue(ws, "shop", trigger="hand", reason="followed", actor="ana")
    page = open_page(f"/shop/runs/{run_id}")
    page.get_by_text("queued").wait_for()
    progress = {"text": "training", "done": 0.5, "total": 1.0}
    runs.update(ws, run_id, status="running", started_at=ws.clock(), step="train", progress=progress)
    page.locator(".stages .now progress").wait_for()
    runs.finish(ws, run_id, status="failed", error={"found": "It broke.", "expected": "not that.", "do": "Wait."})
    page.get_by_text("It broke.").wait_for()
    # Nothing asks any more once the run has ended.
    assert page.locator("#chain[hx-get]").count() == 0
