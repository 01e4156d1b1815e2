"""The evaluate step on a real run: what stands beside the model afterwards, and what a report makes of it."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepsight.cli.app import run_app
from keepsight.data import versions
from keepsight.data.adding import NewSample, add
from keepsight.data.erase import erase_picture
from keepsight.errors import ConflictError, NotFoundError
from keepsight.loop import assessment, runs
from keepsight.loop.child import run_child
from keepsight.store import leases
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.assessment import neighbours, store
from keepsight.training.assessment.neighbours import Neighbours
from keepsight.training.assessment.robustness import TEXTS, robustness_card
from keepsight.training.corruptions import CORRUPTIONS
from keepsight.training.material import load
from tests.training.assessment import pooled

COLOURS = {"red": (230, 40, 40), "green": (40, 230, 40), "blue": (40, 40, 230)}


def photo(seed: int, colour: str) -> bytes:
    """A noisy picture of one colour, with a patch of its own."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 20, (24, 24, 3)), 0, 255).astype(np.uint8)
    pixels[rng.integers(0, 20) :][:4, rng.integers(0, 20) :][:, :4] = 128
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def pictures() -> Iterator[NewSample]:
    """90 to learn from; 60 to judge by, where the camera at the door has half of its labels wrong."""
    names = list(COLOURS)
    for seed in range(150):
        name = names[seed % 3]
        test = seed >= 90
        camera = "door" if seed % 4 == 0 else "shelf"
        label = names[(seed + 1) % 3] if test and camera == "door" and seed % 8 == 0 else name
        meta = {"camera": camera, "note": [None, "nan", "x", 3, {"a": 1}][seed % 5]} if seed % 7 else {}
        yield NewSample(photo(seed, name), f"{seed}.png", {"label": label}, "test" if test else "train", meta=meta)
    yield NewSample(photo(200, "red"), "pear.png", {"label": "pear"}, "test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, dict[str, Any]]]:
    """A workspace with one model, made and evaluated by the steps of a run, and the payload of these steps."""
    root = tmp_path_factory.mktemp("assessment")
    (root / "tiny.onnx").write_bytes(pooled.network("global"))
    facts = {"size": pooled.SIDE, "mean": [0, 0, 0], "std": [255, 255, 255]}
    (root / "tiny.json").write_text(json.dumps(facts))
    (root / "keepsight.yaml").write_text("projects: {shop: {train.recipe: head, train.backbone: tiny.onnx}}\n")
    ws = Workspace.open(root, environment={})
    ws.ensure_project("shop")
    add(ws, "shop", list(pictures()), author="ana")
    version = versions.commit(ws, "shop", message="m", author="ana")
    run_id = runs.enqueue(ws, "shop", trigger="hand", reason="because", actor="ana")
    runs.update(ws, run_id, dataset_version=1 if version is None else version.number)
    fence = leases.acquire(ws.database, "leader", holder="me", now=time.time(), ttl_s=3600)
    payload = {"root": str(root), "run_id": run_id, "lease": {"name": "leader", "holder": "me", "fence": fence}}
    step("keepsight.loop.work:train", payload)
    runs.update(ws, run_id, model_number=1)
    step("keepsight.loop.assessment:evaluate", payload)
    quick = store.load(ws, "shop", 1)
    assert quick is not None and quick["robustness"] == [], "the release does not wait for it"
    assert step("keepsight.loop.assessment:disturb", payload) == {"pictures": 60}
    yield ws, payload
    ws.close()


def step(target: str, payload: dict[str, Any]) -> dict[str, Any]:
    return dict(run_child(target, payload, cancel=lambda: False, on_progress=lambda _: None, threads=1))


@pytest.fixture
def ws(trained: tuple[Workspace, dict[str, Any]]) -> Workspace:
    return trained[0]


@pytest.fixture
def found(ws: Workspace) -> dict[str, Any]:
    evaluation = store.load(ws, "shop", 1)
    assert evaluation is not None
    return evaluation


def test_the_figures_are_about_pictures_whose_class_the_model_knows(found: dict[str, Any], ws: Workspace) -> None:
    assert found["pictures"] == 60
    assert found["unknown"] == {"pear": 1}
    assert found["metrics"] == models.get(ws, "shop", 1).metrics
    assert found["metrics"]["accuracy"]["n"] == 60
    assert found["parameters"] > 9
    assert found["size_bytes"]["float"] > 500
    assert found["latency_ms"]["n"] == 50
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p95"]
    assert found["evaluated_at"] > 1e9


def test_the_bad_camera_is_found(found: dict[str, Any]) -> None:
    rows = {f"{row['key']}={row['value']}": row for row in found["slices"]}
    door = rows["camera=door"]
    assert door["accuracy"]["value"] < 0.7
    assert door["difference"]["high"] < 0
    assert rows["camera=shelf"]["accuracy"]["value"] == 1
    assert {"camera=(none)", "note=x", "size=small"} <= rows.keys()


def test_mistakes_come_surest_first_with_the_training_pictures_like_them(found: dict[str, Any]) -> None:
    mistakes = found["mistakes"]
    assert len(mistakes) == round(60 * (1 - found["metrics"]["accuracy"]["value"]))
    sure = [row["confidence"] for row in mistakes]
    assert sure == sorted(sure, reverse=True)
    for row in mistakes:
        assert row["label"] != row["predicted"]
        assert [near["label"] for near in row["nearest"]] == [row["predicted"]] * 3
        assert row["nearest"][0]["cosine"] >= row["nearest"][2]["cosine"] > 0.9
        assert row["picture_id"] not in {near["picture_id"] for near in row["nearest"]}


def test_the_robustness_card_names_every_corruption(found: dict[str, Any]) -> None:
    assert {row["name"] for row in found["robustness"]} == set(CORRUPTIONS) == set(TEXTS)
    for row in found["robustness"]:
        assert row["n"] == row["clean"]["n"] == row["accuracy"]["n"] == 60
        assert row["clean"]["value"] == pytest.approx(found["metrics"]["accuracy"]["value"])
        assert row["kept"] == pytest.approx(row["accuracy"]["value"] / row["clean"]["value"])
    # Plain colours stay what they are under blur.
    assert next(row for row in found["robustness"] if row["name"] == "blurred")["kept"] == 1


def test_where_the_gate_asks_the_card_is_there_before_it(
    trained: tuple[Workspace, dict[str, Any]], found: dict[str, Any]
) -> None:
    ws, payload = trained
    settings = ws.settings("shop").as_dict() | {"gate.min_robustness": 0.5, "evaluation.robustness_pictures": 60}
    before = runs.get(ws, payload["run_id"]).record
    runs.add_record(ws, payload["run_id"], {"settings": settings})
    step("keepsight.loop.assessment:evaluate", payload)
    again = store.load(ws, "shop", 1)
    assert again is not None and again["robustness"] == found["robustness"]
    assert step("keepsight.loop.assessment:disturb", payload) == {}, "nothing is left to do"
    runs.update(ws, payload["run_id"], record=before)


def test_calibration_and_the_way_to_explain(found: dict[str, Any], ws: Workspace) -> None:
    bundle = models.load_bundle(ws, models.get(ws, "shop", 1))
    assert found["calibration"]["temperature"] == bundle.info.temperature
    assert found["calibration"]["after"]["ece"] == pytest.approx(found["metrics"]["ece"]["value"])
    assert sum(row["n"] for row in found["calibration"]["before"]["bins"]) == 60
    assert found["explained_by"] == "class activation map"


def test_a_second_evaluation_replaces_the_first_and_finds_the_same(
    trained: tuple[Workspace, dict[str, Any]], found: dict[str, Any]
) -> None:
    ws, payload = trained
    told = step("keepsight.loop.assessment:evaluate", payload)
    assert told == {
        "pictures": 60,
        "mistakes": len(found["mistakes"]),
        "slices": len(found["slices"]),
    }
    again = assessment.evaluate_again(ws, "shop", 1, lambda _: None)
    for name in found.keys() - {"latency_ms", "evaluated_at"}:
        assert again[name] == found[name], name


def test_nothing_is_kept_under_a_lost_lease(trained: tuple[Workspace, dict[str, Any]]) -> None:
    ws, payload = trained
    before = store.load(ws, "shop", 1)
    with pytest.raises(ConflictError, match="lost"):
        step("keepsight.loop.assessment:evaluate", {**payload, "lease": {**payload["lease"], "fence": 0}})
    assert store.load(ws, "shop", 1) == before


def test_a_slow_machine_looks_at_fewer_pictures(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = models.load_bundle(ws, models.get(ws, "shop", 1))
    test = load(ws, "shop", 1, backbone(ws), progress=lambda _: None)["test"]
    monkeypatch.setattr("keepsight.training.assessment.robustness.LEAST_PICTURES", 10)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    ticks = iter(range(1000))
    card = robustness_card(
        ws, bundle, test, seed=0, pictures=300, progress=lambda _: None, most_s=3, clock=lambda: next(ticks) * 2
    )
    assert {row["n"] for row in card} == {24}
    # Half of the time is up after the least: the same pictures as before, chosen by the seed.
    assert card[0]["accuracy"]["n"] == 24


def test_own_features_are_computed_for_some_training_pictures_only(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "MOST_COMPUTED", 20)
    training = load(ws, "shop", 1, backbone(ws), progress=lambda _: None)["training"]
    own = pooled.bundle("mean")
    near = Neighbours.of(ws, own, training, backbone=backbone(ws), seed=0, progress=lambda _: None)
    assert len(near.samples) == 20
    (alike,) = near.nearest(np.array([[0.1, 0.9, 0.1]], np.float32), count=2)
    assert [row["label"] for row in alike] == ["green", "green"]


def backbone(ws: Workspace) -> Any:
    from keepsight.data import vectors

    return vectors.backbone_of(ws, ws.settings("shop"))


# --- what people see of it ------------------------------------------------------------------------------------------


def command(ws: Workspace, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    code = run_app([*(str(each) for each in arguments), "--workspace", str(ws.config.root)])
    printed = capsys.readouterr()
    assert code == 0, printed
    return printed.out


def test_models_show_says_it_in_words_and_figures(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    text = command(ws, capsys, "models", "show", "shop", 1)
    for part in ("Model 1 is right on", "camera is door", "partly covered", "Confidence", "Confusions", "latency"):
        assert part in text
    value = json.loads(command(ws, capsys, "models", "show", "shop", 1, "--json"))
    assert value["metrics"]["accuracy"]["n"] == 60
    assert len(value["evaluation"]["robustness"]) == 8
    assert value["run"]["record"]["recipe"] == "head"


def test_the_report_holds_everything_and_asks_nobody(
    ws: Workspace, found: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "report"
    value = json.loads(command(ws, capsys, "models", "report", "shop", 1, "--out", out, "--json"))
    assert value["files"] == [str(out / "report.md"), str(out / "report.html")]
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    for part in ("What it gets wrong", "Bad pictures", "Parts of the pictures", "camera is door", "How it was made"):
        assert part in page
        assert part in text
    assert page.count("data:image/jpeg;base64,") == 5 * len(found["mistakes"])
    assert page.count("<svg") == 5
    assert "https://" not in page
    assert "http://" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "<script" not in page


def test_models_evaluate_gives_an_old_model_its_evaluation(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    made = models.register(ws, "shop", pooled.bundle("tokens"), run_id=None, dataset_version=1, metrics={}, actor="ana")
    assert f"keepsight models evaluate shop {made.number}" in command(ws, capsys, "models", "show", "shop", made.number)
    value = json.loads(command(ws, capsys, "models", "evaluate", "shop", made.number, "--json"))
    assert value["evaluation"]["pictures"] == 60
    assert value["evaluation"]["explained_by"] is None
    with pytest.raises(NotFoundError):
        assessment.evaluate_again(ws, "shop", 99, lambda _: None)


def test_an_erased_mistake_is_in_no_report(
    ws: Workspace, capsys: pytest.CaptureFixture[str], found: dict[str, Any], tmp_path: Path
) -> None:
    first, *others = found["mistakes"]
    erase_picture(ws, first["picture_id"], actor="ana", reason="asked")
    command(ws, capsys, "models", "report", "shop", 1, "--out", tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert first["sample_id"][:12] not in page
    assert others[0]["sample_id"][:12] in page
