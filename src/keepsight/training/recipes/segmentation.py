"""Recipes for segmentation: a pretrained network as it is, or trained further on a project's own masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.data.splits import grouped_folds
from keepsight.errors import DataError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.outputs.segmentation import EVEN_NAME, expected_overlap
from keepsight.tasks import segmentation
from keepsight.training import judging
from keepsight.training.automatic import better_of
from keepsight.training.processors import torch_on_all_cores
from keepsight.training.recipes import PRETRAINED, Material, Recipe, Trained
from keepsight.training.segmentation import calibration
from keepsight.zoo import catalogue
from keepsight.zoo import pretrained as networks
from keepsight.zoo.pretrained import Pretrained

TASK = "segmentation"
# Held-out pictures that judge a model, at most: more would tell little more, and each costs a run of the network.
MOST_JUDGES = 600
# A given val split judges where it has so many pictures; else a fifth of the groups is held out.
_LEAST_VALIDATION = 8
_FOLDS = 5
_LEAST_TRAINING = 4


def pretrained(material: Material) -> Trained:
    """The zoo's network as it is; pictures with masks, where there are any, tell how far its answers can be trusted."""
    network = _network(material)
    places = _some(np.arange(len(material.values)), material.seed)
    return _judged(material, network, network.content, places, plan={"recipe": PRETRAINED})


def finetune(material: Material) -> Trained:
    """The zoo's network, trained further on the masks of train; those of val decide which weights are kept.

    Raises:
        MissingExtraError: torch is not installed.
        DataError: There are too few masks.
        BudgetError: The time that is left is too short.
        TrainingError: The network cannot be trained.
    """
    with torch_on_all_cores("masks are", instead="pretrained"):
        return _finetuned(material)


def _finetuned(material: Material) -> Trained:
    from keepsight.training.segmentation.fit import Plan, Trainer
    from keepsight.training.segmentation.views import Views

    network = _network(material)
    held, rule = _held_out(material)
    rows = np.flatnonzero(~held)
    if len(rows) < _LEAST_TRAINING:
        raise DataError(
            f"{len(rows)} pictures with masks are left to train on.",
            expected=f"at least {_LEAST_TRAINING}, besides those that are held out.",
            do="Correct more masks in review, or train with the recipe `pretrained`.",
        )
    views = Views(
        material.read,
        material.values,
        preprocessing=network.entry.preprocessing,
        augment=tuple(material.settings["train.augment"]),
        seed=material.seed,
    )
    given = None if material.plan is None else Plan.from_dict(material.plan["training"])
    fitted = Trainer(
        network.content,
        views,
        rows=rows.tolist(),
        held=np.flatnonzero(held).tolist(),
        seed=material.seed,
        folder=material.folder,
        budget=material.budget,
        plan=given,
        progress=material.progress,
    ).run()
    plan = {"recipe": "finetune", "network": network.entry.name, "hold_out": rule, "training": fitted.plan.as_dict()}
    places = _some(np.flatnonzero(held), material.seed)
    return _judged(material, network, fitted.model, places, plan=plan, curve=fitted.curve)


def auto(material: Material) -> Trained:
    """The pretrained network first, then trained on the masks; the better of both on held-out pictures."""
    return better_of(material, {PRETRAINED: pretrained, "finetune": finetune})


def _network(material: Material) -> Pretrained:
    name = material.settings["train.pretrained"] or catalogue.entries(TASK)[0].name
    return networks.load(name, task=TASK)


def _some(places: NDArray[np.int64], seed: int) -> list[int]:
    """At most so many of the places as are worth judging, in their order."""
    chosen = np.random.default_rng(seed).permutation(places)[:MOST_JUDGES]
    return [int(place) for place in np.sort(chosen)]


def _held_out(material: Material) -> tuple[NDArray[np.bool_], str]:
    """Which pictures judge: the given val split, else some groups."""
    if int(material.validation.sum()) >= _LEAST_VALIDATION:
        return material.validation.copy(), "validation"
    sizes = np.array([["small", "middling", "large"].index(segmentation.stratum(value)) for value in material.values])
    folds = min(_FOLDS, len(np.unique(material.groups)))
    if folds < 2:
        return np.zeros(len(material.values), np.bool_), "nothing"
    return grouped_folds(material.groups, sizes, folds=folds, seed=material.seed) == 0, "groups"


def _judged(
    material: Material,
    network: Pretrained,
    model: bytes,
    places: Sequence[int],
    *,
    plan: dict[str, Any],
    curve: tuple[tuple[int, float], ...] = (),
) -> Trained:
    """The trained model with its answers to the pictures at these places, and the calibration that they give."""
    info = BundleInfo(
        task=TASK, labels=(), preprocessing=network.entry.preprocessing, created_at="2026-01-01T00:00:00+00:00"
    )
    bundle = Bundle.create(info, model=model)
    answers = judging.answered(material, bundle, places)
    held_out, features = judging.judged(material, bundle, answers)
    judged = np.flatnonzero(held_out.judged)
    overlaps = np.array([expected_overlap(_matte(answer)) for _, answer in answers], np.float64)
    fitted = calibration.fit(overlaps, held_out.right[judged])
    held_out.confidence[judged] = calibration.held_out_chances(
        overlaps, held_out.right[judged], material.groups[judged], seed=material.seed
    )
    score = held_out.score[judged]
    return Trained(
        model=model,
        held_out=held_out,
        features=features,
        frozen=False,
        plan={**plan, "network": network.entry.name, "sha256": network.digest},
        figures={
            "iou": float(score.mean()) if len(score) else None,
            "right": float(held_out.right[judged].mean()) if len(score) else None,
            "pictures": len(score),
            "curve": [list(point) for point in curve],
        },
        temperature=fitted.slope,
        labels=(),
        preprocessing=network.entry.preprocessing,
        thresholds={EVEN_NAME: fitted.even},
        extra={"network": network.entry.name, "confidence": "chance of an IoU of at least 0.9"},
        licences=network.entry.licences,
        from_backbone=False,
    )


def _matte(answer: Any) -> NDArray[np.float32]:
    return np.asarray(answer.output.matte, np.float32) / np.float32(255)


RECIPES: dict[str, Recipe] = {"auto": auto, "finetune": finetune, PRETRAINED: pretrained}
