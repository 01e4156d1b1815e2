"""What a durable run is made of: its steps, what a step is told, and where the run stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from keepsight.errors import KeepsightError, StorageError

StopReason = Literal["cancelled", "shutdown"]


class RunState(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Run:
    """What a step is told about the run that it belongs to.

    Args:
        id: The workflow id that the run was started with.
        args: What it was started with.
        results: What the steps before answered, by step name.
        stop_reason: Why the step should end early, or None: "cancelled" (by a person; the run is over) or "shutdown"
            (this process ends; the step runs again at the next start, so nothing may be marked as cancelled).
    """

    id: str
    args: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Any]]
    stop_reason: Callable[[], StopReason | None]

    def cancelled(self) -> bool:
        """Whether the step should end early; long steps ask a few times a second and raise CancelledError."""
        return self.stop_reason() is not None


@dataclass(frozen=True)
class Step:
    """One step of a workflow.

    Args:
        name: Unique in its workflow; renaming, adding or reordering steps needs a new ``application_version``.
        fn: Does the work and answers a JSON dict of at most 64 KiB (ids and figures; data belongs in the store). The
            key "stop" ends the workflow after this step; its value says why.
        retries: How often a failure listed in ``retry_on`` is tried again, after ``retry_wait_s`` seconds doubled each
            time.
    """

    name: str
    fn: Callable[[Run], Mapping[str, Any]]
    retries: int = 0
    retry_wait_s: float = 1.0
    retry_on: tuple[type[Exception], ...] = (StorageError, OSError)


@dataclass(frozen=True)
class StepStatus:
    """A step that ended: its result, or None where it failed. Times are epoch milliseconds."""

    name: str
    started_ms: int
    ended_ms: int
    result: Mapping[str, Any] | None


@dataclass(frozen=True)
class RunStatus:
    """A run as the database knows it.

    ``active`` says that a thread of this process is inside the run, which a cancelled run still is until its step has
    noticed. ``stop`` is the reason with which a step ended the run early. Times are epoch milliseconds.
    """

    id: str
    workflow: str
    state: RunState
    args: Mapping[str, Any]
    steps: tuple[StepStatus, ...]
    stop: Any
    error: KeepsightError | None
    executor_id: str
    application_version: str
    attempts: int
    created_ms: int
    updated_ms: int
    active: bool

    @property
    def finished(self) -> bool:
        """Whether the run is done, failed or cancelled."""
        return self.state in (RunState.DONE, RunState.FAILED, RunState.CANCELLED)

    @property
    def results(self) -> dict[str, Mapping[str, Any]]:
        """What the steps that ended well answered, by step name."""
        return {step.name: step.result for step in self.steps if step.result is not None}
