"""``keepsight batch``: a row for each picture, in order, and a run that goes on where it was cut off."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from keepsight.delivery import deployments
from keepsight.runtime.bundle import Bundle
from keepsight.store.workspace import Workspace
from keepsight.training import models

from .conftest import Run

COLOURS = ("red", "green", "blue")


@pytest.fixture
def served(shop: Path, tiny_bundle: Path) -> Path:
    """A workspace whose live model tells red, green and blue apart."""
    ws = Workspace.open(shop)
    try:
        register(ws, tiny_bundle)
        deployments.promote(ws, "shop", 1, actor="ana", reason="test", kind="override")
    finally:
        ws.close()
    return shop


def register(ws: Workspace, bundle: Path) -> None:
    models.register(ws, "shop", Bundle.open(bundle), run_id=None, dataset_version=None, metrics={}, actor="ana")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven pictures in two folders, one of which is broken, and files that are none."""
    root = tmp_path / "photos"
    for number in range(6):
        folder = root / ("early" if number < 3 else "late")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 48), COLOURS[number % 3]).save(folder / f"{number}.png")
    (root / "late" / "3b.jpg").write_bytes(b"no picture")
    (root / "notes.txt").write_text("not a picture")
    (root / ".hidden.png").write_bytes(b"")
    return root


