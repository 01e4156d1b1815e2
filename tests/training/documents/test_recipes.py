"""The recipes for documents, on toy documents that a reader made by hand reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepsight import config
from keepsight.errors import BudgetError, DataError, WeightsError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.predictor import Predictor
from keepsight.training import recipes
from keepsight.training.budget import Budget
from keepsight.training.documents import finetuning, reader, rendering
from keepsight.training.recipes import Material, Trained
from tests.tiny import backbone
from tests.training.documents import toy


@pytest.fixture(autouse=True)
def toy_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "published", lambda material: toy.reader())
    # The toy alphabet has no general text.
    monkeypatch.setattr(rendering, "general", lambda count, characters, *, seed: [])
    monkeypatch.setattr(finetuning, "_RENDERED_SHARE", 0.0)


def page(number: int, *, wrong: bool = False) -> tuple[bytes, dict[str, Any]]:
    random = np.random.default_rng(number)
    total = f"{random.integers(1, 4)}{random.integers(0, 3)}.{random.integers(0, 4)}"
    rows = [("A0", 20, 30 + 5 * (number % 5)), ("TT", 20, 120), (total, 110, 121), ("A3", 40, 220)]
    said = [(text.replace("A", "2") if wrong else text, left, top) for text, left, top in rows]
    lines = [
        {"text": text, "box": toy.box(drawn, left, top)}
        for (text, left, top), (drawn, _, _) in zip(said, rows, strict=True)
    ]
    return toy.draw(rows), {"lines": lines, "fields": {"total": total}}


def material(folder: Path, *, count: int = 16, lines: bool = True, fields: bool = True, **others: Any) -> Material:
    make = others.pop("page", page)
    pages = [make(number) for number in range(count)]
    keys = [key for key, wanted in (("lines", lines), ("fields", fields)) if wanted]
    given: dict[str, Any] = {
        "seed": 0,
        "budget": Budget(600.0),
        "plan": None,
        "progress": lambda values: None,
        "validation": np.zeros(count, bool),
        **others,
    }
    return Material(
        task="ocr",
        backbone=backbone(),
        values=[{key: value[key] for key in keys} for _, value in pages],
        sizes=np.tile([320, 400], (count, 1)),
        features=np.zeros((count, 4), np.float32),
        labels=np.zeros(count, np.int64),
        groups=np.arange(count),
        names=("total",) if fields else (),
        read=lambda place: pages[place][0],
        settings=config.Config(root=folder, workspace={}, projects={"shop": {}}).project("shop"),
        folder=folder,
        **given,
    )


def predictor(trained: Trained) -> Predictor:
    assert trained.preprocessing is not None
    info = BundleInfo(
        task="ocr",
        labels=trained.labels or (),
        preprocessing=trained.preprocessing,
        created_at="2026-01-01T00:00:00+00:00",
    )
    return Predictor(Bundle.create(info, model=trained.model, parts=trained.parts))


def test_the_published_reader_needs_no_documents(tmp_path: Path) -> None:
    trained = recipes.get("ocr", "pretrained")(material(tmp_path, count=0))
    answer = predictor(trained).predict(page(3)[0]).as_dict()
    assert [line["text"] for line in answer["lines"]] == [line["text"] for line in page(3)[1]["lines"]]
    assert answer["fields"] == {}
    x1, y1, x2, y2 = answer["lines"][0]["box"]
    left, top, right, bottom = page(3)[1]["lines"][0]["box"]
    assert x1 <= left + 1 <= x2
    assert (y1 + y2) / 2 == pytest.approx((top + bottom) / 2, abs=4)
    assert right <= x2 + 1
    assert bottom <= y2 + 1


def test_annotated_lines_calibrate_the_published_reader(tmp_path: Path) -> None:
    trained = recipes.get("ocr", "pretrained")(material(tmp_path, fields=False))
    held_out = trained.held_out
    assert held_out.judged.all()
    assert held_out.right.all()
    assert held_out.confidence[held_out.judged].mean() > 0.85
    assert predictor(trained).predict(page(99)[0]).output.confidence > 0.85
    assert trained.features.shape == (16, 3)


def test_fields_are_learned_and_answered(tmp_path: Path) -> None:
    given = material(tmp_path)
    trained = recipes.get("ocr", "fields")(given)
    assert trained.labels == ("total",)
    assert trained.held_out.judged.all()
    assert trained.held_out.right.mean() > 0.9
    assert trained.figures["located"] == 1.0
    told = predictor(trained).predict(page(50)[0])
    assert told.output.as_dict()["fields"] == page(50)[1]["fields"]
    assert told.output.label == f"total: {page(50)[1]['fields']['total']}"
    assert told.output.as_dict()["found"]["total"]["line"] == 2
    # A replay follows the plan, and what was read is not read again.
    again = recipes.get("ocr", "fields")(material(tmp_path, plan=trained.plan))
    assert again.parts == trained.parts


def test_without_labelled_fields_that_recipe_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has labelled fields") as caught:
        recipes.get("ocr", "fields")(material(tmp_path, fields=False))
    assert "pretrained" in caught.value.do


def test_what_cannot_be_decoded_costs_itself(tmp_path: Path) -> None:
    given = material(tmp_path, page=lambda number: (b"no picture", page(0)[1]) if number == 2 else page(number))
    trained = recipes.get("ocr", "fields")(given)
    assert not trained.held_out.judged[2]
    assert trained.held_out.judged.sum() == 15
    with pytest.raises(DataError, match="None of the 3 labelled pictures"):
        recipes.get("ocr", "fields")(material(tmp_path / "b", count=3, page=lambda number: (b"", page(0)[1])))


@pytest.mark.train
def test_the_recogniser_learns_what_lines_are_corrected_to(tmp_path: Path, torch_installed: None) -> None:
    pytest.importorskip("onnx2torch")
    events: list[Any] = []
    # In these documents the sign that is read as "A" means "2".
    given = material(
        tmp_path,
        fields=False,
        page=lambda number: page(number, wrong=True),
        plan={"recipe": "finetune", "steps": 24, "mixture": 1.0, "documents": 3},
        progress=events.append,
    )
    rate = finetuning._RATE
    finetuning._RATE = 0.5
    try:
        trained = recipes.get("ocr", "finetune")(given)
    finally:
        finetuning._RATE = rate
    assert trained.figures["lines"]["cer_after"] < trained.figures["lines"]["cer_before"]
    texts = [line["text"] for line in predictor(trained).predict(page(77)[0]).as_dict()["lines"]]
    assert texts[0] == "20"
    assert 0 < trained.held_out.judged.sum() <= 3
    assert any(event["text"] == "learning lines" for event in events)


@pytest.mark.train
def test_lines_in_an_unknown_script_are_left_out_or_told(tmp_path: Path, torch_installed: None) -> None:
    pytest.importorskip("onnx2torch")

    def foreign(number: int) -> tuple[bytes, dict[str, Any]]:
        data, value = page(number)
        return data, {"lines": [{**line, "text": "ไทย"} for line in value["lines"]], "fields": value["fields"]}

    with pytest.raises(DataError, match="does not know the characters") as caught:
        recipes.get("ocr", "finetune")(material(tmp_path, page=foreign))
    assert "U+0E17" in caught.value.found
    events: list[Any] = []
    given = material(
        tmp_path / "some",
        page=lambda number: foreign(number) if number == 1 else page(number),
        plan={"steps": 2, "mixture": 0.0},
        progress=events.append,
    )
    given.folder.mkdir()
    trained = recipes.get("ocr", "finetune")(given)
    assert set(trained.figures["lines"]["unknown_characters"]) == set("ไทย")
    assert any("left out lines" in event["text"] for event in events)


@pytest.mark.train
def test_too_short_a_budget_is_told(tmp_path: Path, torch_installed: None) -> None:
    pytest.importorskip("onnx2torch")
    with pytest.raises(BudgetError, match="left for fine-tuning"):
        recipes.get("ocr", "finetune")(material(tmp_path, budget=Budget(5.0)))


def test_auto_keeps_the_quick_one_where_fine_tuning_cannot_be_done(tmp_path: Path) -> None:
    trained = recipes.get("ocr", "auto")(material(tmp_path, budget=Budget(5.0)))
    assert trained.plan["recipe"] == "auto"
    assert trained.plan["chosen"] == "fields"
    without_lines = recipes.get("ocr", "auto")(material(tmp_path, lines=False))
    assert without_lines.plan["recipe"] == "fields"


def test_weights_that_are_not_here_say_how_to_fetch_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("KEEPSIGHT_CACHE", str(tmp_path / "empty"))
    with pytest.raises(WeightsError) as caught:
        recipes.get("ocr", "pretrained")(material(tmp_path, count=0))
    assert "keepsight zoo fetch ppocr-v6-small-det" in caught.value.do


def test_rendered_lines_hold_what_they_say(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    made = rendering.lines(["TOTAL 9.00", "ไทย"] * 4, tuple("abTOAL 9.0123456789"), random=random)
    assert len(made) == 8
    for image, text in made:
        assert text
        assert np.asarray(image).min() < 120
        assert rendering.varied(image, random=random).size[0] > 0
