"""A person corrects documents in a real browser: fields by keys and by clicking lines, texts, a line of their own."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from keepsight.data import adding
from keepsight.review import intake, queue
from keepsight.store import schema

pytestmark = [pytest.mark.journey, pytest.mark.chromium]

LINES = [
    ("CORNER SHOP", 60, 30),
    ("12 Mill Road", 60, 80),
    ("Old Town", 60, 120),
    ("DATE 25/12/2026", 60, 200),
    ("TOTAL", 60, 260),
    ("19.00", 360, 260),
]
NOISE = ("error", "warning")


def _load(name: str) -> Any:
    path = Path(__file__).parents[1] / "web" / "conftest.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


world = _load("keepsight_test_document_world")


def receipt(number: int) -> bytes:
    image = Image.new("RGB", (500, 700), "white")
    pen = ImageDraw.Draw(image)
    for text, left, top in LINES:
        pen.text((left, top), text, fill="black", font=ImageFont.load_default(28))
    pen.text((60, 600), f"No {number}", fill="black", font=ImageFont.load_default(28))
    out = io.BytesIO()
    image.save(out, "JPEG")
    return out.getvalue()


def prediction() -> dict[str, Any]:
    lines = [
        {"text": text, "box": [left, top, left + 15 * len(text) + 20, top + 32], "confidence": 0.9}
        for text, left, top in LINES
    ]
    fields = {"date": "25/12/2026", "shop": "CORNER SHQP", "total": "79.00"}
    return {
        "label": "date: 25/12/2026, shop: CORNER SHQP, total: 79.00",
        "confidence": 0.42,
        "lines": lines,
        "fields": fields,
        "found": {name: {"confidence": 0.95 if name == "date" else 0.5, "line": 0} for name in fields},
        "alternatives": [],
    }


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("documents")
    with world.open_workspace(folder / "ws", "projects: {receipts: {task: ocr}}\n") as opened:
        fields = {"date": "1/1/2026", "shop": "A", "total": "1.00", "address": "B"}
        sample = adding.NewSample(receipt(0), "first.jpg", value={"fields": fields}, split="train")
        adding.add(opened, "receipts", [sample], author="ana")
        rows = []
        for number in range(1, 4):
            row = world.event_row(
                "receipts",
                at=opened.clock() - 600 + number,
                label=prediction()["label"],
                confidence=0.42,
                digest="ab" * 32,
                labels=("a",),
                selected_by="audit" if number == 3 else "uncertain",
                sealed=world.seal(opened, receipt(number)),
            )
            rows.append({**row, "prediction": prediction()})
        with opened.database.write("events") as connection:
            connection.execute(schema.event.insert(), rows)
        intake.run(opened)
        opened.event_ids = [row["id"] for row in rows]
        yield opened


@pytest.fixture(scope="module")
def base_url(ws: Any) -> Iterator[str]:
    with world.run_server(ws) as url:
        yield url


@pytest.fixture
def open_page(chromium: Path, base_url: str) -> Iterator[Callable[[str], Any]]:
    from playwright.sync_api import sync_playwright

    troubles: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        context = browser.new_context(base_url=base_url, viewport={"width": 1300, "height": 900})
        context.set_default_timeout(20_000)

        def make(path: str) -> Any:
            page = context.new_page()
            page.on("console", lambda message: troubles.extend([message.text] if message.type in NOISE else []))
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.goto(path)
            page.locator(".document-field").nth(3).wait_for()
            # The script has met the page.
            page.locator(".with-lines").wait_for()
            return page

        yield make
        browser.close()
    assert troubles == []


def value_of(page: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(page.locator("input[name=value]").input_value())
    return value


def test_fields_are_corrected_by_clicks_and_keys(open_page: Callable[[str], Any], ws: Any, tmp_path: Path) -> None:
    page = open_page(f"/receipts/review?item={ws.event_ids[0]}")
    page.locator(".lines-layer rect").nth(5).wait_for()
    shown = page.locator(".lines-layer rect").nth(5).bounding_box()
    image = page.locator(".picture img").bounding_box()
    scale = image["height"] / 700
    left = image["x"] + (image["width"] - 500 * scale) / 2
    # The box lies where the line is seen.
    assert abs(shown["x"] - (left + 360 * scale)) < 2
    assert abs(shown["y"] - (image["y"] + 260 * scale)) < 2

    # By mouse: choose a field, click its line.
    page.locator("[data-field=total]").click()
    page.locator(".lines-layer rect").nth(5).click()
    assert value_of(page)["fields"]["total"] == "19.00"
    # By keyboard: 1 is the address; the arrows choose lines, Enter takes them, the second one is added.
    page.locator("[data-field=total]").press("Escape")
    page.keyboard.press("1")
    for _ in range(2):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("[data-field=address]").input_value() == "12 Mill Road Old Town"
    # By typing; Enter goes on to the next field.
    page.locator("[data-field=shop]").fill("CORNER SHOP")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.field") == "total"
    page.screenshot(path=str(tmp_path / "document.png"))
    expected = {"address": "12 Mill Road Old Town", "date": "25/12/2026", "shop": "CORNER SHOP", "total": "19.00"}
    assert value_of(page) == {"fields": expected}
    page.keyboard.press("Control+Enter")
    page.locator(".outcome").wait_for()
    assert queue.get(ws, "receipts", ws.event_ids[0]).verdict == {"fields": expected}


def test_lines_are_corrected_and_a_new_one_is_drawn(open_page: Callable[[str], Any], ws: Any) -> None:
    page = open_page(f"/receipts/review?item={ws.event_ids[1]}")
    page.locator(".lines-layer rect").nth(5).wait_for()
    page.keyboard.press("l")
    page.locator("[data-lines-list] input").nth(2).fill("Old Towne")
    assert page.locator("[data-checked]").is_checked()
    page.locator("[data-lines-list] input").nth(4).fill("")
    page.locator("[data-draw]").click()
    layer = page.locator(".lines-layer").bounding_box()
    scale = layer["width"] / 500
    page.mouse.move(layer["x"] + 60 * scale, layer["y"] + 600 * scale)
    page.mouse.down()
    page.mouse.move(layer["x"] + 160 * scale, layer["y"] + 640 * scale, steps=4)
    page.mouse.up()
    page.keyboard.type("No 2")
    # Another field, which the project does not have yet.
    page.get_by_text("Another field").click()
    page.locator("[data-new-field]").fill("number")
    page.keyboard.press("Enter")
    page.keyboard.type("2")
    told = value_of(page)
    page.keyboard.press("Control+Enter")
    page.locator(".outcome").wait_for()
    verdict = queue.get(ws, "receipts", ws.event_ids[1]).verdict or {}
    assert verdict["fields"] == told["fields"] == {**prediction()["fields"], "number": "2"}
    texts = [line["text"] for line in verdict["lines"]]
    assert texts == ["CORNER SHOP", "12 Mill Road", "Old Towne", "DATE 25/12/2026", "19.00", "No 2"]
    for side, wanted in zip(verdict["lines"][-1]["box"], (60, 600, 160, 640), strict=True):
        assert abs(side - wanted) < 3


def test_a_blind_check_shows_no_answer(open_page: Callable[[str], Any], ws: Any) -> None:
    page = open_page(f"/receipts/review?item={ws.event_ids[2]}")
    assert page.locator(".lines-layer rect").count() == 0
    assert "79.00" not in page.content()
    page.locator("[data-field=total]").fill("19.00")
    page.keyboard.press("Control+Enter")
    page.locator(".outcome").wait_for()
    assert queue.get(ws, "receipts", ws.event_ids[2]).verdict == {"fields": {"total": "19.00"}}
    assert "it was wrong" in page.locator(".outcome").inner_text()
