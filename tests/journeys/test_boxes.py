"""Boxes in a real browser: what is drawn, moved, resized, removed and renamed, by mouse or keys, is what is saved."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from keepsight.data import adding, samples
from keepsight.data.adding import NewSample
from keepsight.review import intake, queue
from keepsight.store import schema

pytestmark = [pytest.mark.journey, pytest.mark.chromium]

SIZE = (400, 300)
CUPS = [[40.0, 60.0, 120.0, 140.0], [220.0, 150.0, 330.0, 250.0]]


def _load(name: str) -> Any:
    path = Path(__file__).parents[1] / "web" / "conftest.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


world = _load("keepsight_test_world_of_boxes")


def picture(number: int) -> bytes:
    image = Image.new("RGB", SIZE, (200, 190, 170 + number))
    pen = ImageDraw.Draw(image)
    for box in CUPS:
        pen.rectangle(box, fill=(90, 60, 40 + number))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def said(*boxes: tuple[str, list[float], float]) -> dict[str, Any]:
    return {
        "label": f"{len(boxes)} cup" if boxes else "nothing",
        "confidence": 0.6,
        "boxes": [{"label": label, "box": box, "confidence": chance} for label, box, chance in boxes],
        "alternatives": [{"label": "lid", "box": [150.0, 20.0, 190.0, 50.0], "confidence": 0.22}],
    }


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with world.open_workspace(
        tmp_path_factory.mktemp("boxes") / "ws", "projects: {kitchen: {task: detection}}\n"
    ) as opened:
        value = {"boxes": [{"label": "cup", "box": CUPS[0]}, {"label": "lid", "box": CUPS[1]}]}
        adding.add(opened, "kitchen", [NewSample(picture(50), "shelf.png", value, split="train")], author="ana")
        yield opened


@pytest.fixture(scope="module")
def base_url(ws: Any) -> Iterator[str]:
    with world.run_server(ws) as url:
        yield url


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def review(ws: Any, browser: Any, base_url: str) -> Iterator[Callable[..., Any]]:
    """``review(number, prediction, kind)``: the page of a new picture of the queue; the console stays clean."""
    troubles: list[str] = []
    context = browser.new_context(base_url=base_url, viewport={"width": 1300, "height": 900})
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.on("console", lambda message: troubles.extend([message.text] if message.type in ("error", "warning") else []))
    page.on("pageerror", lambda error: troubles.append(str(error)))

    def open_(number: int, prediction: dict[str, Any], kind: str = "uncertain") -> tuple[Any, str]:
        row = world.event_row("kitchen", at=ws.clock(), label="x", confidence=0.6, digest="ab" * 32, labels=("cup",))
        row |= {"prediction": prediction, "label": prediction["label"], "selected_by": kind}
        row["sealed"] = world.seal(ws, picture(number)) | {"format": "png"}
        with ws.database.write("events") as connection:
            connection.execute(schema.event.insert(), [row])
        intake.run(ws)
        page.goto(f"/kitchen/review?item={row['id']}")
        page.locator(".boxes.live").wait_for()
        return page, str(row["id"])

    yield open_
    context.close()
    assert troubles == []


def saved(ws: Any, page: Any, event_id: str) -> list[dict[str, Any]]:
    page.keyboard.press("Enter")
    page.locator(".outcome").wait_for()
    verdict = queue.get(ws, "kitchen", event_id).verdict
    assert verdict is not None
    return list(verdict["boxes"])


def at(page: Any, x: float, y: float) -> tuple[float, float]:
    """A point of the picture on the screen."""
    found = page.evaluate(
        "([x, y]) => { const m = document.querySelector('.boxes').getScreenCTM();"
        " return [x * m.a + m.e, y * m.d + m.f]; }",
        [x, y],
    )
    return float(found[0]), float(found[1])


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*at(page, *start))
    page.mouse.down()
    page.mouse.move(*at(page, (start[0] + end[0]) / 2, (start[1] + end[1]) / 2))
    page.mouse.move(*at(page, *end))
    page.mouse.up()


def test_a_right_answer_is_one_key(ws: Any, review: Callable[..., Any]) -> None:
    page, event_id = review(1, said(("cup", CUPS[0], 0.9), ("cup", CUPS[1], 0.8)))

    assert page.locator(".boxes .box:not(.maybe)").count() == 2
    assert "Save: 2 cup" in page.locator("[data-save]").inner_text()
    assert saved(ws, page, event_id) == [{"label": "cup", "box": box} for box in CUPS]
    item = queue.get(ws, "kitchen", event_id)
    assert item.correct
    assert any(sample.value == item.verdict for sample in samples.current(ws, "kitchen"))


def test_the_mouse_draws_moves_resizes_and_renames(ws: Any, review: Callable[..., Any]) -> None:
    page, event_id = review(2, said(("cup", CUPS[0], 0.9)))

    drag(page, (220, 150), (330, 250))  # drawn
    page.locator("[data-class=lid]").click()
    drag(page, (80, 100), (90, 120))  # moved
    drag(page, (130, 160), (150, 170))  # its lower right corner pulled
    assert "Save: 1 cup, 1 lid" in page.locator("[data-save]").inner_text()
    found = saved(ws, page, event_id)

    assert [item["label"] for item in found] == ["cup", "lid"]
    assert found[0]["box"] == pytest.approx([50, 80, 150, 170], abs=1.5)
    assert found[1]["box"] == pytest.approx(CUPS[1], abs=1.5)
    assert queue.get(ws, "kitchen", event_id).correct is False


def test_keys_do_all_of_it(ws: Any, review: Callable[..., Any]) -> None:
    page, event_id = review(3, said(("cup", CUPS[0], 0.9), ("cup", [0.0, 0.0, 30.0, 30.0], 0.4)))

    page.keyboard.press("n")  # the upper left one, which is wrong
    assert "Box 1 of 2: cup" in page.locator("[data-state-line]").inner_text()
    page.keyboard.press("Delete")
    page.keyboard.press("n")
    page.keyboard.press("2")  # cup is 1, lid is 2
    assert "Box 1 of 1: lid" in page.locator("[data-state-line]").inner_text()
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowUp"):
        page.keyboard.press(key)
    page.keyboard.press("a")  # a new one in the middle, of the class named last
    shown = page.evaluate("JSON.parse(document.querySelector('[name=value]').value).boxes")
    found = saved(ws, page, event_id)

    assert found == sorted(shown, key=lambda item: (item["label"], item["box"]))
    first = next(item["box"] for item in found if item["box"][0] < 60)
    x1, y1, x2, y2 = CUPS[0]
    step = first[0] - x1
    assert step >= 1
    assert first == [x1 + step, y1 + step, x2 + 2 * step, y2]
    assert [item["label"] for item in found] == ["lid", "lid"]
    assert any(item["box"] == [170.0, 120.0, 230.0, 180.0] for item in found)


def test_closer_shows_a_part_and_coordinates_stay_right(ws: Any, review: Callable[..., Any]) -> None:
    page, event_id = review(4, said(("cup", CUPS[0], 0.9)))

    page.keyboard.press("n")
    page.keyboard.press("z")
    shown = page.locator(".boxes").get_attribute("viewBox").split(" ")
    assert float(shown[2]) < SIZE[0]
    drag(page, (80, 100), (84, 96))
    page.keyboard.press("z")
    assert page.locator(".boxes").get_attribute("viewBox") == "0 0 400 300"
    assert saved(ws, page, event_id)[0]["box"] == pytest.approx([44, 56, 124, 136], abs=0.6)


def test_a_doubtful_box_is_taken_by_a_click(ws: Any, review: Callable[..., Any]) -> None:
    page, event_id = review(5, said(("cup", CUPS[0], 0.9)))

    page.mouse.click(*at(page, 150, 35))
    assert saved(ws, page, event_id)[1] == {"label": "lid", "box": [150.0, 20.0, 190.0, 50.0]}


def test_a_blind_check_shows_no_boxes(ws: Any, review: Callable[..., Any]) -> None:
    page, event_id = review(6, said(("cup", CUPS[0], 0.9)), "audit")

    assert "A blind check" in page.locator(".answer").inner_text()
    assert page.locator(".boxes .box").count() == 0
    assert "nothing is here" in page.locator("[data-save]").inner_text()
    assert "0.22" not in page.content()
    drag(page, (40, 60), (120, 140))
    assert saved(ws, page, event_id)[0]["box"] == pytest.approx(CUPS[0], abs=1.5)
    assert queue.get(ws, "kitchen", event_id).correct


def test_nothing_is_an_answer(ws: Any, review: Callable[..., Any]) -> None:
    page, event_id = review(7, said())

    assert saved(ws, page, event_id) == []


def test_a_new_class_is_named_while_drawing(ws: Any, review: Callable[..., Any]) -> None:
    page, event_id = review(8, said(("cup", CUPS[0], 0.9)))

    page.locator(".new-class summary").click()
    page.locator("[data-new-label]").fill("jug")
    page.keyboard.press("Enter")
    drag(page, (220, 150), (330, 250))
    assert "Save: 1 cup, 1 jug" in page.locator("[data-save]").inner_text()
    assert [item["label"] for item in saved(ws, page, event_id)] == ["cup", "jug"]


def test_a_label_is_corrected_on_its_page(ws: Any, review: Callable[..., Any]) -> None:
    page, _ = review(9, said())
    sample = next(item for item in samples.current(ws, "kitchen") if item.name == "shelf.png")
    page.goto(f"/kitchen/data/samples/{sample.sample_id}")
    page.locator(".boxes.live").wait_for()
    assert page.locator(".boxes .box").count() == 2
    page.locator("summary", has_text="Correct the label").click()
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    page.keyboard.press("Delete")
    page.locator("[data-save]").click()
    page.wait_for_url("**said=saved**")
    current = next(item for item in samples.current(ws, "kitchen") if item.name == "shelf.png")
    assert current.value == {"boxes": [{"label": "lid", "box": CUPS[1]}]}
