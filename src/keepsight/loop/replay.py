"""Replaying a run from its record: the same data, settings and seed must give the same network, byte for byte."""

from __future__ import annotations

from typing import Any

from keepsight.errors import NotFoundError
from keepsight.loop import runs
from keepsight.loop.child import run_child
from keepsight.loop.pipeline import TRAINER_THREADS
from keepsight.store.workspace import Workspace
from keepsight.training import models

TARGET = "keepsight.loop.work:replay"


def replay(ws: Workspace, project: str, number: int | None) -> dict[str, Any]:
    """Trains a model's run again without registering it; ``same`` says whether the digests agree.

    Raises:
        NotFoundError: The model came from no run, or from one without a record.
        NotReadyError: None is live and no number was given.
    """
    model = models.find(ws, project, number)
    if model.run_id is None:
        raise NotFoundError(
            f"Model {model.number} of {project} came from no run.", expected="a model trained here.", do="Nothing."
        )
    run = runs.get(ws, model.run_id)
    recorded = (run.record or {}).get("model_digest")
    if recorded is None:
        raise NotFoundError(
            f"The run of model {model.number} of {project} was cut off before its record was written.",
            expected="a run with a record.",
            do="Train again: `keepsight train`.",
        )
    payload = {"root": str(ws.config.root), "run_id": run.id}
    result = run_child(TARGET, payload, cancel=lambda: False, on_progress=lambda _: None, threads=TRAINER_THREADS)
    return {
        "project": project,
        "number": model.number,
        "same": result["model_digest"] == recorded,
        "digest": result["model_digest"],
        "recorded": recorded,
        "metrics": result["metrics"],
    }