NAMES = ["early/0.png", "early/1.png", "early/2.png", "late/3.png", "late/3b.jpg", "late/4.png", "late/5.png"]


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_answered_in_order(run: Run, served: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    ran = run("batch", "shop", photos, "--out", out, "--workspace", served, "--json")
    assert ran.code == 0, ran.err
    told = ran.json
    assert (told["pictures"], told["errors"], told["skipped"], told["model"]) == (7, 1, 0, 1)
    assert told["pictures_per_s"] > 0
    found = rows(out)
    assert [row["picture"] for row in found] == NAMES
    assert [row["label"] for row in found if not row["error"]] == [*COLOURS, *COLOURS]
    assert found[4]["error"].startswith("picture_unreadable: ")
    assert 0 < float(found[0]["confidence"]) <= 1
    assert found[0]["decision"] in {"auto", "review"}
    assert len(json.loads(found[0]["details"])["alternatives"]) == 2


def test_the_answers_are_those_of_predict(run: Run, served: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    assert run("batch", "shop", photos, "--out", out, "--workspace", served).code == 0
    one = run("predict", "shop", photos / "late" / "4.png", "--workspace", served, "--json").json["predictions"][0]
    (row,) = [row for row in rows(out) if row["picture"] == "late/4.png"]
    for changing in ("picture", "timings_ms"):
        one.pop(changing)
        row.pop(changing)
    assert row == {**one, "model": 1}


def test_a_table_names_the_pictures(run: Run, served: Path, photos: Path, tmp_path: Path) -> None:
    table = photos / "list.csv"
    table.write_text("id;file\n1;late/4.png\n2;gone.png\n3;early/0.png\n4;early/0.png\n")
    out = tmp_path / "answers.jsonl"
    ran = run("batch", "shop", table, "--out", out, "--workspace", served)
    assert ran.code == 0, ran.err
    assert "4 pictures" in ran.out
    assert "1 picture could not be answered" in ran.out
    found = rows(out)
    assert [row["picture"] for row in found] == ["late/4.png", "gone.png", "early/0.png", "early/0.png"]
    assert found[1]["error"]["code"] == "bad_input"


def test_a_bucket_is_read(run: Run, served: Path, photos: Path, tmp_path: Path) -> None:
    """A folder by its URL stands for a bucket: the code that lists and reads is the same."""
    out = tmp_path / "answers.csv"
    ran = run("batch", "shop", photos.as_uri(), "--out", out, "--workspace", served)
    assert ran.code == 0, ran.err
    assert sorted(row["picture"] for row in rows(out)) == NAMES


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_run_that_was_cut_off_goes_on(run: Run, served: Path, photos: Path, tmp_path: Path, suffix: str) -> None:
    shutil.copy(photos / "early" / "0.png", photos / 'early/0 "a"\nb.png')
    whole, part = tmp_path / f"whole{suffix}", tmp_path / f"part{suffix}"
    arguments = ("batch", "shop", photos, "--workspace", served, "--out")
    assert run(*arguments, whole).code == 0
    content = whole.read_bytes()
    for cut, there in ((len(content) // 3, True), (2 * len(content) // 3, True), (content.index(b"b.png") + 1, False)):
        part.write_bytes(content[:cut])
        ran = run(*arguments, part, "--resume", "--json")
        assert ran.code == 0, ran.out
        assert ran.json["skipped"] + ran.json["pictures"] == 8
        assert (ran.json["skipped"] > 0) is there
        assert [row["picture"] for row in rows(part)] == [row["picture"] for row in rows(whole)]
    assert run(*arguments, part, "--resume", "--json").json["pictures"] == 0


def test_a_file_is_never_overwritten(run: Run, served: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    out.write_text("something else\n")
    arguments = ("batch", "shop", photos, "--workspace", served, "--out", out, "--json")
    for more in ((), ("--resume",)):
        ran = run(*arguments, *more)
        assert ran.code == 2
        assert ran.json["error"]["code"] == "conflict"
    assert out.read_text() == "something else\n"


def test_answers_of_two_models_are_not_mixed(
    run: Run, served: Path, photos: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    out = tmp_path / "answers.csv"
    arguments = ("batch", "shop", photos, "--workspace", served, "--out", out, "--json")
    assert run(*arguments).code == 0
    ws = Workspace.open(served)
    try:
        register(ws, tiny_bundle)
        deployments.promote(ws, "shop", 2, actor="ana", reason="test", kind="override")
    finally:
        ws.close()
    ran = run(*arguments, "--resume")
    assert "--model 1" in ran.json["error"]["do"]
    assert run(*arguments, "--resume", "--model", 1).json["skipped"] == 7


def test_mistakes_are_told(run: Run, served: Path, photos: Path, tmp_path: Path) -> None:
    def error(*arguments: object) -> dict[str, Any]:
        ran = run("batch", "shop", *arguments, "--workspace", served, "--json")
        assert ran.code == 2
        found: dict[str, Any] = ran.json["error"]
        return found

    out: tuple[str, Path] = ("--out", tmp_path / "answers.csv")
    assert "not there" in error(tmp_path / "nothing", *out)["found"]
    assert ".jsonl" in error(photos, "--out", tmp_path / "answers.xls")["expected"]
    (photos / "list.csv").write_text("a,b\n1,2\n")
    assert "column" in error(photos / "list.csv", *out)["found"]
    assert error(photos, *out, "--variant", "int4")["code"] == "not_found"
    assert error("nothing://there", *out)["code"] == "bad_input"
    assert not out[1].exists(), "no file without rows is left behind"


def test_only_broken_pictures_is_exit_code_1(run: Run, served: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    ran = run("batch", "shop", folder, "--out", tmp_path / "answers.csv", "--workspace", served)
    assert ran.code == 1


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_ray_gives_the_same_file(ray_installed: None, run: Run, served: Path, photos: Path, tmp_path: Path) -> None:
    """In a process of its own, for Ray's warnings and processes are not this program's."""
    import os
    import subprocess
    import sys

    def batch(out: Path, executor: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "keepsight", "batch", "shop", photos, "--out", out, "-w", served, "--json"],
            env={**os.environ, "KEEPSIGHT_EXECUTOR": executor, "KEEPSIGHT_MACHINE_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    assert batch(tmp_path / "local.csv", "local")["executor"] == "this machine, 1 thread"
    assert batch(tmp_path / "ray.csv", "ray")["executor"] == "Ray on this machine, 1 CPU"
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
