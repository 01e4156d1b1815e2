"""The steps of a run that work on pictures; each is the target of a child process (see ``keepsight.loop.child``).

Nothing here decides: the pipeline does. What a step leaves behind (vectors, a registered challenger) is keyed so that a
second run of the step finds it, and it is written only while the leader that started the step still leads.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import keepsight
from keepsight import tasks
from keepsight.config import ProjectSettings, Value
from keepsight.data import vectors, versions
from keepsight.loop import runs
from keepsight.loop.faults import fault_point
from keepsight.monitoring.reference import MINIMUM_PICTURES, Figures, Reference
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BackboneInfo, BundleInfo
from keepsight.runtime.quality import Quality, QualityLimits
from keepsight.store import leases
from keepsight.store.workspace import Workspace
from keepsight.training import evaluation, gate, material, models, recipes
from keepsight.training.calibration import NOTHING_PASSES, auto_threshold
from keepsight.training.material import Part
from keepsight.zoo.backbone import Backbone

Progress = Callable[[Mapping[str, Any]], None]

# Where this many held-out pictures of the newest conditions exist, drift is measured against them alone.
ENOUGH_RECENT = 40


@dataclass(frozen=True)
class Job:
    """What every step of a run needs, opened from its payload."""

    ws: Workspace
    run: runs.RunRow
    settings: ProjectSettings
    backbone: Backbone
    lease: Mapping[str, Any]

    @classmethod
    def open(cls, payload: Mapping[str, Any]) -> Job:
        """Opens the workspace and what the run works with; a run that is replayed keeps its recorded settings."""
        ws = Workspace.open(Path(payload["root"]))
        run = runs.get(ws, payload["run_id"])
        settings = ws.settings(run.project)
        recorded = (run.record or {}).get("settings")
        if recorded is not None:
            settings = ProjectSettings(run.project, {name: Value(value, "run") for name, value in recorded.items()})
        return cls(ws, run, settings, vectors.backbone_of(ws, settings), payload.get("lease", {}))

    def check_lease(self) -> None:
        """Makes sure that the leader that started this step still leads; a late writer is turned away.

        Raises:
            ConflictError: Another leader took over.
        """
        leases.check(self.ws.database, **self.lease, now=self.ws.clock())

    def parts(self, progress: Progress) -> dict[str, Part]:
        """The pictures of the run's dataset version."""
        number = self.run.dataset_version
        if number is None:
            raise RuntimeError("the run has no dataset version")  # the first step gave it one
        return material.load(self.ws, self.run.project, number, self.backbone, progress=progress)


