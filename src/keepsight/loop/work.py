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
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import keepsight
from keepsight import executors, tasks
from keepsight.config import TABLE, ProjectSettings, Value
from keepsight.data import vectors, versions
from keepsight.loop import checkpoints, runs, scratch, spending
from keepsight.loop.faults import fault_point
from keepsight.monitoring.reference import MINIMUM_PICTURES, Figures, Reference
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BackboneInfo, BundleInfo
from keepsight.runtime.outputs import output_module
from keepsight.runtime.quality import Quality, QualityLimits
from keepsight.store import leases
from keepsight.store.workspace import Workspace
from keepsight.training import evaluation, material, models, quantise, recipes
from keepsight.training.budget import Budget
from keepsight.training.calibration import NOTHING_PASSES, auto_threshold
from keepsight.training.material import Part
from keepsight.zoo.backbone import Backbone

Progress = Callable[[Mapping[str, Any]], None]

# Where this many held-out pictures of the newest conditions exist, drift is measured against them alone.
ENOUGH_RECENT = 40
# So many training pictures teach the drift alarm of an 8-bit network what is ordinary.
REFERENCE_PICTURES = 600


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
            # What an older version recorded lacks the settings that came later.
            known = {row.name: Value(row.default, "default") for row in TABLE if row.scope == "project"}
            known |= {name: Value(value, "run") for name, value in recorded.items()}
            settings = ProjectSettings(run.project, known)
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
        return material.load(
            self.ws, self.run.project, number, self.backbone, progress=progress, trains=not self.pretrained
        )

    @property
    def recipe(self) -> str:
        """The recipe's name; a run that is replayed follows its plan, whatever recipe it was asked with."""
        plan = (self.run.record or {}).get("plan")
        return str(plan["recipe"] if plan else self.run.params.get("recipe", self.settings["train.recipe"]))

    @property
    def pretrained(self) -> bool:
        """Whether the model is taken as it is, so that nothing needs to be there to learn from."""
        return self.recipe == recipes.PRETRAINED

    def budget(self) -> Budget:
        """What is left of the run's time and money."""
        total_s = spending.seconds_of_run(self.ws, self.run.project, self.settings, self.run.params)
        return Budget(total_s, used_s=spending.worked_s(self.run.record))


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


