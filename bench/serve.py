"""Requests per second and latency of Keepsight with everything on, beside plain FastAPI + onnxruntime + Pillow.

Trains a small model through the command line, then runs `keepsight up` (durable log, audit sample, metrics, dashboard,
drift watch) and the plain server with the same network, and loads them by turns with the same 640x480 pictures. The
figures are medians over the rounds; the ratio is taken within each round. The loader is wrk where it is installed, else
httpx in a process of its own, which is slower than wrk for both.

    python bench/serve.py [--import-pictures 20000]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
# The synthetic pictures of a class are alike, and the model should answer them without asking.
SETTINGS = """projects:
  shop:
    data: {near_duplicate: 1.0}
    review: {min_confidence: 0.0, target_accuracy: 0.5}
"""
TARGET_BYTES = 72_000
CLASSES = 4
PER_CLASS = 40

WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "image/jpeg"
local file = io.open("PICTURE", "rb")
wrk.body = file:read("*all")
function done(summary, latency, requests)
  local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout
  io.write(string.format("RESULT %f %f %f %d\\n", summary.requests / (summary.duration / 1e6),
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, bad))
end
"""


@dataclass(frozen=True)
class Load:
    """What one loading measured."""

    per_s: float
    p50_ms: float
    p99_ms: float
    failed: int


