"""The ``evaluate`` step of a run, in a child process: what the challenger can and cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepsight.loop.work import Job, Progress


def evaluate(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Evaluates the run's challenger beyond its figures and keeps what was found beside the model."""
    progress({"text": "evaluating"})
    Job.open(payload)
    return {}
