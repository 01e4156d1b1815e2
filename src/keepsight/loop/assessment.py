"""The ``evaluate`` step of a run, in a child process: what the challenger can and cannot do; and any model again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepsight.config import ProjectSettings, Value
from keepsight.data import vectors, versions
from keepsight.loop import runs
from keepsight.loop.faults import fault_point
from keepsight.loop.work import Job, Progress
from keepsight.store.workspace import Workspace
from keepsight.training import evaluation, material, models
from keepsight.training.assessment import store
from keepsight.training.assessment.assess import assess
from keepsight.training.assessment.robustness import robustness_card
from keepsight.training.models import Model
from keepsight.training.reports.content import Content


def evaluate(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Evaluates the run's challenger beyond its figures and keeps what was found beside the model."""
    job = Job.open(payload)
    if job.run.model_number is None:
        raise RuntimeError("the run has no model")  # the step before gave it one
    model = models.get(job.ws, job.run.project, job.run.model_number)
    progress({"text": "evaluating"})
    found = assess(
        job.ws,
        models.load_bundle(job.ws, model),
        job.parts(progress),
        backbone=job.backbone,
        seed=job.settings["train.seed"],
        metrics=model.metrics,
        robustness_pictures=0 if job.settings["gate.min_robustness"] is None else _pictures(job.settings),
        progress=progress,
    )
    fault_point("evaluate:found")
    job.check_lease()
    store.save(job.ws, model.project, model.number, found)
    return {"pictures": found["pictures"], "mistakes": len(found["mistakes"]), "slices": len(found["slices"])}


def disturb(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Adds the robustness card to the challenger's evaluation, where the gate did not need it before."""
    job = Job.open(payload)
    if job.run.model_number is None:
        raise RuntimeError("the run has no model")  # the steps before gave it one
    found = store.load(job.ws, job.run.project, job.run.model_number)
    if found is None or found["robustness"]:
        return {}
    bundle = models.load_bundle(job.ws, models.get(job.ws, job.run.project, job.run.model_number))
    card = robustness_card(
        job.ws,
        bundle,
        evaluation.answerable(job.parts(progress)["test"], bundle.info.labels),
        seed=job.settings["train.seed"],
        pictures=_pictures(job.settings),
        progress=progress,
    )
    job.check_lease()
    store.save(job.ws, job.run.project, job.run.model_number, {**found, "robustness": card})
    return {"pictures": card[0]["n"] if card else 0}


def _pictures(settings: ProjectSettings) -> int:
    return int(settings["evaluation.robustness_pictures"])


def evaluate_again(ws: Workspace, project: str, number: int | None, progress: Progress) -> dict[str, Any]:
    """Evaluates a model (None: the live one) on its own dataset version, keeps that and gives it.

    Pictures that were erased since are missing, so the slices may differ from the first time; the model's own figures
    stay what they were.

    Raises:
        NotFoundError: No such model. NotReadyError: None is live.
    """
    model = models.find(ws, project, number)
    settings = _settings(ws, model)
    backbone = vectors.backbone_of(ws, settings)
    version = model.dataset_version or versions.get(ws, project, versions.LATEST).number
    found = assess(
        ws,
        models.load_bundle(ws, model),
        material.load(ws, project, version, backbone, progress=progress, trains=False),
        backbone=backbone,
        seed=settings["train.seed"],
        metrics=model.metrics,
        robustness_pictures=_pictures(settings),
        progress=progress,
    )
    store.save(ws, project, model.number, found)
    return store.load(ws, project, model.number) or found


def content(ws: Workspace, project: str, number: int | None) -> Content:
    """What a report about a model (None: the live one) tells.

    Raises:
        NotFoundError: No such model. NotReadyError: None is live.
    """
    model = models.find(ws, project, number)
    run = None if model.run_id is None else runs.get(ws, model.run_id)
    return Content.gather(ws, model, run=None if run is None else run.as_dict())


def _settings(ws: Workspace, model: Model) -> ProjectSettings:
    """The settings that the model was trained with, or those of today where nothing recorded them."""
    recorded = None if model.run_id is None else (runs.get(ws, model.run_id).record or {}).get("settings")
    if recorded is None:
        return ws.settings(model.project)
    return ProjectSettings(model.project, {name: Value(value, "run") for name, value in recorded.items()})
