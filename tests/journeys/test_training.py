"""Training that keeps to its budget, survives being killed, and says what kept it from more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keepsight.cli.demo_pictures import DemoPicture
from tests.journeys.place import Workplace, wait_for, write_folder

pytestmark = pytest.mark.journey

BLOCKED = "raise ModuleNotFoundError(f'No module named {__name__!r}', name=__name__)\n"


@pytest.fixture
def imported(place: Workplace, pictures: list[DemoPicture]) -> Workplace:
    """A workspace with 120 pictures and no model."""
    write_folder(place.root / "photos", pictures[:120])
    place.run("data", "import", "shop", "photos")
    return place


def last_run(place: Workplace) -> dict[str, Any]:
    run: dict[str, Any] = place.json("runs", "list", "shop")[0]
    return run


def test_an_estimate_comes_before_the_start_and_holds(imported: Workplace) -> None:
    first = imported.json("train", "shop", "--dry-run")
    assert imported.json("runs", "list", "shop") == [], "a dry run starts nothing"
    assert first["seconds"]["low"] < first["seconds"]["value"] <= first["seconds"]["high"]
    shown = imported.run("train", "shop")
    assert "Estimate: " in shown.stdout + shown.stderr
    record = last_run(imported)["record"]
    assert record["cost_eur"] == pytest.approx(record["duration_s"] / 3600 * 0.10)
    again = imported.json("train", "shop", "--dry-run")
    assert again["basis"] == "1 earlier run"
    assert again["seconds"]["low"] < record["duration_s"] < again["seconds"]["high"]


def test_a_spent_month_starts_nothing(imported: Workplace) -> None:
    settings = imported.root / "keepsight.yaml"
    text = settings.read_text()
    settings.write_text(text.replace("recipe: head", "recipe: head, max_cost_eur_per_month: 0.000001"))
    imported.run("train", "shop")
    refused = imported.run("train", "shop", "--json", check=False)
    assert refused.returncode == 2
    assert '"budget_exceeded"' in refused.stdout + refused.stderr
    assert len(imported.json("runs", "list", "shop")) == 1


@pytest.mark.parametrize("wrong", ["soon", "0m", "-3m"])
def test_a_budget_that_is_no_time_is_told(imported: Workplace, wrong: str) -> None:
    answered = imported.run("train", "shop", f"--budget={wrong}", check=False)
    assert answered.returncode == 2
    assert "--budget 10m" in answered.stderr


def test_without_torch_the_quick_model_is_there_and_the_run_says_why(imported: Workplace, tmp_path: Path) -> None:
    shadows = tmp_path / "shadows"
    shadows.mkdir()
    for name in ("torch", "timm", "torchvision"):
        (shadows / f"{name}.py").write_text(BLOCKED)
    imported.run("train", "shop", "--recipe", "auto", PYTHONPATH=str(shadows))
    plan = last_run(imported)["record"]["plan"]
    assert plan["chosen"] == "head"
    assert "keepsight[train]" in plan["why"]
    refused = imported.run("train", "shop", "--recipe", "finetune", check=False, PYTHONPATH=str(shadows))
    assert refused.returncode == 2
    assert "keepsight[train]" in refused.stdout + refused.stderr


@pytest.mark.train
def test_finetuning_keeps_to_its_budget_and_can_be_done_again(imported: Workplace, torch_installed: None) -> None:
    imported.run("train", "shop", "--recipe", "finetune", "--budget", "60s")
    record = last_run(imported)["record"]
    assert record["recipe"] == "finetune"
    assert record["frozen"] is False
    assert record["worked_s"]["train"] < 150, "without a budget it takes ten minutes"
    assert not list((imported.root / ".keepsight" / "work").glob("*")), "checkpoints and caches go with the run"
    again = imported.json("models", "reproduce", "shop@1", check=False)
    assert again["recorded"] == record["model_digest"]
    assert again["agrees"], (again["differences"], record["plan"]["first"], record["plan"]["second"])
    assert not list((imported.root / ".keepsight" / "work").glob("*"))


@pytest.mark.train
def test_a_budget_below_one_round_is_refused_before_it_is_spent(imported: Workplace, torch_installed: None) -> None:
    refused = imported.run("train", "shop", "--recipe", "finetune", "--budget", "3s", check=False)
    assert refused.returncode == 2
    run = last_run(imported)
    assert run["status"] == "failed"
    assert "--budget" in run["error"]["do"] or "budget" in run["error"]["found"]
    assert imported.json("models", "list", "shop") == []
    # The default recipe keeps the quick model instead.
    imported.run("train", "shop", "--recipe", "auto", "--budget", "6s")
    assert last_run(imported)["record"]["plan"]["chosen"] == "head"


@pytest.mark.train
def test_a_killed_finetune_goes_on_from_its_checkpoint(imported: Workplace, torch_installed: None) -> None:
    with imported.up() as server:
        run_id = server.post("retrain", reason="thorough", recipe="finetune", budget_minutes=1.0)["id"]
        work = imported.root / ".keepsight" / "work" / run_id
        wait_for(lambda: list(work.glob("**/checkpoint*")), "a checkpoint", timeout_s=90)
        server.kill()
    assert list(work.glob("**/checkpoint*")), "what was done lies on disk"
    with imported.up() as server:
        done = wait_for(lambda: _ended(server.get(f"runs/{run_id}")), "the end of the run", timeout_s=120)
        assert done["status"] == "done", done
        assert done["record"]["worked_s"]["train"] > 0
    assert [model["number"] for model in imported.json("models", "list", "shop")] == [1]


def _ended(run: dict[str, Any]) -> dict[str, Any] | None:
    return run if run["status"] not in {"queued", "running"} else None