def main() -> None:
    """Prints a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one loading")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--import-pictures", type=int, default=0, help="also measure beside an import of so many")
    parser.add_argument("--loader", choices=("wrk", "httpx"), default="wrk" if shutil.which("wrk") else "httpx")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        picture = prepare(root)
        ours = stack.enter_context(keepsight(root))
        plain = stack.enter_context(plain_server(root))
        result: dict[str, Any] = {"cores": os.cpu_count(), "loader": options.loader, "rounds": options.rounds}
        for concurrency in options.concurrency:
            result[f"c{concurrency}"] = compare(ours, plain, picture, options=options, concurrency=concurrency)
        if options.import_pictures:
            result["import"] = beside_import(root, ours, picture, options=options)
        show(result)


def prepare(root: Path) -> Path:
    """A workspace with a trained and released model; gives the picture to send."""
    (root / "keepsight.yaml").write_text(SETTINGS)
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        place = root / "photos" / f"kind{label}"
        place.mkdir(parents=True)
        for number in range(PER_CLASS):
            (place / f"{number}.jpg").write_bytes(photo(rng, hue=label / CLASSES))
    command(root, "data", "import", "shop", str(root / "photos"))
    command(root, "train", "shop")
    picture = root / "send.jpg"
    picture.write_bytes(photo(rng, hue=0.0))
    return picture


def photo(rng: np.random.Generator, *, hue: float, size: tuple[int, int] = (640, 480)) -> bytes:
    """A JPEG with the spectrum of a photograph (noise of all scales, strong at the coarse ones), of about 72 kB."""
    width, height = size
    pixels = np.zeros((height, width, 3))
    for step in (2, 4, 8, 16, 32, 64, 128):
        coarse = rng.normal(size=(height // step + 2, width // step + 2, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(coarse[:, :, channel]).resize(size, Image.Resampling.BICUBIC)
            pixels[:, :, channel] += np.asarray(layer) * step**0.6
    tint = np.array([np.cos(2 * np.pi * (hue + shift)) for shift in (0, 1 / 3, 2 / 3)])
    picture = Image.fromarray((128 + 6 * pixels + 40 * tint).clip(0, 255).astype(np.uint8))
    data = b""
    for quality in range(95, 20, -5):
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality)
        data = out.getvalue()
        if len(data) <= TARGET_BYTES:
            break
    return data


def command(root: Path, *words: str) -> None:
    """Runs a keepsight command in the workspace."""
    line = [sys.executable, "-m", "keepsight", *words]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"keepsight {' '.join(words)} failed:\n{done.stdout}{done.stderr}")


@contextmanager
def keepsight(root: Path) -> Iterator[str]:
    """Keepsight as users start it; gives the URL to post to."""
    port = free_port()
    with server(
        [sys.executable, "-m", "keepsight", "up", "--port", str(port)], root, f"http://127.0.0.1:{port}/readyz"
    ):
        yield f"http://127.0.0.1:{port}/v1/shop/predict"


@contextmanager
def plain_server(root: Path) -> Iterator[str]:
    """The peer, with the network of the released bundle; gives the URL to post to."""
    from keepsight.delivery import deployments
    from keepsight.store.workspace import Workspace
    from keepsight.training import models

    ws = Workspace.open(root)
    deployment = deployments.current(ws, "shop")
    if deployment is None:
        sys.exit("No model was released; see `keepsight models list shop`.")
    bundle = models.load_bundle(ws, models.get(ws, "shop", deployment.model_number))
    ws.close()
    (root / "model.onnx").write_bytes(bundle.model("float"))
    (root / "labels.json").write_text(json.dumps(bundle.info.labels))
    port = free_port()
    words = [sys.executable, str(HERE / "serve_plain.py"), "model.onnx", "labels.json"]
    words += [str(bundle.info.preprocessing.size), str(port)]
    with server(words, root, f"http://127.0.0.1:{port}/openapi.json"):
        yield f"http://127.0.0.1:{port}/predict"


@contextmanager
def server(words: Sequence[str], root: Path, ready: str) -> Iterator[None]:
    """Runs a server process; waits until it is ready."""
    with (root / "server.log").open("ab") as log:
        process = subprocess.Popen(words, cwd=root, stdout=log, stderr=log)
    try:
        for _ in range(600):
            if process.poll() is not None:
                sys.exit(f"{' '.join(words)} ended:\n{(root / 'server.log').read_text()}")
            try:
                if httpx.get(ready, timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def compare(ours: str, plain: str, picture: Path, *, options: Any, concurrency: int) -> dict[str, Any]:
    """Loads both by turns; the order changes from round to round."""
    loads: dict[str, list[Load]] = {"keepsight": [], "plain": []}
    for url in (ours, plain):
        load(url, picture, options=options, concurrency=concurrency, seconds=1.0)
    for number in range(options.rounds):
        order = [("keepsight", ours), ("plain", plain)]
        for name, url in order if number % 2 == 0 else reversed(order):
            loads[name].append(load(url, picture, options=options, concurrency=concurrency, seconds=options.seconds))
    out: dict[str, Any] = {name: middle(items) for name, items in loads.items()}
    pairs = list(zip(loads["keepsight"], loads["plain"], strict=True))
    out["ratio_per_s"] = round(statistics.median(a.per_s / b.per_s for a, b in pairs), 3)
    out["ratio_p99"] = round(statistics.median(a.p99_ms / b.p99_ms for a, b in pairs), 3)
    return out


def middle(items: Sequence[Load]) -> dict[str, Any]:
    """The median of each figure."""
    names = ("per_s", "p50_ms", "p99_ms")
    medians: dict[str, Any] = {
        name: round(statistics.median(asdict(item)[name] for item in items), 2) for name in names
    }
    return {**medians, "failed": sum(item.failed for item in items)}


def beside_import(root: Path, url: str, picture: Path, *, options: Any) -> dict[str, Any]:
    """Latencies while another process imports small pictures, for as long as that takes."""
    rng = np.random.default_rng(1)
    for number in range(options.import_pictures):
        place = root / "many" / f"kind{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        out = io.BytesIO()
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(out, "JPEG")
        (place / f"{number}.jpg").write_bytes(out.getvalue())
    words = [sys.executable, "-m", "keepsight", "data", "import", "shop", str(root / "many")]
    result: dict[str, Any] = {"pictures": options.import_pictures}
    started = time.monotonic()
    process = subprocess.Popen(words, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loads: dict[int, list[Load]] = {concurrency: [] for concurrency in options.concurrency}
    while process.poll() is None:
        for concurrency, items in loads.items():
            seconds = min(options.seconds, 3.0)
            item = load(url, picture, options=options, concurrency=concurrency, seconds=seconds)
            if process.poll() is None:
                items.append(item)
    result["import_s"] = round(time.monotonic() - started, 1)
    result["import_exit_code"] = process.returncode
    for concurrency, items in loads.items():
        if items:
            worst = max(item.p99_ms for item in items)
            result[f"c{concurrency}"] = {**middle(items), "loadings": len(items), "worst_p99_ms": round(worst, 2)}
    return result


def load(url: str, picture: Path, *, options: Any, concurrency: int, seconds: float) -> Load:
    """Loads a server for some seconds."""
    if options.loader == "wrk":
        return load_with_wrk(url, picture, concurrency=concurrency, seconds=seconds)
    words = [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import serve; serve.loader_process()"]
    words += [str(HERE), url, str(picture), str(concurrency), str(seconds)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return Load(**json.loads(done.stdout))


def load_with_wrk(url: str, picture: Path, *, concurrency: int, seconds: float) -> Load:
    """One thread of wrk, with so many connections."""
    script = picture.with_suffix(".lua")
    script.write_text(WRK_SCRIPT.replace("PICTURE", str(picture)))
    words = [
        "wrk",
        "-t1",
        f"-c{concurrency}",
        f"-d{max(1, round(seconds))}s",
        "--timeout",
        "30s",
        "-s",
        str(script),
        url,
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    per_s, p50, p99, failed = line.split()[1:]
    return Load(float(per_s), float(p50), float(p99), int(failed))


def loader_process() -> None:
    """The httpx loader's process: ``FOLDER URL PICTURE CONCURRENCY SECONDS``; prints a load as JSON."""
    url, picture, concurrency, seconds = sys.argv[2:6]
    found = asyncio.run(load_with_httpx(url, Path(picture).read_bytes(), int(concurrency), float(seconds)))
    sys.stdout.write(json.dumps(asdict(found)))


