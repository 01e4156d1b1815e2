"""The ``gate`` step of a run, in a child process: challenger and champion answer the same held-out pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.delivery import deployments
from keepsight.errors import DataError
from keepsight.loop.work import Job, Progress, figures_of
from keepsight.runtime.bundle import Bundle
from keepsight.training import evaluation, gate, models, slices
from keepsight.training.assessment import store
from keepsight.training.material import Part
from keepsight.zoo import catalogue


def compare(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The gate's result: decision, checks, ``champion`` and ``challenger``, and both ``sides`` beside one another.

    What is compared is what would be served: the network that ``serving.variant`` names, of each model.
    """
    job = Job.open(payload)
    ws, project = job.ws, job.run.project
    parts = job.parts(progress)
    if job.run.model_number is None:
        raise RuntimeError("the run has no model")  # the step before gave it one
    champion = models.champion(ws, project)
    evidence = gather(job, parts, job.run.model_number, None if champion is None else champion.number, progress)
    return {
        **gate.decide(evidence, job.settings).as_dict(),
        "champion": None if champion is None else champion.number,
        "challenger": job.run.model_number,
        "sides": gate.side_by_side(evidence),
    }


def gather(
    job: Job, parts: Mapping[str, Part], challenger: int, champion: int | None, progress: Progress
) -> gate.Evidence:
    """All that the gate's checks look at."""
    ws, project = job.ws, job.run.project
    new = _Side(job, challenger, live=False, progress=progress)
    old = None if champion is None else _Side(job, champion, live=True, progress=progress)
    test = parts["test"]
    judged = {
        name: gate.Judged(
            classes=parts[name].classes,
            challenger=new.scores(parts[name]),
            champion=None if old is None else old.scores(parts[name]),
            groups=parts[name].groups,
            slices=slices.slices_of(parts[name], least=1),
        )
        for name in ("test", "recent")
    }
    int8 = None
    if "int8" in new.bundle.variants and len(test):
        both = {variant: new.scores(test, variant=variant) for variant in ("float", "int8")}
        int8 = gate.Int8Answers(float_scores=both["float"], int8_scores=both["int8"])
    timed = test if len(test) else parts["training"]
    return gate.Evidence(
        trigger=job.run.trigger,
        test=judged["test"],
        recent=judged["recent"],
        metrics=new.metrics(test),
        evaluation=store.load(ws, project, challenger),
        latency_ms=new.latency_ms(timed),
        champion_latency_ms=None if old is None else old.latency_ms(timed),
        size_bytes=new.size_bytes,
        champion_size_bytes=None if old is None else old.size_bytes,
        licences=new.bundle.info.licences,
        known_licences=sorted({name for entry in catalogue.entries() for name in entry.licences}),
        variant=job.settings["serving.variant"],
        champion_variant=None if old is None else old.variant,
        int8=int8,
    )


class _Side:
    """One of the two models, as it would be served."""

    def __init__(self, job: Job, number: int, *, live: bool, progress: Progress) -> None:
        self._job = job
        self._model = models.get(job.ws, job.run.project, number)
        self._progress = progress
        self._answers: dict[tuple[int, str], evaluation.Answers] = {}
        self.bundle: Bundle = models.load_bundle(job.ws, self._model)
        wanted = job.settings["serving.variant"]
        self.variant = (
            deployments.serving_variant(job.ws, job.run.project, number, bundle=self.bundle, wanted=wanted)
            if live
            else self.bundle.serving_variant(wanted)
        )

    @property
    def size_bytes(self) -> int:
        return len(self.bundle.model(self.variant))

    def scores(self, part: Part, *, variant: str | None = None) -> NDArray[np.float64]:
        """How right each answer is, 0 to 1; float64 (n,)."""
        return self._answered(part, variant or self.variant).scores(part)

    def metrics(self, test: Part) -> dict[str, Any]:
        """The task's figures on test, of the network that is served."""
        if self.variant == "float":
            return self._model.metrics
        there = evaluation.answerable(test, self.bundle.info.labels)
        answered = self._answered(test, self.variant)
        known = set(there.keys)
        places = [place for place, key in enumerate(test.keys) if key in known]
        return figures_of(
            self._job,
            self.bundle.info,
            there,
            evaluation.Answers(tuple(answered.outputs[place] for place in places), answered.features[places]),
        )

    def latency_ms(self, part: Part) -> float | None:
        """Median time for a picture; None where none can be read."""
        try:
            return evaluation.median_latency_ms(self._job.ws, self.bundle, part, variant=self.variant)
        except DataError:
            return None

    def _answered(self, part: Part, variant: str) -> evaluation.Answers:
        key = (id(part), variant)
        if key not in self._answers:
            self._answers[key] = evaluation.answers(
                self._job.ws, self.bundle, part, backbone=self._job.backbone, progress=self._progress, variant=variant
            )
        return self._answers[key]
