"""Checkpoints that travel: an empty machine with the same pictures goes on; a broken set or store costs nothing."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepsight.data import importers, vectors, versions
from keepsight.errors import SettingsError
from keepsight.loop import checkpoints
from keepsight.store.workspace import Workspace
from keepsight.training import evaluation, material
from keepsight.training.budget import Budget
from tests import tiny


class Killed(Exception):
    """The machine is gone."""


def travelling(tmp_path: Path, machine: str, *, key: str = "key", budget: Budget | None = None, url: str = "") -> Any:
    folder = tmp_path / machine
    folder.mkdir(exist_ok=True)
    return checkpoints.travelling(
        url or str(tmp_path / "bucket"),
        root=tmp_path,
        project="shop",
        key=key,
        folder=folder,
        budget=budget or Budget(60.0),
    )


def interrupted(tmp_path: Path, machine: str, files: dict[str, bytes], **others: Any) -> None:
    with pytest.raises(Killed), travelling(tmp_path, machine, **others):
        for name, data in files.items():
            path = tmp_path / machine / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        raise Killed


def arrived(tmp_path: Path, machine: str, **others: Any) -> dict[str, bytes]:
    with pytest.raises(Killed), travelling(tmp_path, machine, **others):
        folder = tmp_path / machine
        found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        raise Killed
    return found


def test_small_files_travel_and_caches_stay(tmp_path: Path) -> None:
    small = {"finetune/plan.json": b"{}", "finetune/checkpoint.pt": b"weights"}
    caches = {"finetune/plain.f16": b"x", "finetune/done.u8": b"x", "finetune/activations.json": b"{}"}
    interrupted(tmp_path, "first", {**small, **caches, "finetune/checkpoint.new": b"half"})

    assert arrived(tmp_path, "second") == small
    assert arrived(tmp_path, "third", key="another") == {}


def test_what_the_machine_before_used_of_the_budget_counts(tmp_path: Path) -> None:
    interrupted(tmp_path, "first", {"plan.json": b"{}"}, budget=Budget(60.0, used_s=25.0))

    budget = Budget(60.0)
    arrived(tmp_path, "second", budget=budget)

    assert 20 < budget.left_s <= 35


def test_new_states_travel_while_the_run_works_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SEND_EVERY_S", 0.02)
    remote = tmp_path / "bucket" / "shop" / "key"

    def wait_for(state: bytes) -> None:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            if [path for path in remote.glob("*") if path.name != checkpoints.MANIFEST and path.read_bytes() == state]:
                return
            time.sleep(0.02)
        raise AssertionError("it did not travel")

    with travelling(tmp_path, "first"):
        for state in (b"one", b"two"):
            (tmp_path / "first" / "checkpoint.pt").write_bytes(state)
            wait_for(state)
    assert [path for path in remote.rglob("*") if path.is_file()] == [], "a run that is through leaves nothing"


def test_an_own_attempt_is_not_overwritten(tmp_path: Path) -> None:
    interrupted(tmp_path, "first", {"checkpoint.pt": b"old"})
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "checkpoint.pt").write_bytes(b"own")

    assert arrived(tmp_path, "second") == {"checkpoint.pt": b"own"}


@pytest.mark.parametrize("spoil", ["damaged", "outside", "garbage", "lost"])
def test_a_set_that_is_not_whole_is_left(tmp_path: Path, spoil: str, caplog: pytest.LogCaptureFixture) -> None:
    interrupted(tmp_path, "first", {"plan.json": b"{}", "checkpoint.pt": b"weights"})
    remote = tmp_path / "bucket" / "shop" / "key"
    manifest = json.loads((remote / checkpoints.MANIFEST).read_text())
    held = remote / manifest["files"][-1]["sha256"]
    if spoil == "damaged":
        held.write_bytes(b"wei")
    elif spoil == "lost":
        held.unlink()
    elif spoil == "outside":
        manifest["files"][-1]["path"] = "../../elsewhere.pt"
        (remote / checkpoints.MANIFEST).write_text(json.dumps(manifest))
    else:
        (remote / checkpoints.MANIFEST).write_text("[")

    assert arrived(tmp_path, "second") == {}
    assert not list(tmp_path.rglob("elsewhere.pt"))


def test_a_store_that_is_away_is_told_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SEND_EVERY_S", 0.02)
    (tmp_path / "bucket").mkdir()
    with caplog.at_level(logging.WARNING), travelling(tmp_path, "first"):
        (tmp_path / "bucket").rmdir()
        (tmp_path / "bucket").write_bytes(b"a file where the folder was")
        for state in (b"one", b"two"):
            (tmp_path / "first" / "checkpoint.pt").write_bytes(state)
            time.sleep(0.1)
    assert len([each for each in caplog.records if "training goes on" in each.getMessage()]) == 1

    with pytest.raises(SettingsError, match=r"train\.checkpoints"), travelling(tmp_path, "first", url="ftp://x"):
        pass


@pytest.fixture
def opened() -> Iterator[Callable[[Path], Workspace]]:
    found: list[Workspace] = []

    def open_(root: Path) -> Workspace:
        found.append(tiny.workspace_with(root).__enter__())
        return found[-1]

    yield open_
    for ws in found:
        ws.close()


def test_an_empty_machine_tells_the_same_pictures_by_the_same_key_and_order(
    tmp_path: Path, opened: Callable[[Path], Workspace]
) -> None:
    photos = tmp_path / "photos"
    for seed in range(16):
        place = photos / ("train" if seed < 12 else "test") / ("light" if seed % 2 else "dark")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{seed}.png").write_bytes(tiny.picture(seed))

    def machine(name: str) -> tuple[list[str], list[str], str, str]:
        ws = opened(tmp_path / name)
        importers.import_path(ws, "shop", photos, author="ana")
        versions.commit(ws, "shop", message="pictures", author="ana")
        number = versions.get(ws, "shop", versions.LATEST).number
        settings = ws.settings("shop")
        backbone = vectors.backbone_of(ws, settings)
        part = material.load(ws, "shop", number, backbone, progress=lambda _: None)["training"]
        ordered, hashes = checkpoints.in_order(
            part, lambda picture_id: evaluation.stored(ws, picture_id), progress=lambda _: None
        )
        given: dict[str, Any] = {"project": "shop", "settings": settings, "backbone_digest": backbone.digest}
        key = checkpoints.key_of(ordered, hashes, params={}, **given)
        other = checkpoints.key_of(ordered, hashes, params={"recipe": "head"}, **given)
        return ordered.labels, part.keys, key, other

    labels, ids, key, other = machine("here")
    labels_there, ids_there, key_there, _ = machine("there")
    assert ids != ids_there
    assert (labels, key) == (labels_there, key_there)
    assert other != key


@pytest.mark.train
@pytest.mark.usefixtures("torch_installed")
def test_training_goes_on_where_another_machine_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keepsight.training.finetune.recipe import finetune
    from tests.training.finetune import small

    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    monkeypatch.setattr("keepsight.training.finetune.fit.CHECKPOINT_EVERY_S", 0.0)

    def kill(values: Any) -> None:
        if values["text"] == "training" and values.get("done", 0) >= 10:
            raise Killed

    told: list[dict[str, Any]] = []
    try:
        with pytest.raises(Killed), travelling(tmp_path, "first"):
            finetune(small.material(tmp_path / "first", count=24, progress=kill))
        decided = json.loads((tmp_path / "first" / "finetune" / "plan.json").read_text())
        with travelling(tmp_path, "second"):
            trained = finetune(
                small.material(tmp_path / "second", count=24, progress=lambda values: told.append(dict(values)))
            )
        whole = finetune(small.material(tmp_path / "whole", count=24, plan=trained.plan))
    finally:
        os.sched_setaffinity(0, before)

    assert "measuring this machine" not in [values["text"] for values in told]
    assert next(values["done"] for values in told if values["text"] == "training") >= 9
    assert trained.plan["cut"] == decided["cut"]
    assert list(trained.plan["augmentations"]) == decided["augmentations"]
    assert np.array_equal(whole.held_out.judged, trained.held_out.judged)
    assert np.abs(whole.held_out.confidence - trained.held_out.confidence).max() < 0.1
