"""What a run will take, before it starts: a range, and what the range rests on.

Earlier runs of the same recipe on this workspace's machine say it best: their time per picture, times the pictures of
now. Before the first one a look at the machine has to do: how fast it runs the backbone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keepsight import tasks
from keepsight.data import samples, vectors
from keepsight.loop import runs, spending
from keepsight.store.workspace import Workspace
from keepsight.training.material import JUDGING, TRAINING

EARLIER_RUNS = 5
# Where earlier runs agree to the second, the machine may still be busier next time.
LEAST_SPREAD = 1.3
# Without an earlier run: how far the first guess may be off, either way.
FIRST_SPREAD = 3.0
# Starting three trainer processes, loading libraries, writing a bundle.
START_S = 8.0
# A linear head: seconds per picture and class, on the slowest machine that it was tried on.
HEAD_S = 4e-5
QUICK = "head"


@dataclass(frozen=True)
class Estimate:
    """Seconds and euro of a run: the expected value with the range it should fall in; ``basis`` says why."""

    seconds: Mapping[str, float]
    cost_eur: Mapping[str, float]
    basis: str

    def as_dict(self) -> dict[str, Any]:
        """For a run's parameters."""
        return {"seconds": dict(self.seconds), "cost_eur": dict(self.cost_eur), "basis": self.basis}


def of_run(ws: Workspace, project: str, params: Mapping[str, Any]) -> Estimate:
    """What a run with these parameters would take if it started now; at most what it may take."""
    settings = ws.settings(project)
    recipe = str(params.get("recipe", settings["train.recipe"]))
    allowed_s = spending.seconds_of_run(ws, project, settings, params)
    rows = [row for row in samples.current(ws, project) if row.value is not None]
    pictures = [row for row in rows if row.split in (*TRAINING, *JUDGING)]
    earlier = _earlier(ws, project, recipe, len(pictures))
    if earlier:
        seconds = statistics.median(earlier)
        spread = max(LEAST_SPREAD, max(earlier) / seconds, seconds / min(earlier))
        basis = f"{len(earlier)} earlier run{'s' if len(earlier) > 1 else ''}"
    else:
        backbone = vectors.backbone_of(ws, settings)
        missing = len(pictures) - int(
            vectors.load(ws, [row.picture_id for row in pictures], backbone).present.sum() if pictures else 0
        )
        task = tasks.get(settings["task"])
        classes = len({name for row in pictures for name in task.classes(row.value or {})})
        seconds = START_S + missing * _embedding_s(backbone) + HEAD_S * len(pictures) * classes
        # A recipe that trains the network takes what it is given.
        seconds = seconds if recipe == QUICK else max(seconds, allowed_s)
        spread, basis = FIRST_SPREAD, "the speed of this machine"
    low, value, high = (min(allowed_s, found) for found in (seconds / spread, seconds, seconds * spread))
    if recipe != QUICK:
        high = allowed_s
    return Estimate(
        seconds={"value": value, "low": low, "high": high},
        cost_eur={
            name: spending.cost_eur(ws, found) for name, found in (("value", value), ("low", low), ("high", high))
        },
        basis=basis,
    )


def _earlier(ws: Workspace, project: str, recipe: str, pictures: int) -> list[float]:
    """What the last runs that ended well with this recipe would have taken for so many pictures."""
    found = []
    for row in runs.list_runs(ws, project):
        record = row.record or {}
        count = sum((record.get("pictures") or {}).values())
        worked_s = spending.worked_s(record)
        if row.status == "done" and record.get("recipe") == recipe and count and worked_s:
            # Starting takes its time whatever the number of pictures; at most half of a short run.
            fixed_s = min(START_S, worked_s / 2)
            found.append(fixed_s + (worked_s - fixed_s) * pictures / count)
    return found[:EARLIER_RUNS]


def _embedding_s(backbone: Any) -> float:
    """Seconds for one picture on one thread, decoding left out: the median of a few."""
    from keepsight.runtime.predictor import embed
    from keepsight.runtime.session import open_session

    session = open_session(backbone.onnx)
    size = backbone.preprocessing.size
    blank = np.zeros((1, 3, size, size), np.float32)
    taken = []
    for _ in range(6):
        began = time.perf_counter()
        embed(session, blank)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])
