"""The ``gate`` step of a run, in a child process: challenger and champion answer the same held-out pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.loop.work import Job, Progress
from keepsight.runtime.bundle import Bundle
from keepsight.training import evaluation, gate, models


def compare(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Lets challenger and champion answer the same held-out pictures and passes the gate's checks."""
    job = Job.open(payload)
    ws, project = job.ws, job.run.project
    parts = job.parts(progress)
    if job.run.model_number is None:
        raise RuntimeError("the run has no model")  # the step before gave it one
    challenger = models.load_bundle(ws, models.get(ws, project, job.run.model_number))
    champion_model = models.champion(ws, project)
    champion = None if champion_model is None else models.load_bundle(ws, champion_model)

    def correct(bundle: Bundle | None, name: str) -> NDArray[np.bool_] | None:
        if bundle is None:
            return None
        found = evaluation.answers(ws, bundle, parts[name], backbone=job.backbone, progress=progress)
        return found.correct(parts[name].labels)

    latency_ms = None
    if job.settings["gate.max_latency_ms"] is not None:
        held_out = parts["test"] if len(parts["test"]) else parts["training"]
        latency_ms = evaluation.median_latency_ms(ws, challenger, held_out)
    result = gate.decide(
        challenger_test=correct(challenger, "test"),
        champion_test=correct(champion, "test"),
        challenger_recent=correct(challenger, "recent"),
        champion_recent=correct(champion, "recent"),
        test_groups=parts["test"].groups,
        recent_groups=parts["recent"].groups,
        trigger=job.run.trigger,
        margin=job.settings["gate.margin"],
        margin_drift=job.settings["gate.margin_drift"],
        min_accuracy=job.settings["gate.min_accuracy"],
        min_recall=job.settings["gate.min_recall"],
        max_latency_ms=job.settings["gate.max_latency_ms"],
        latency_ms=latency_ms,
        test_labels=parts["test"].labels,
    )
    return {
        **result.as_dict(),
        "champion": None if champion_model is None else champion_model.number,
        "challenger": job.run.model_number,
    }
