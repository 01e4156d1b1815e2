"""Replaying a run from its record: the same data, plan and seed must give the same model.

A head on a frozen backbone comes out byte for byte. A fine-tune mostly does too, on the same machine with the same
number of threads; libraries do not promise it, so there the figures must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepsight import tasks
from keepsight.errors import NotFoundError
from keepsight.loop import runs
from keepsight.loop.child import run_child
from keepsight.loop.pipeline import TRAINER_THREADS
from keepsight.store.workspace import Workspace
from keepsight.training import models

TARGET = "keepsight.loop.work:replay"
# Half a point of accuracy between two fine-tunes of one plan.
TOLERANCE = 0.005


def replay(ws: Workspace, project: str, number: int | None) -> dict[str, Any]:
    """Trains a model's run again without registering it, and compares.

    ``same`` says whether the digests agree; ``agrees`` whether the replay is as good as promised: the same digest, or,
    for a network that was trained, the task's headline figure within half a point. ``differences`` are replayed minus
    recorded.

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
    record = run.record or {}
    recorded = record.get("model_digest")
    if recorded is None:
        raise NotFoundError(
            f"The run of model {model.number} of {project} was cut off before its record was written.",
            expected="a run with a record.",
            do="Train again: `keepsight train`.",
        )
    payload = {"root": str(ws.config.root), "run_id": run.id}
    # As many cores as the run had: sums are made in another order by other numbers of threads.
    cores = int(ws.config["machine.threads"] or 0) or None
    result = run_child(
        TARGET, payload, cancel=lambda: False, on_progress=lambda _: None, threads=TRAINER_THREADS, cores=cores
    )
    same = result["model_digest"] == recorded
    differences = _differences(record.get("metrics", {}), result["metrics"])
    trained = record.get("frozen") is False
    headline = differences.get(tasks.get(ws.settings(project)["task"]).HEADLINE)
    close = headline is not None and abs(headline) <= TOLERANCE
    return {
        "project": project,
        "number": model.number,
        "same": same,
        "agrees": same or (trained and close),
        "differences": differences,
        "digest": result["model_digest"],
        "recorded": recorded,
        "metrics": result["metrics"],
    }


def _differences(recorded: Mapping[str, Any], replayed: Mapping[str, Any]) -> dict[str, float]:
    """Replayed minus recorded, for the figures that both have."""
    return {
        name: float(replayed[name]["value"]) - float(figure["value"])
        for name, figure in recorded.items()
        if isinstance(figure, Mapping) and figure.get("value") is not None and _has_value(replayed.get(name))
    }


def _has_value(figure: Any) -> bool:
    return isinstance(figure, Mapping) and figure.get("value") is not None