def replay(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Trains the run again and registers nothing; the digest of the network that came out."""
    job = Job.open(payload)
    try:
        _, record = build(job, progress)
    finally:
        scratch.remove(job.ws, job.run.id)
    return {"model_digest": record["model_digest"], "metrics": record["metrics"]}


def build(job: Job, progress: Progress) -> tuple[Bundle, dict[str, Any]]:
    """The bundle that a run makes, and its record: everything that replaying it needs."""
    parts = job.parts(progress)
    hashes: list[str] = []
    if job.settings[checkpoints.SETTING] is not None:
        ordered, hashes = checkpoints.in_order(
            parts["training"], lambda picture_id: evaluation.stored(job.ws, picture_id), progress=progress
        )
        parts = {**parts, "training": ordered}
    training, test = parts["training"], parts["test"]
    names = tuple(sorted({name for names in training.classes for name in names}))
    places = {name: place for place, name in enumerate(names)}
    plan = (job.run.record or {}).get("plan")
    seed = job.settings["train.seed"]
    progress({"text": "training"})
    scratch.made_from(job.ws, job.run.id, [sample.picture_id for sample in training.samples])
    recipe = recipes.get(job.settings["task"], job.recipe)
    given = recipes.Material(
        task=job.settings["task"],
        backbone=job.backbone,
        values=training.values,
        sizes=training.sizes,
        features=training.features,
        labels=np.array([places[found[0]] if found else -1 for found in training.classes], np.int64),
        groups=training.groups,
        validation=np.array([sample.split == "val" for sample in training.samples], np.bool_),
        names=names,
        read=lambda place: evaluation.stored(job.ws, training.samples[place].picture_id),
        settings=job.settings,
        seed=seed,
        budget=job.budget(),
        folder=scratch.folder(job.ws, job.run.id),
        plan=plan,
        progress=progress,
        executor=partial(executors.of, job.ws.config) if job.ws.config["executor"] != "local" else None,
        keys=training.keys,
    )
    with _travelling(job, given, training, hashes):
        trained = recipe(given)
    held_out = trained.held_out
    threshold = auto_threshold(
        held_out.confidence[held_out.judged],
        held_out.right[held_out.judged],
        target_accuracy=job.settings["review.target_accuracy"],
        groups=training.groups[held_out.judged],
    )
    version = versions.get(job.ws, job.run.project, job.run.dataset_version or versions.LATEST)
    info = BundleInfo(
        task=job.settings["task"],
        labels=names if trained.labels is None else trained.labels,
        preprocessing=trained.preprocessing or job.backbone.preprocessing,
        created_at=datetime.fromtimestamp(job.ws.clock(), UTC).isoformat(),
        temperature=trained.temperature,
        thresholds={**trained.thresholds, "auto": threshold},
        quality_limits=QualityLimits.from_pictures(_qualities(training)),
        dataset_version=f"{job.run.project}@{version.number}",
        dataset_digest=version.digest,
        backbone=BackboneInfo(job.backbone.name, job.backbone.digest, job.backbone.licences[0])
        if trained.from_backbone
        else None,
        licences=job.backbone.licences if trained.licences is None else trained.licences,
        run_id=job.run.id,
        extra={**trained.extra, "frozen_backbone": trained.frozen, "recipe": trained.plan["recipe"]},
    )
    int8_model = _int8(job, trained, training, info, progress)
    draft = Bundle.create(info, model=trained.model, int8_model=int8_model, parts=trained.parts)
    known = evaluation.answerable(test, info.labels)
    answered = evaluation.answers(job.ws, draft, known, backbone=job.backbone, progress=progress)
    metrics = figures_of(job, info, known, answered)
    references = {
        variant: reference.to_arrays()
        for variant in draft.variants
        if (reference := _reference(job, draft, parts, trained, progress, variant=variant)) is not None
    }
    made = Bundle.create(
        replace(info, metrics=metrics),
        model=trained.model,
        int8_model=int8_model,
        references=references,
        parts=trained.parts,
    )
    record = {
        "recipe": trained.plan["recipe"],
        "frozen": trained.frozen,
        "headline": tasks.get(info.task).HEADLINE,
        "plan": trained.plan,
        "seed": seed,
        "settings": job.settings.as_dict(),
        "out_of_fold": trained.figures,
        "answers_by_itself": threshold < NOTHING_PASSES,
        "metrics": metrics,
        "dataset": {"version": version.number, "digest": version.digest},
        "backbone": {"name": job.backbone.name, "digest": job.backbone.digest},
        "pictures": {name: len(part) for name, part in parts.items()},
        "model_digest": _digest(trained),
        "int8_digest": None if int8_model is None else hashlib.sha256(int8_model).hexdigest(),
        "bundle_digest": made.digest,
        "environment": environment(),
    }
    return made, record


def _travelling(
    job: Job, material_: recipes.Material, training: Part, hashes: list[str]
) -> AbstractContextManager[None]:
    """Checkpoints that travel, where the project wants them; a replay begins at its start."""
    url = job.settings[checkpoints.SETTING]
    if url is None or material_.plan is not None:
        return nullcontext()
    key = checkpoints.key_of(
        training,
        hashes,
        project=job.run.project,
        settings=job.settings,
        params=job.run.params,
        backbone_digest=job.backbone.digest,
    )
    return checkpoints.travelling(
        str(url),
        root=job.ws.config.root,
        project=job.run.project,
        key=key,
        folder=material_.folder,
        budget=material_.budget,
    )


def _digest(trained: recipes.Trained) -> str:
    """Names what was trained: the network, and whatever the task has besides it."""
    total = hashlib.sha256(trained.model)
    for name in sorted(trained.parts):
        total.update(hashlib.sha256(trained.parts[name]).digest())
    return total.hexdigest()


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
        Quality(float(blur), float(brightness), float(contrast), width=int(width), height=int(height))
        for (blur, brightness, contrast), (width, height) in zip(part.quality, part.sizes, strict=True)
    ]


def figures_of(job: Job, info: BundleInfo, test: Part, found: evaluation.Answers) -> dict[str, Any]:
    """The task's figures on the test split, which is read here and in the steps after and nowhere else."""
    if not len(test):
        return {}
    figures: dict[str, Any] = (
        tasks.get(info.task)
        .evaluate(
            found.predictions,
            test.values,
            names=info.labels,
            groups=test.groups,
            seed=job.settings["train.seed"],
        )
        .as_dict()
    )
    return figures


def _int8(job: Job, trained: recipes.Trained, training: Part, info: BundleInfo, progress: Progress) -> bytes | None:
    """The 8-bit network, where the project asks for one."""
    if not (job.settings["train.int8"] or job.settings["serving.variant"] == "int8"):
        return None
    progress({"text": "making the 8-bit network"})
    return quantise.variant_of(
        trained.model,
        read=lambda place: evaluation.stored(job.ws, training.samples[place].picture_id),
        count=len(training),
        preprocessing=info.preprocessing,
        seed=job.settings["train.seed"],
    )


def _reference(
    job: Job,
    bundle: Bundle,
    parts: Mapping[str, Part],
    trained: recipes.Trained,
    progress: Progress,
    *,
    variant: str,
) -> Reference | None:
    """What the drift alarm compares with: held-out pictures, those of the newest conditions where there are enough."""
    recent, test = parts["recent"], parts["test"]
    held_out = recent if len(recent) >= ENOUGH_RECENT else Part.join(test, recent)
    judged = np.flatnonzero(trained.held_out.judged)
    if min(len(held_out), len(judged)) < MINIMUM_PICTURES:
        return None

    def answered(part: Part) -> evaluation.Answers:
        return evaluation.answers(job.ws, bundle, part, backbone=job.backbone, progress=progress, variant=variant)

    found = answered(held_out)
    there = np.flatnonzero(found.there)
    features = trained.features
    if variant != "float" or not features.shape[1]:  # no recipe saw its features, and some of the pictures will do
        judged = judged[quantise.choose(len(judged), seed=job.settings["train.seed"], most=REFERENCE_PICTURES)]
        own = answered(parts["training"].take(judged))
        judged = judged[own.there]
        features = np.zeros((len(features), own.features.shape[1]), np.float32)
        features[judged] = own.features[own.there]
    if min(len(there), len(judged)) < MINIMUM_PICTURES:
        return None
    held_out = held_out.take(there)
    answers = trained.held_out
    return Reference.build(
        _figures(
            parts["training"].take(judged), features[judged], answers.confidence[judged], answers.predicted[judged]
        ),
        _figures(held_out, found.features[there], found.confidence()[there], found.predicted(bundle)[there]),
        classes=max(1, len(output_module(bundle.info.task).summaries(bundle.info))),
        seed=job.settings["train.seed"],
        keys=held_out.keys,
    )


def _figures(
    part: Part, features: NDArray[np.float32], confidence: NDArray[np.float64], predicted: NDArray[np.int64]
) -> Figures:
    return Figures(features=features, quality=part.quality, confidence=confidence, predicted=predicted)
