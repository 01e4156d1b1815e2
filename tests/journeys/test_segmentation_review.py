"""Masks in a real browser: keep, remove, fill, go back, by mouse and by keyboard; what is saved is what is seen."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepsight.data import adding, samples
from keepsight.delivery import deployments
from keepsight.review import intake, queue
from keepsight.runtime import rle
from keepsight.runtime.predictor import Predictor
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.training import models
from tests import matting
from tests.journeys.test_dashboard import _load

pytestmark = [pytest.mark.journey, pytest.mark.chromium]

world = _load("keepsight_test_world_of_masks")
SHOTS = os.environ.get("KEEPSIGHT_TEST_SCREENSHOTS")
SIZE = (400, 300)
# What the canvas shows as kept (transparent) and as gone, one letter for each pixel of the picture, row by row.
SEEN = """canvas => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let text = "";
  for (let place = 3; place < data.length; place += 4) { text += data[place] === 0 ? "1" : "0"; }
  return text;
}"""


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A project with a live model."""
    folder = tmp_path_factory.mktemp("masks")
    with world.open_workspace(folder / "ws", "projects: {cutout: {task: segmentation}}\n") as opened:
        opened.ensure_project("cutout")
        made = models.register(
            opened, "cutout", matting.bundle(), run_id=None, dataset_version=None, metrics={}, actor="ana"
        )
        deployments.promote(opened, "cutout", made.number, actor="ana", reason="first", kind="override")
        yield opened


def ask(ws: Workspace, *, radius: float, selected_by: str = "uncertain") -> tuple[str, dict[str, Any]]:
    """One more picture in the queue, and what the model said of it."""
    data = matting.photo(matting.disc(SIZE, radius=radius), seed=int(radius * 1000), kind="JPEG")
    prediction = Predictor(matting.bundle()).predict(data).output.as_dict()
    row = world.event_row(
        "cutout",
        at=ws.clock(),
        label=prediction["label"],
        confidence=prediction["confidence"],
        digest="",
        labels=(),
        selected_by=selected_by,
        sealed=world.seal(ws, data),
    )
    with ws.database.write("events") as connection:
        connection.execute(schema.event.insert(), [{**row, "prediction": prediction}])
    intake.run(ws)
    return str(row["id"]), prediction


@pytest.fixture(scope="module")
def pages(ws: Workspace, chromium: Path) -> Iterator[Callable[[str], Any]]:
    """Opens a page; its console must stay free of errors and of violations of the content security policy."""
    from playwright.sync_api import sync_playwright

    troubles: list[str] = []
    with world.run_server(ws) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])

        def make(path: str) -> Any:
            page = browser.new_page(base_url=url, viewport={"width": 1200, "height": 860})
            page.set_default_timeout(30_000)
            page.on("console", lambda told: troubles.extend([told.text] if told.type in ("error", "warning") else []))
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.goto(path)
            page.wait_for_function(
                "document.querySelector('.mask-layer[data-ready]') && document.querySelector('.picture img')?.complete"
            )
            return page

        yield make
        browser.close()
    assert troubles == []


