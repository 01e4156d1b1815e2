"""A run for a rented machine: the bucket holds what it needs and no more, and an empty machine can start from it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from keepsight.cli.app import run_app
from keepsight.config import load
from keepsight.data import adding, importers, samples, versions
from keepsight.delivery.registry import Release, open_registry
from keepsight.delivery.registry.stores import open_store
from keepsight.delivery.where import wish
from keepsight.errors import ConflictError, DataError
from keepsight.loop import rented
from keepsight.loop.ci import standalone
from keepsight.store.workspace import Workspace
from keepsight.training import models
from tests import tiny

WISH = wish.parse(
    {"kind": "skypilot", "bucket": "s3://pictures", "eur_per_hour": 0.5, "env": ["AWS_KEY"]}, Path("cloud.yaml")
)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of s3://pictures."""

    def opened(url: str, *, root: Path, setting: str, create: bool = True) -> Any:
        return open_store(url.replace("s3://pictures", str(tmp_path / "bucket")), root=root, setting=setting)

    monkeypatch.setattr("keepsight.delivery.registry.stores.open_store", opened)
    monkeypatch.setattr("keepsight.loop.rented.open_store", opened)
    monkeypatch.setattr("keepsight.loop.ci.source.open_store", opened)
    return tmp_path / "bucket"


def bring_in(ws: Workspace, folder: Path, *, seeds: range) -> None:
    for seed in seeds:
        place = folder / ("light" if seed % 2 else "dark")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{seed}.png").write_bytes(tiny.picture(seed))
    importers.import_path(ws, "shop", folder, author="ana")


def prepare(ws: Workspace) -> rented.Task:
    return rented.prepare(
        ws, "shop", WISH, options=["--budget", "20m"], version=None, reason="new pictures", actor="ana"
    )


def test_an_empty_machine_finds_pictures_splits_and_live_model(bucket: Path, tmp_path: Path) -> None:
    with tiny.workspace_with(tmp_path / "home", "gate.margin: 0.05") as ws:
        bring_in(ws, tmp_path / "photos", seeds=range(20))
        live = tiny.release(ws)
        task = prepare(ws)
        assert (task.pictures, task.uploaded, task.removed) == (20, 20, 0)
        before = {sample.picture_id: sample.split for sample in samples.current(ws, "shop")}
        digest = models.get(ws, "shop", live.model_number).bundle_digest
        again = prepare(ws)
        assert (again.uploaded, again.removed) == (0, 0)
        splits = sorted(before.values())
    written = yaml.safe_load(Path(task.path).read_text())
    assert task.command[-1] == task.path
    assert "keepsight ci shop --reason 'new pictures' --budget 20m" in written["run"]
    settings = yaml.safe_load(written["run"].split("'END_OF_SETTINGS'\n")[1].split("END_OF_SETTINGS")[0])
    assert settings["machine.eur_per_hour"] == 0.5

    away = tmp_path / "away"
    away.mkdir()
    (away / "keepsight.yaml").write_text(yaml.safe_dump(settings))
    assert load(away, environment={}).project("shop")["gate.margin"] == 0.05
    assert load(away, environment={}).project("shop")["train.checkpoints"] == "s3://pictures/checkpoints"
    ws = Workspace.open(away, environment={})
    try:
        prepared = standalone.prepare(ws, "shop", actor="ci")
        versions.commit(ws, "shop", message="there", author="ci")
        assert prepared.expected == digest
        assert sorted(sample.split for sample in samples.current(ws, "shop")) == splits
    finally:
        ws.close()


def test_what_is_gone_here_goes_there_and_recent_pictures_stay_back(bucket: Path, tmp_path: Path) -> None:
    with tiny.workspace_with(tmp_path / "home") as ws:
        bring_in(ws, tmp_path / "photos", seeds=range(12))
        prepare(ws)
        found = samples.current(ws, "shop")
        with ws.database.write() as connection:
            samples.remove(connection, ws, "shop", found[0].sample_id)
            samples.move(connection, ws, "shop", found[1].sample_id, "recent", actor="ana")
        task = prepare(ws)
        assert (task.pictures, task.uploaded, task.removed) == (10, 0, 2)
    with (bucket / "shop" / "data" / "pictures.csv").open(newline="") as file:
        listed = {row["path"] for row in csv.DictReader(file)}
    there = {f"pictures/{path.name}" for path in (bucket / "shop" / "data" / "pictures").iterdir()}
    assert listed == there
    assert not any(sample.picture_id in name for name in there for sample in found[:2])


