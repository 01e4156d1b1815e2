"""The retrain pipeline: commit the labels, bring the features up to date, train, evaluate, gate, deploy.

The longest part of the evaluation, how the model bears spoiled pictures, comes after the release, unless the gate asks.

Each step reads what it needs from the run's row and the store, and leaves its effect under a key of the run: a version
number in the row, a model with the run's id, a deployment with the run's id, an alert named by the run. So a step that
runs a second time after a crash finds its work done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from keepsight.data import versions
from keepsight.delivery import deployments
from keepsight.errors import CancelledError, ConflictError, DataError, StorageError, TrainingError
from keepsight.loop import estimate, runs
from keepsight.loop.child import run_child
from keepsight.loop.workflow import Run, Step
from keepsight.monitoring import alerts
from keepsight.store.workspace import Workspace
from keepsight.training import recipes
from keepsight.training.gate import open_reasons

WORKFLOW = "retrain"
LIVE_TIMEOUT_S = 15.0
# How often it is written down how long a step has worked: so much is not counted at most when all is killed.
WORKED_EVERY_S = 2.0
RETRIES = 2
# Of the numerical libraries: a second one beside a busy server slows both down, and changes the last bits of a result.
# Pictures are looked at in a pool of threads of its own.
TRAINER_THREADS = 1
# How often a challenger is compared anew because another model went live between its gate and its release.
COMPARISONS = 3
# A trainer that was killed, or a disk that was full, may do better next time; wrong data does not.
PASSING = (StorageError, OSError, TrainingError)
# The leader's lease may have run out and been renewed while the trainer worked; it writes under the new one then.
FENCED = (*PASSING, ConflictError)


@dataclass(frozen=True)
class Pipeline:
    """The steps, bound to a workspace and to the lease under which their results may be written."""

    ws: Workspace
    fence: Callable[[], Mapping[str, Any]]

    def steps(self) -> list[Step]:
        """In order; ``engine.workflow(WORKFLOW, steps=...)`` declares them."""
        return [
            Step("version", self._step("version", self.version), retries=RETRIES),
            Step("features", self._step("features", self.features), retries=RETRIES, retry_on=PASSING),
            Step("train", self._step("train", self.train), retries=RETRIES, retry_on=FENCED),
            Step("evaluate", self._step("evaluate", self.evaluate), retries=RETRIES, retry_on=FENCED),
            Step("gate", self._step("gate", self.gate), retries=RETRIES, retry_on=PASSING),
            Step("deploy", self._step("deploy", self.deploy), retries=RETRIES),
            Step("robustness", self._step("robustness", self.robustness), retries=RETRIES, retry_on=FENCED),
        ]

    def _step(
        self, name: str, work: Callable[[Run, runs.RunRow], dict[str, Any]]
    ) -> Callable[[Run], Mapping[str, Any]]:
        def step(run: Run) -> Mapping[str, Any]:
            row = runs.get(self.ws, run.id)
            if row.status == "cancelled":
                raise _cancelled()
            began = self.ws.clock()
            runs.update(self.ws, run.id, step=name, progress=None)
            result = work(run, replace(row, step=name))
            runs.add_step(self.ws, run.id, name=name, began=began, ended=self.ws.clock())
            return result

        return step

    def version(self, run: Run, row: runs.RunRow) -> dict[str, Any]:
        """Commits what reviewers and imports left uncommitted; the version that the run works on."""
        if row.dataset_version is not None:
            return {"version": row.dataset_version}
        wanted = row.params.get("version")
        if wanted is None:
            recipe = row.params.get("recipe", self.ws.settings(row.project)["train.recipe"])
            empty = recipe == recipes.PRETRAINED
            versions.commit(self.ws, row.project, message=row.reason, author=row.actor, empty=empty)
        if wanted is None and not versions.log(self.ws, row.project):
            raise DataError(
                f"{row.project} has no pictures yet.",
                expected="labelled pictures.",
                do=f"Import some: `keepsight data import {row.project} PHOTOS/`.",
            )
        version = versions.get(self.ws, row.project, wanted or versions.LATEST)
        expected = estimate.of_run(self.ws, row.project, row.params).as_dict()
        runs.update(self.ws, run.id, dataset_version=version.number, params={**row.params, "estimate": expected})
        return {"version": version.number, "digest": version.digest}

    def features(self, run: Run, row: runs.RunRow) -> dict[str, Any]:
        """Computes the index vectors that are missing."""
        return self._child("keepsight.loop.work:prepare", run, row)

    def train(self, run: Run, row: runs.RunRow) -> dict[str, Any]:
        """Fits, evaluates and registers the challenger."""
        result = self._child("keepsight.loop.work:train", run, row)
        runs.update(self.ws, run.id, model_number=result["model_number"])
        return result

    def evaluate(self, run: Run, row: runs.RunRow) -> dict[str, Any]:
        """Finds out what the challenger can and cannot do."""
        return self._child("keepsight.loop.assessment:evaluate", run, row)

    def gate(self, run: Run, row: runs.RunRow) -> dict[str, Any]:
        """Compares the challenger with the champion on the same pictures."""
        result = self._child("keepsight.loop.comparison:compare", run, row)
        runs.update(self.ws, run.id, gate=result)
        return {"decision": result["decision"]}

    def deploy(self, run: Run, row: runs.RunRow) -> dict[str, Any]:
        """Promotes, or tells a person why not; compares again where another model went live meanwhile."""
        for _ in range(COMPARISONS - 1):
            try:
                return self._deploy(run, row)
            except ConflictError as error:
                if "compared_with" not in error.details:
                    raise
            self.gate(run, row)
            row = replace(runs.get(self.ws, run.id), step=row.step)
        return self._deploy(run, row)

    def _deploy(self, run: Run, row: runs.RunRow) -> dict[str, Any]:
        if row.gate is None or row.model_number is None:
            raise RuntimeError("the gate's result is missing")  # the steps before guarantee it
        decision = row.gate["decision"]
        if decision == "deploy" and not row.params.get("promote", True):
            return self._end(run, row, outcome="kept")
        if decision != "deploy":
            self._tell(run, row, decision)
            return self._end(run, row, outcome="ask" if decision == "ask" else "rejected")
        made = deployments.current(self.ws, row.project)
        if made is None or made.model_number != row.model_number:  # a person may have been quicker
            made = deployments.promote(
                self.ws,
                row.project,
                row.model_number,
                actor=row.actor,
                reason=row.reason,
                run_id=run.id,
            )
        alerts.close_kinds(self.ws, row.project, ("drift", "accuracy", "gate"), actor=row.actor)
        deployments.wait_live(self.ws, row.project, made.id, timeout_s=LIVE_TIMEOUT_S, stop=run.cancelled)
        return self._end(run, row, outcome="deployed")

    def robustness(self, run: Run, row: runs.RunRow) -> dict[str, Any]:
        """Finds out what the model bears; after the release, which need not wait for it unless the gate asks."""
        return self._child("keepsight.loop.assessment:disturb", run, row)

    def _tell(self, run: Run, row: runs.RunRow, decision: str) -> None:
        ask = decision == "ask"
        title = (
            f"Model {row.model_number} waits for your decision" if ask else f"Model {row.model_number} was not released"
        )
        alerts.raise_alert(
            self.ws,
            row.project,
            kind="gate",
            key=run.id,
            title=title,
            text=open_reasons(row.gate or {}),
            data={"run": run.id, "model": row.model_number, "decision": decision},
            trace_id=row.trace_id,
        )

    def _end(self, run: Run, row: runs.RunRow, *, outcome: str) -> dict[str, Any]:
        runs.update(self.ws, run.id, outcome=outcome)
        return {"outcome": outcome, "model_number": row.model_number}

    def _child(self, target: str, run: Run, row: runs.RunRow) -> dict[str, Any]:
        payload = {"root": str(self.ws.config.root), "run_id": run.id, "project": row.project, "lease": self.fence()}
        step = row.step or ""
        # What earlier attempts of this step worked before they were killed.
        before = float(((row.record or {}).get("worked_s") or {}).get(step, 0.0))
        began = told = time.monotonic()

        def worked() -> None:
            runs.add_worked(self.ws, run.id, step=step, seconds=before + time.monotonic() - began)

        def on_progress(progress: Mapping[str, Any]) -> None:
            nonlocal told
            runs.update(self.ws, run.id, progress=dict(progress))
            if time.monotonic() - told > WORKED_EVERY_S:
                told = time.monotonic()
                worked()

        try:
            return run_child(
                target,
                payload,
                cancel=run.cancelled,
                on_progress=on_progress,
                threads=TRAINER_THREADS,
                cores=int(self.ws.config["machine.threads"] or 0) or None,
            )
        finally:
            worked()


def _cancelled() -> CancelledError:
    return CancelledError(
        "The run was cancelled.", expected="a run that is wanted.", do="Start a new one when you want."
    )