def look(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def seen(page: Any) -> Any:
    """The mask as the canvas shows it, bool (height, width)."""
    text = page.locator(".mask-layer canvas").evaluate(SEEN)
    return (np.frombuffer(text.encode(), np.uint8) == ord("1")).reshape(SIZE[1], SIZE[0])


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Paints from one place of the picture to another, in the picture's pixels."""
    box = page.locator(".mask-layer canvas").bounding_box()
    scale = box["width"] / SIZE[0]
    places = [(box["x"] + x * scale, box["y"] + y * scale) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=6)
    page.mouse.up()


def saved(ws: Workspace, page: Any, event_id: str) -> Any:
    page.keyboard.press("Enter")
    page.locator(".outcome").first.wait_for()
    verdict = queue.get(ws, "cutout", event_id).verdict
    assert verdict is not None
    return rle.decode(verdict["mask"])


def test_the_models_mask_is_shown_and_taken_as_it_is(ws: Workspace, pages: Callable[[str], Any]) -> None:
    event_id, prediction = ask(ws, radius=0.31)
    page = pages(f"/cutout/review?item={event_id}")
    look(page, "segmentation-said")
    assert (seen(page) == rle.decode(prediction["mask"])).all()
    assert prediction["label"] in page.locator(".question strong").inner_text()
    page.keyboard.press("v")
    look(page, "segmentation-cut-out")
    made = page.request.get(page.get_by_role("link", name="on white").get_attribute("href"))
    assert made.headers["content-type"] == "image/png"
    pixels = np.asarray(Image.open(io.BytesIO(made.body())))
    assert pixels.shape == (SIZE[1], SIZE[0], 3)
    assert pixels[5, 5].tolist() == [255, 255, 255]
    assert (saved(ws, page, event_id) == rle.decode(prediction["mask"])).all()
    assert queue.get(ws, "cutout", event_id).correct is True


def test_what_is_painted_erased_and_filled_is_what_is_saved(ws: Workspace, pages: Callable[[str], Any]) -> None:
    event_id, prediction = ask(ws, radius=0.27)
    before = rle.decode(prediction["mask"])
    page = pages(f"/cutout/review?item={event_id}")
    drag(page, (40, 40), (120, 40))
    painted = seen(page)
    assert painted[40, 40:121].all()
    assert (painted & ~before).sum() > 500
    page.keyboard.press("e")
    page.keyboard.press("]")
    assert page.locator(".size").inner_text() == "4"
    drag(page, (200, 100), (200, 200))
    erased = seen(page)
    assert not erased[100:201, 200].any()
    page.keyboard.press("f")
    drag(page, (90, 40), (90, 40))
    filled = seen(page)
    assert not filled[40, 40:121].any()
    assert (filled[100:] == erased[100:]).all()
    page.keyboard.press("b")
    assert (seen(page) == erased).all()
    page.keyboard.press("Control+z")
    assert (seen(page) == painted).all()
    assert page.locator(".agree span").inner_text() == "Save my mask"
    look(page, "segmentation-painted")
    assert (saved(ws, page, event_id) == painted).all()
    note = next(item for item in samples.current(ws, "cutout") if item.meta.get("event_id") == event_id)
    assert note.value == queue.get(ws, "cutout", event_id).verdict


def test_a_blind_check_begins_with_nothing_and_is_painted_by_keyboard(
    ws: Workspace, pages: Callable[[str], Any]
) -> None:
    event_id, _ = ask(ws, radius=0.23, selected_by="audit")
    page = pages(f"/cutout/review?item={event_id}")
    assert not seen(page).any()
    page.keyboard.press("Enter")
    page.get_by_text("Nothing is painted").wait_for()
    page.wait_for_function("document.querySelector('.mask-layer[data-ready]') !== null")
    page.keyboard.press("]")
    page.locator(".mask-layer canvas").focus()
    for _ in range(4):
        page.keyboard.press("Space")
        page.keyboard.press("ArrowRight")
    found = seen(page)
    assert found[150, 200:220].all()
    look(page, "segmentation-blind")
    assert page.get_by_role("link", name="cut out").count() == 0
    assert page.request.get(f"/cutout/review/{event_id}/picture").status == 404
    assert (saved(ws, page, event_id) == found).all()
    assert "The model said" in page.locator(".outcome").inner_text()


def test_a_label_is_corrected_on_the_samples_page(ws: Workspace, pages: Callable[[str], Any]) -> None:
    mask = matting.disc(SIZE, radius=0.2)
    item = adding.NewSample(matting.photo(mask, seed=5), "cup.png", value=matting.value(mask), split="train")
    adding.add(ws, "cutout", [item], author="ana")
    sample = next(each for each in samples.current(ws, "cutout") if each.name == "cup.png")
    page = pages(f"/cutout/data/samples/{sample.sample_id}")
    assert (seen(page) == mask).all()
    made = page.request.get(page.get_by_role("link", name="cut out").get_attribute("href"))
    assert Image.open(io.BytesIO(made.body())).mode == "RGBA"
    page.get_by_text("Correct the label").click()
    page.keyboard.press("e")
    drag(page, (180, 150), (220, 150))
    found = seen(page)
    assert not found[150, 180:221].any()
    look(page, "segmentation-sample")
    page.locator(".agree").click()
    page.wait_for_url("**said=saved**")
    value = samples.get(ws, "cutout", sample.sample_id).value
    assert value is not None
    assert (rle.decode(value["mask"]) == found).all()
