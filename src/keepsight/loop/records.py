"""How runs, results and errors are written into the workflow database and read back from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keepsight.errors import KeepsightError, TrainingError
from keepsight.loop.wire import error_from_json, error_to_json
from keepsight.loop.workflow import RunState, RunStatus, StepStatus

if TYPE_CHECKING:
    from dbos import StepInfo, WorkflowStatus

_MAX_RESULT_BYTES = 64 * 1024
_STATES = {
    "DELAYED": RunState.QUEUED,
    "ENQUEUED": RunState.QUEUED,
    "PENDING": RunState.RUNNING,
    "SUCCESS": RunState.DONE,
    "ERROR": RunState.FAILED,
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": RunState.FAILED,
    "CANCELLED": RunState.CANCELLED,
}
UNFINISHED = ["DELAYED", "ENQUEUED", "PENDING"]


class StepFailed(Exception):  # noqa: N818 -- never seen by a user: it carries a KeepsightError into the database
    """A KeepsightError on its way into the database; DBOS stores the attribute ``data`` as JSON."""

    def __init__(self, error: KeepsightError) -> None:
        super().__init__(str(error))
        self.data = json.loads(json.dumps(error_to_json(error), default=str))


def json_dict(value: Mapping[str, Any], *, what: str) -> dict[str, Any]:
    """``value`` as it comes back from the database, so that a step sees the same before and after a restart."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a dict, got {type(value).__name__}")
    text = json.dumps(dict(value), allow_nan=False)
    if len(text) > _MAX_RESULT_BYTES:
        raise ValueError(f"{what} has {len(text)} bytes; at most {_MAX_RESULT_BYTES} belong here, data in the store")
    plain: dict[str, Any] = json.loads(text)
    return plain


def run_status(found: WorkflowStatus, steps: Sequence[StepInfo], *, active: bool) -> RunStatus:
    """The run as our own value, from DBOS's row and its recorded steps."""
    arguments = found.input["args"] if found.input else ()
    return RunStatus(
        id=found.workflow_id,
        workflow=found.name,
        state=_STATES[found.status],
        args=arguments[1] if len(arguments) > 1 else {},
        steps=tuple(
            StepStatus(
                name=info["function_name"],
                started_ms=info["started_at_epoch_ms"] or 0,
                ended_ms=info["completed_at_epoch_ms"] or 0,
                result=info["output"],
            )
            for info in steps
        ),
        stop=found.output["stop"] if isinstance(found.output, dict) else None,
        error=_error_of(found),
        executor_id=found.executor_id or "",
        application_version=found.app_version or "",
        attempts=found.recovery_attempts or 0,
        created_ms=found.created_at or 0,
        updated_ms=found.updated_at or 0,
        active=active,
    )


def _error_of(found: WorkflowStatus) -> KeepsightError | None:
    if found.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        return TrainingError(
            f"The run was interrupted {found.recovery_attempts} times, so it is not restarted by itself any more.",
            expected="a run that ends, or a process that lives long enough for one step.",
            do="See in the log why the process died (mostly too little memory), then resume the run.",
        )
    if found.error is None:
        return None
    data = getattr(found.error, "data", None)
    if isinstance(data, dict) and "found" in data:
        return error_from_json(data)
    return TrainingError(
        f"A step stopped with {getattr(found.error, 'name', type(found.error).__name__)}: {found.error}",
        expected="a step that ends with a result.",
        do="This is a fault in the program; the log has its traceback. Resume the run once the cause is gone.",
    )