def prepare(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Computes the index vectors that are missing; counts the pictures by split."""
    job = Job.open(payload)
    parts = job.parts(progress)
    return {name: len(part) for name, part in parts.items()}


def train(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Trains, evaluates on the test split and registers the challenger."""
    job = Job.open(payload)
    began = time.monotonic()
    made, record = build(job, progress)
    fault_point("train:trained")
    job.check_lease()
    model = models.register(
        job.ws,
        job.run.project,
        made,
        run_id=job.run.id,
        dataset_version=job.run.dataset_version,
        metrics=dict(made.info.metrics),
        actor=job.run.actor,
    )
    # Where an attempt before this one registered the model, the record names that bundle: same network, other date.
    record["bundle_digest"] = model.bundle_digest
    runs.add_record(job.ws, job.run.id, {**record, "train_s": time.monotonic() - began})
    fault_point("train:registered")
    return {"model_number": model.number, "model_digest": record["model_digest"]}


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


def replay(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Trains the run again and registers nothing; the digest of the network that came out."""
    _, record = build(Job.open(payload), progress)
    return {"model_digest": record["model_digest"], "metrics": record["metrics"]}


def build(job: Job, progress: Progress) -> tuple[Bundle, dict[str, Any]]:
    """The bundle that a run makes, and its record: everything that replaying it needs."""
    parts = job.parts(progress)
    training, test = parts["training"], parts["test"]
    names = tuple(sorted(set(training.labels)))
    places = {name: place for place, name in enumerate(names)}
    labels = np.array([places[label] for label in training.labels], np.int64)
    recipe_name = job.run.params.get("recipe", job.settings["train.recipe"])
    seed = job.settings["train.seed"]
    progress({"text": "training"})
    trained = recipes.get(job.settings["task"], recipe_name)(
        recipes.Material(
            backbone=job.backbone,
            features=training.features,
            labels=labels,
            groups=training.groups,
            names=names,
            seed=seed,
            progress=progress,
        )
    )
    held_out = trained.probabilities[trained.judged]
    threshold = auto_threshold(
        held_out.max(axis=1),
        held_out.argmax(axis=1) == labels[trained.judged],
        target_accuracy=job.settings["review.target_accuracy"],
        groups=training.groups[trained.judged],
    )
    version = versions.get(job.ws, job.run.project, job.run.dataset_version or versions.LATEST)
    info = BundleInfo(
        task=job.settings["task"],
        labels=names,
        preprocessing=job.backbone.preprocessing,
        created_at=datetime.fromtimestamp(job.ws.clock(), UTC).isoformat(),
        temperature=trained.temperature,
        thresholds={"auto": threshold},
        quality_limits=QualityLimits.from_pictures(_qualities(training)),
        dataset_version=f"{job.run.project}@{version.number}",
        dataset_digest=version.digest,
        backbone=BackboneInfo(job.backbone.name, job.backbone.digest, job.backbone.licences[0]),
        licences=job.backbone.licences,
        run_id=job.run.id,
        extra={"frozen_backbone": recipe_name == "head", "recipe": recipe_name},
    )
    draft = Bundle.create(info, model=trained.model)
    metrics = _metrics(job, draft, test, progress)
    reference = _reference(job, draft, parts, trained, progress)
    made = Bundle.create(
        replace(info, metrics=metrics),
        model=trained.model,
        references={} if reference is None else {"float": reference.to_arrays()},
    )
    record = {
        "recipe": recipe_name,
        "plan": trained.plan,
        "seed": seed,
        "settings": job.settings.as_dict(),
        "out_of_fold": trained.figures,
        "answers_by_itself": threshold < NOTHING_PASSES,
        "metrics": metrics,
        "dataset": {"version": version.number, "digest": version.digest},
        "backbone": {"name": job.backbone.name, "digest": job.backbone.digest},
        "pictures": {name: len(part) for name, part in parts.items()},
        "model_digest": hashlib.sha256(trained.model).hexdigest(),
        "bundle_digest": made.digest,
        "environment": environment(),
    }
    return made, record


def environment() -> dict[str, Any]:
    """What the result depends on besides data, settings and seed."""
    return {
        "keepsight": keepsight.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        **{name: importlib.metadata.version(name) for name in ("numpy", "scipy", "onnx", "onnxruntime")},
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def _qualities(part: Part) -> list[Quality]:
    return [
        Quality(float(blur), float(brightness), float(contrast), width=int(side), height=int(side))
        for (blur, brightness, contrast), side in zip(part.quality, part.sides, strict=True)
    ]


def _metrics(job: Job, bundle: Bundle, test: Part, progress: Progress) -> dict[str, Any]:
    """The task's figures on the test split, which is read here and in the gate and nowhere else."""
    known = set(bundle.info.labels)
    kept = [place for place, label in enumerate(test.labels) if label in known]
    if not kept:
        return {}
    part = test.take(np.array(kept))
    found = evaluation.answers(job.ws, bundle, part, backbone=job.backbone, progress=progress)
    figures: dict[str, Any] = (
        tasks.get(bundle.info.task)
        .evaluate(
            evaluation.probabilities(found, bundle.info.labels),
            np.array([bundle.info.labels.index(label) for label in part.labels], np.int64),
            names=bundle.info.labels,
            groups=part.groups,
            seed=job.settings["train.seed"],
        )
        .as_dict()
    )
    return figures


def _reference(
    job: Job,
    bundle: Bundle,
    parts: Mapping[str, Part],
    trained: recipes.Trained,
    progress: Progress,
) -> Reference | None:
    """What the drift alarm compares with: held-out pictures, those of the newest conditions where there are enough."""
    recent, test = parts["recent"], parts["test"]
    held_out = recent if len(recent) >= ENOUGH_RECENT else Part.join(test, recent)
    judged = np.flatnonzero(trained.judged)
    if min(len(held_out), len(judged)) < MINIMUM_PICTURES:
        return None
    found = evaluation.answers(job.ws, bundle, held_out, backbone=job.backbone, progress=progress)
    shares = evaluation.probabilities(found, bundle.info.labels)
    return Reference.build(
        _figures(parts["training"].take(judged), trained.probabilities[judged]),
        _figures(held_out, shares),
        classes=len(bundle.info.labels),
        seed=job.settings["train.seed"],
        keys=held_out.keys,
    )


def _figures(part: Part, shares: NDArray[np.float64]) -> Figures:
    return Figures(
        features=part.features, quality=part.quality, confidence=shares.max(axis=1), predicted=shares.argmax(axis=1)
    )