def test_annotations_that_are_more_than_a_class_travel(bucket: Path, tmp_path: Path) -> None:
    values: list[dict[str, Any]] = [
        {"boxes": [{"label": 'a "b", c', "box": [0.0, 0.0, 3.0, 3.0]}, {"label": "cup", "box": [1.0, 2.0, 5.25, 6.0]}]},
        {"boxes": []},
    ]
    with tiny.workspace_with(tmp_path / "home", "task: detection") as ws:
        adding.add(
            ws,
            "shop",
            [
                adding.NewSample(tiny.picture(seed), f"{seed}.png", value, split=("train", "test")[seed])
                for seed, value in enumerate(values)
            ],
            author="ana",
        )
        assert prepare(ws).pictures == 2
        here = {sample.picture_id: sample.split for sample in samples.current(ws, "shop")}
        stored = sorted((str(sample.value), sample.split) for sample in samples.current(ws, "shop"))
    with tiny.workspace_with(tmp_path / "away", "task: detection") as ws:
        report = importers.import_path(ws, "shop", bucket / "shop" / "data" / "pictures.csv", author="ci")
        assert (report.added, report.rejected) == (len(here), ())
        assert sorted((str(sample.value), sample.split) for sample in samples.current(ws, "shop")) == stored


def test_the_model_made_there_comes_back(bucket: Path, tmp_path: Path) -> None:
    with tiny.workspace_with(tmp_path / "home", "registry.url: 's3://pictures/models'") as ws:
        bring_in(ws, tmp_path / "photos", seeds=range(12))
        assert rented.fetch(ws, "shop", actor="ana") is None
        live = tiny.release(ws)
        prepare(ws)
        there = open_registry("s3://pictures/models", root=tmp_path)
        made = tiny.bundle(5)
        old = models.get(ws, "shop", live.model_number).bundle_digest
        there.push("shop", Release(made, "deploy", old, "", {}), actor="ci", reason="better")
        with pytest.raises(ConflictError, match="another one"):
            prepare(ws)
        number = rented.fetch(ws, "shop", actor="ana")
        assert number is not None
        assert models.get(ws, "shop", number).bundle_digest == made.digest
        champion = models.champion(ws, "shop")
        assert champion is not None
        assert champion.number == number


def test_what_cannot_travel_is_told(bucket: Path, tmp_path: Path) -> None:
    with tiny.workspace_with(tmp_path / "empty") as ws:
        with pytest.raises(DataError, match="no pictures"):
            prepare(ws)
        with pytest.raises(ConflictError, match="no registry"):
            rented.fetch(ws, "shop", actor="ana")
    with (
        tiny.workspace_with(tmp_path / "file", "train.backbone: mine.onnx") as ws,
        pytest.raises(ConflictError, match="file of this machine"),
    ):
        prepare(ws)


def test_the_command_says_what_to_type_and_starts_nothing_unasked(
    bucket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny.workspace_with(tmp_path / "home") as ws:
        bring_in(ws, tmp_path / "photos", seeds=range(12))
    wanted = tmp_path / "cloud.yaml"
    wanted.write_text("kind: kubernetes\nbucket: s3://pictures\nimage: keepsight:1\n")
    words = ["train", "shop", "--where", str(wanted), "--budget", "5m", "-w", str(tmp_path / "home"), "--json"]
    assert run_app(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["command"] == ["kubectl", "create", "-f", told["path"]]
    assert (told["started"], told["pictures"]) == (False, 12)
    job = list(yaml.safe_load_all(Path(told["path"]).read_text()))[1]
    assert "--budget 5m" in job["spec"]["template"]["spec"]["containers"][0]["command"][2]

    monkeypatch.setenv("PATH", str(tmp_path / "tools"))
    assert run_app([*words, "--start"]) == 2
    assert "kubectl is not installed" in json.loads(capsys.readouterr().out)["error"]["found"]
    (tmp_path / "tools").mkdir()
    tool = tmp_path / "tools" / "kubectl"
    tool.write_text(f"#!/bin/sh\necho created\nprintf '%s ' \"$@\" > {tmp_path}/typed\n")
    tool.chmod(0o755)
    assert run_app([*words, "--start"]) == 0
    assert json.loads(capsys.readouterr().out)["started"] is True
    assert (tmp_path / "typed").read_text() == f"create -f {told['path']} "
