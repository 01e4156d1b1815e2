"""What goes wrong in real life gets a clear error, and nothing is lost."""

from __future__ import annotations

import io
import json
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from keepsight.cli.demo_pictures import DemoPicture
from tests.journeys.place import Workplace, wait_for, write_folder

pytestmark = pytest.mark.journey


def huge_png(side: int = 30_000) -> bytes:
    """A valid PNG of ``side`` x ``side`` black pixels in a few kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" * (side // 8 + 2)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def truncated_jpeg() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((400, 300), 60).convert("RGB").save(file, "JPEG")
    return file.getvalue()[:4000]


BAD_FILES = {
    "text.jpg": b"Dear customer, this is a letter.",
    "truncated.jpg": truncated_jpeg(),
    "huge.png": huge_png(),
    "empty.jpg": b"",
}


def error_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The error of a command with ``--json``: one JSON shape, no traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    assert error["found"] and error["expected"] and error["do"]
    return error


def test_bad_pictures_cost_themselves_alone(place: Workplace, pictures: list[DemoPicture]) -> None:
    photos = write_folder(place.root / "photos", pictures[:60])
    for name, data in BAD_FILES.items():
        (photos / "one" / name).write_bytes(data)
    done = place.run("data", "import", "shop", "photos", "--json", check=False)
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["added"] == 60
    assert {item["name"] for item in report["rejected"]} == {f"one/{name}" for name in BAD_FILES}
    assert all(item["text"] for item in report["rejected"])
    place.run("train", "shop")
    with place.up() as server:
        for name, data in BAD_FILES.items():
            response = server.client.post("/v1/shop/predict", content=data)
            assert response.status_code in {413, 422}, (name, response.text)
            assert response.json()["error"]["do"]
        files = [("picture", ("text.jpg", BAD_FILES["text.jpg"])), ("picture", ("good.png", pictures[70].read()))]
        answers = server.client.post("/v1/shop/predict", files=files).json()
        assert "error" in answers[0]
        assert answers[1]["label"] in {"one", "four", "seven"}


def test_data_that_teaches_nothing(place: Workplace, pictures: list[DemoPicture], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert error_of(place.run("data", "import", "shop", str(tmp_path / "empty"), "--json", check=False))
    assert error_of(place.run("data", "import", "shop", str(tmp_path / "nowhere"), "--json", check=False))
    nothing = error_of(_failed_run(place))
    assert "no pictures" in nothing["found"]
    ones = [picture for picture in pictures if picture.label == "one"][:30]
    place.run("data", "import", "shop", str(write_folder(tmp_path / "ones", ones)))
    single = error_of(_failed_run(place))
    assert "one class" in single["found"]


def _failed_run(place: Workplace) -> subprocess.CompletedProcess[str]:
    done = place.run("train", "shop", "--json", check=False)
    run = json.loads(done.stdout)
    if "error" in run and "id" in run:
        # A run that failed is shown with its error in the same shape.
        done.stdout = json.dumps({"error": run["error"]})
    return done


def test_two_labels_for_one_picture(place: Workplace, pictures: list[DemoPicture], tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", pictures[:20])
    twice = pictures[0]
    other = next(label for label in ("one", "four", "seven") if label != twice.label)
    (photos / other).mkdir(exist_ok=True)
    (photos / other / "again.png").write_bytes(twice.read())
    report = json.loads(place.run("data", "import", "shop", str(photos), "--json", check=False).stdout)
    assert report["added"] == 20, "the picture itself is not lost"
    assert any("label" in item["text"] for item in report["rejected"])
    shown = place.json("data", "show", "shop", "--samples")
    assert sum(row["value"] is None for row in shown["rows"]) == 1, "it waits without a label"


def test_a_label_that_the_model_never_saw(trained: Workplace, pictures: list[DemoPicture]) -> None:
    with trained.up() as server:
        answers = [server.predict(picture.read()) for picture in pictures[180:230]]
        unknown = server.client.post(
            "/v1/shop/feedback", json={"prediction_id": answers[0]["prediction_id"], "label": "fuor"}
        )
        assert unknown.status_code == 422
        assert "four" in unknown.text, "the nearest name is offered"
        item = wait_for(lambda: server.get("review/next")["item"], "a picture to judge")
        refused = server.client.post(f"/v1/shop/review/{item['event_id']}", json={"label": "eleven"})
        assert refused.status_code == 422
        assert server.get("review/next")["item"] is not None, "the picture still waits"
        taken = server.client.post(f"/v1/shop/review/{item['event_id']}", json={"label": "eleven", "new_class": True})
        assert taken.is_success, taken.text


def test_names_and_ports_that_are_wrong(trained: Workplace, pictures: list[DemoPicture], tmp_path: Path) -> None:
    unknown = error_of(trained.run("train", "shp", "--json", check=False))
    assert unknown["code"] == "not_found" and "shop" in unknown["do"] + unknown["expected"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = trained.run("up", "--port", str(taken.getsockname()[1]), check=False)
    assert done.returncode == 2
    assert "is in use" in done.stderr and "Traceback" not in done.stderr
    refused = trained.run("up", "--host", "0.0.0.0", "--port", "8000", check=False)
    assert refused.returncode == 2 and "token" in refused.stderr
    nowhere = subprocess.run(
        [sys.executable, "-m", "keepsight", "models", "list", "shop", "--json"],
        cwd=tmp_path,
        env=trained.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "keepsight.yaml" in error_of(nowhere)["found"]


def test_a_wrong_or_missing_key(trained: Workplace) -> None:
    key = trained.root / ".keepsight" / "workspace.key"
    good = key.read_text()
    key.unlink()
    missing = error_of(trained.run("models", "list", "shop", "--json", check=False))
    assert missing["code"] == "workspace_key_wrong" and "missing" in missing["found"]
    assert not key.exists(), "no new key is made for a workspace that has one"
    other = "A" * 43 + "="
    wrong = error_of(trained.run("models", "list", "shop", "--json", check=False, KEEPSIGHT_KEY=other))
    assert wrong["code"] == "workspace_key_wrong"
    assert trained.json("models", "list", "shop", KEEPSIGHT_KEY=good.strip())[0]["status"] == "champion"
    key.write_text(good)
    assert trained.json("doctor")["ok"]


def _in_namespace(place: Workplace, script: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell script in a mount namespace of its own, where it may mount what it likes."""
    assert shutil.which("unshare"), "util-linux is needed"
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh", sys.executable],
        cwd=place.root,
        env=place.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_a_full_disk_loses_nothing_that_was_confirmed(trained: Workplace, pictures: list[DemoPicture]) -> None:
    write_folder(trained.root / "more", pictures[180:480])
    done = _in_namespace(
        trained,
        """
        used=$(du -sk .keepsight | cut -f1)
        mkdir small && mount -t tmpfs -o size=$((used + 2500))k tmpfs small
        cp -a .keepsight keepsight.yaml small/
        cd small
        dd if=/dev/zero of=filler bs=1k count=100000 2>/dev/null || true
        "$1" -m keepsight data import shop ../more --json > ../full.json 2> ../full.err && code=0 || code=$?
        echo $code > ../full.code
        rm filler
        "$1" -m keepsight doctor --json > ../doctor.json || true
        "$1" -m keepsight predict shop ../photos/*/*.png --json > ../predict.json
        """,
    )
    assert done.returncode == 0, done.stderr
    assert (trained.root / "full.code").read_text().strip() == "2"
    assert "Traceback" not in (trained.root / "full.err").read_text()
    error = json.loads((trained.root / "full.json").read_text())["error"]
    assert error["code"] == "storage_failed" and "room" in error["do"].lower()
    checks = json.loads((trained.root / "doctor.json").read_text())["checks"]
    assert {check["name"] for check in checks if check["status"] != "ok"} <= {"disk"}, checks
    assert json.loads((trained.root / "predict.json").read_text())["predictions"]


def test_a_read_only_workspace(trained: Workplace) -> None:
    done = _in_namespace(
        trained,
        """
        mount --bind . . && mount -o remount,ro,bind .
        "$1" -m keepsight up --port 8765
        """,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "write" in done.stderr
