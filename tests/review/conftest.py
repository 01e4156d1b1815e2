"""A project with labelled pictures and events whose pictures wait to be taken in, on SQLite and on PostgreSQL."""

from __future__ import annotations

import base64
import io
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepsight.data import adding, samples
from keepsight.review import intake
from keepsight.store import schema
from keepsight.store.workspace import Workspace

LABELS = ("apple", "banana", "class 2", "class 10")
START = 1_800_000_000.0

Serve = Callable[..., str]


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def ws(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Workspace]:
    """A workspace with the project shop, which has one labelled picture of each class."""
    lines = ["projects: {shop: {task: classification}, other: {task: classification}}"]
    if request.param == "postgresql":
        lines.append(f"database: {request.getfixturevalue('migrated_database')}")
    (tmp_path / "keepsight.yaml").write_text("\n".join(lines))
    opened = Workspace.open(tmp_path, environment={}, clock=clock)
    items = [
        adding.NewSample(jpeg(n), f"{label}.jpg", value={"label": label}, split="train")
        for n, label in enumerate(LABELS)
    ]
    adding.add(opened, "shop", items, author="ana")
    opened.check_project("other")
    try:
        yield opened
    finally:
        opened.close()


def jpeg(number: int) -> bytes:
    rng = np.random.default_rng(number)
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def serve(ws: Workspace, clock: Clock) -> Serve:
    """``serve("audit", label=..., confidence=...)``: an event as serving writes it; gives its id."""
    count = iter(range(100, 1000))

    def make(
        selected_by: str | None,
        *,
        label: str = "apple",
        confidence: float = 0.4,
        picture: bytes | None = None,
        meta: dict[str, Any] | None = None,
        take_in: bool = True,
        project: str = "shop",
    ) -> str:
        data = jpeg(next(count)) if picture is None else picture
        sealed = ws.blobs.seal(data)
        event_id = uuid.uuid4().hex
        clock.now += 1
        row = {
            "id": event_id,
            "project_id": project,
            "at": clock.now,
            "model_number": 1,
            "bundle_digest": "0" * 64,
            "variant": "float",
            "prediction": {"label": label, "confidence": confidence, "alternatives": []},
            "label": label,
            "confidence": confidence,
            "decision": "review",
            "quality": {},
            "reasons": [],
            "features": None,
            "picture_id": None,
            "sealed": {
                "id": sealed.id,
                "location": sealed.location,
                "wrapped_key": base64.b64encode(sealed.wrapped_key).decode(),
                "size_bytes": sealed.size_bytes,
                "format": "jpeg",
                "width": 32,
                "height": 24,
            },
            "selected_by": selected_by,
            "probability": 0.05 if selected_by == "audit" else 1.0,
            "source": "till",
            "trace_id": uuid.uuid4().hex,
            "meta": meta or {},
            "latency_ms": 10.0,
        }
        with ws.database.write("events") as connection:
            connection.execute(schema.event.insert(), [row])
        if take_in:
            intake.run(ws)
        return event_id

    return make


@pytest.fixture
def make_jpeg() -> Callable[[int], bytes]:
    return jpeg


@pytest.fixture
def backbone_not_needed(ws: Workspace) -> Callable[[], None]:
    """Puts pending samples into `train`, so that a commit need not look at pictures."""

    def place() -> None:
        for sample in samples.current(ws, "shop"):
            if sample.split == "pending":
                with ws.database.write() as connection:
                    samples.move(connection, ws, "shop", sample.sample_id, "train", actor="test")

    return place