async def load_with_httpx(url: str, data: bytes, concurrency: int, seconds: float) -> Load:
    """So many clients that each send one picture after the other."""
    times: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal failed
        async with httpx.AsyncClient(timeout=30) as connection:
            while (start := time.perf_counter()) < end:
                answer = await connection.post(url, content=data, headers={"Content-Type": "image/jpeg"})
                failed += answer.status_code != 200
                times.append((time.perf_counter() - start) * 1000)

    await asyncio.gather(*[client() for _ in range(concurrency)])
    p50, p99 = np.percentile(times, [50, 99])
    return Load(len(times) / seconds, float(p50), float(p99), failed)


def show(result: dict[str, Any]) -> None:
    """A table for people, then the same as one line of JSON."""
    sys.stdout.write(f"{'':12}{'server':12}{'requests/s':>12}{'p50 ms':>10}{'p99 ms':>10}{'failed':>8}\n")
    for key, value in result.items():
        if not key.startswith("c") or not isinstance(value, dict):
            continue
        for name in ("keepsight", "plain"):
            row = value[name]
            figures = f"{row['per_s']:>12.1f}{row['p50_ms']:>10.1f}{row['p99_ms']:>10.1f}{row['failed']:>8}"
            sys.stdout.write(f"{key:12}{name:12}{figures}\n")
        sys.stdout.write(f"{key:12}ratio: {value['ratio_per_s']:.2f} x the requests, p99 {value['ratio_p99']:.2f} x\n")
    beside = result.get("import")
    if beside:
        for key, row in beside.items():
            if isinstance(row, dict):
                figures = f"{row['per_s']:>12.1f}{row['p50_ms']:>10.1f}{row['p99_ms']:>10.1f}{row['failed']:>8}"
                sys.stdout.write(f"{key + ' import':12}{'keepsight':12}{figures}\n")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
