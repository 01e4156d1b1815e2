"""How long a large gallery takes to search, and how soon somebody who is enrolled is known while requests run.

Two parts, both with random pictures and vectors, so that the figures are about time alone:

1. 100,000 names with vectors of 1,280 numbers (whole pictures) and of 128 (faces), searched one by one on one core:
   every row compared exactly by numpy, and with the index of the extra [ann] (8-bit copies in faiss, the best compared
   exactly). Prints both and their ratio, and how often both name the same one first.
2. A server with 1,000 names. While pictures are answered without a pause, further ones are enrolled by REST; the time
   runs from the request to the first answer that gives the new name.

    python bench/gallery.py [--names 100000] [--enrolments 20]
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import httpx  # noqa: E402 - numpy reads the number of its threads when it is imported
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from keepsight.runtime.outputs.recognition.calibration import Calibration  # noqa: E402
from keepsight.runtime.outputs.recognition.gallery import Entry, Gallery  # noqa: E402
from keepsight.serving.shortlist import Quantised  # noqa: E402

QUERIES = 40
PORT = 8597
SETTINGS = """projects:
  parts:
    task: recognition
    review: {min_confidence: 0.0, audit_share: 0.0}
"""


def search(names: int, dim: int) -> None:
    """Part 1 for one length of vectors."""
    random = np.random.default_rng(0)
    gallery = Gallery(dim, Calibration(false_accepts=0.01, usual=0.5))
    began = time.perf_counter()
    for start in range(0, names, 5000):
        vectors = random.standard_normal((min(5000, names - start), dim), np.float32)
        gallery.put([Entry(f"n{start + at}", f"s{start + at}", vector) for at, vector in enumerate(vectors)])
    filled_s = time.perf_counter() - began
    centres = gallery.centres()
    queries = centres[random.integers(0, names, QUERIES)] + random.standard_normal((QUERIES, dim), np.float32) * 0.02
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    exact_ms, exact = timed(gallery, queries)
    began = time.perf_counter()
    gallery.use(Quantised(centres), made_of=centres)
    built_s = time.perf_counter() - began
    quick_ms, quick = timed(gallery, queries)
    same = sum(one == other for one, other in zip(exact, quick, strict=True))
    print(f"{names:,} names of {dim} numbers, one core (filled in {filled_s:.1f} s, index made in {built_s:.1f} s):")
    print(f"  every row, numpy   median {exact_ms:6.1f} ms")
    print(
        f"  with the index     median {quick_ms:6.1f} ms   ratio {exact_ms / quick_ms:.1f}, "
        f"same first: {same}/{QUERIES}"
    )


def timed(gallery: Gallery, queries: np.ndarray) -> tuple[float, list[str]]:
    """Median milliseconds of one search, and who came first."""
    gallery.search(queries[0], top=5)
    taken, first = [], []
    for query in queries:
        began = time.perf_counter()
        first.append(gallery.search(query, top=5)[0].name)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken), first


def picture(seed: int) -> bytes:
    """A JPEG that looks like no other: coarse random blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(blocks).resize((320, 320), Image.Resampling.NEAREST).save(out, "JPEG", quality=88)
    return out.getvalue()


def enrol(classes: int, enrolments: int) -> None:
    """Part 2."""
    with tempfile.TemporaryDirectory(prefix="keepsight-bench-") as folder:
        root = Path(folder)
        (root / "keepsight.yaml").write_text(SETTINGS)
        photos = root / "photos"
        for number in range(classes):
            place = photos / f"part-{number:04}"
            place.mkdir(parents=True)
            (place / "1.jpg").write_bytes(picture(number))
        keepsight = [sys.executable, "-m", "keepsight"]
        for command in (
            ["data", "import", "parts", str(photos), "--split", "train"],
            ["train", "parts", "--recipe", "gallery"],
        ):
            subprocess.run(
                [*keepsight, *command], cwd=root, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        server = subprocess.Popen(
            [*keepsight, "up", "--port", str(PORT)], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            measure(classes, enrolments)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)


def measure(classes: int, enrolments: int) -> None:
    """Enrols one after the other against a running server that answers other pictures all the while."""
    url = f"http://127.0.0.1:{PORT}"
    with httpx.Client(base_url=url, timeout=30) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        known = len(client.get("/v1/parts/gallery").json()["people"])
        stop = threading.Event()
        quiet = answering(url, stop, for_s=5.0)
        stop.clear()
        busy: list[float] = []
        worker = threading.Thread(target=lambda: busy.extend(answering(url, stop)), daemon=True)
        worker.start()
        answered, live = [], []
        for number in range(enrolments):
            data = picture(classes + 1000 + number)
            name = f"new-{number:04}"
            began = time.perf_counter()
            client.post("/v1/parts/gallery", params={"name": name}, content=data).raise_for_status()
            answered.append((time.perf_counter() - began) * 1000)
            while client.post("/v1/parts/predict", content=data).json()["label"] != name:
                pass
            live.append((time.perf_counter() - began) * 1000)
        stop.set()
        worker.join()
    print(f"{known:,} names served; {enrolments} more enrolled while {len(busy)} other pictures were answered:")
    print(f"  request to its answer    median {statistics.median(answered):5.0f} ms, longest {max(answered):5.0f} ms")
    print(f"  request to a live answer median {statistics.median(live):5.0f} ms, longest {max(live):5.0f} ms")
    print(
        f"  other answers: alone median {statistics.median(quiet):.1f} ms, longest {max(quiet):.0f} ms; "
        f"meanwhile median {statistics.median(busy):.1f} ms, longest {max(busy):.0f} ms"
    )


def answering(url: str, stop: threading.Event, *, for_s: float = 600.0) -> list[float]:
    """Milliseconds of each answer to pictures that are sent one after the other."""
    taken = []
    data = picture(0)
    end = time.perf_counter() + for_s
    with httpx.Client(base_url=url, timeout=30) as client:
        while not stop.is_set() and time.perf_counter() < end:
            began = time.perf_counter()
            client.post("/v1/parts/predict", content=data).raise_for_status()
            taken.append((time.perf_counter() - began) * 1000)
    return taken


def until(ready: object) -> None:
    """Waits until a call gives True."""
    for _ in range(600):
        try:
            if ready():  # type: ignore[operator]
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not come up")


def main() -> None:
    """Runs both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--enrolments", type=int, default=20)
    options = parser.parse_args()
    for dim in (1280, 128):
        search(options.names, dim)
    enrol(options.classes, options.enrolments)


if __name__ == "__main__":
    main()
