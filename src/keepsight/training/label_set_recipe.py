"""From the material of a task with sets of labels to a model: what the recipes of such tasks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight import tasks
from keepsight.runtime.label_sets import EVEN, TOGETHER, threshold_key
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.outputs import output_module
from keepsight.training import label_sets
from keepsight.training.evaluation import EVERYTHING
from keepsight.training.onnxhead import merge
from keepsight.training.recipes import HeldOut, Material, Trained

Limit = Callable[[NDArray[np.float64], NDArray[np.bool_]], float]
"""The threshold of a label from held-out chances and whether each picture has the label."""


def head(material: Material, *, limit: Limit) -> Trained:
    """A linear head on the frozen backbone's vectors, one yes-or-no question for each label; seconds on a CPU."""
    task = tasks.get(material.task)
    labels = [set(task.classes(value)) for value in material.values]
    present = np.array([[name in row for name in material.names] for row in labels], np.bool_)
    # What comes after the fit takes time too.
    seconds = material.budget.left_s / 2
    axes = label_sets.affordable_axes(len(labels), len(material.names), seconds=seconds)
    fitted = label_sets.fit(
        material.features,
        present,
        material.groups,
        names=material.names,
        validation=material.validation,
        seed=material.seed,
        most_axes=axes if material.plan is None else int(material.plan["axes"]),
        on_progress=lambda share: material.progress({"text": "training", "done": share, "total": 1.0}),
    )
    limits = np.full(len(material.names), EVEN)
    for place in range(len(material.names)):
        rows = fitted.judged[:, place]
        if rows.any():
            limits[place] = limit(fitted.chances[rows, place], present[rows, place])
    # A label with nothing to learn says nothing about the rest.
    learned = fitted.judged.any(axis=0)
    judged = np.full(len(labels), bool(learned.any()))
    judged &= np.asarray(fitted.judged[:, learned]).all(axis=1)
    thresholds = {threshold_key(name): float(value) for name, value in zip(material.names, limits, strict=True)}
    thresholds[TOGETHER] = label_sets.togetherness(fitted.chances[judged], present[judged], limits)
    info = BundleInfo(
        task=material.task,
        labels=material.names,
        preprocessing=material.backbone.preprocessing,
        created_at="1970-01-01T00:00:00+00:00",
        thresholds=thresholds,
    )
    held_out, predictions = _held_out(material, fitted.chances, judged, info=info)
    return Trained(
        model=merge(material.backbone.onnx, fitted),
        held_out=held_out,
        features=material.features,
        frozen=True,
        plan={**fitted.plan, "thresholds": thresholds, "judged": int(judged.sum())},
        figures=figures(material, predictions, info=info),
        thresholds=thresholds,
    )


def figures(material: Material, predictions: dict[int, dict[str, Any]], *, info: BundleInfo) -> dict[str, Any]:
    """The headline figure of held-out answers by their place, the share of right ones, and how many there are."""
    task = tasks.get(material.task)
    places = list(predictions)
    found = task.evaluate(
        [predictions[place] for place in places],
        [material.values[place] for place in places],
        names=info.labels,
        groups=material.groups[places],
        seed=material.seed,
    ).as_dict()
    return {
        task.HEADLINE: found[task.HEADLINE]["value"],
        "right": found["right"]["value"],
        "per_class": found["per_class"],
        "pictures": len(places),
    }


def _held_out(
    material: Material, chances: NDArray[np.float64], judged: NDArray[np.bool_], *, info: BundleInfo
) -> tuple[HeldOut, dict[int, dict[str, Any]]]:
    """The held-out answers as they would have been served."""
    task, outputs = tasks.get(material.task), output_module(material.task)
    held = np.clip(chances, 1e-9, 1 - 1e-9)
    logits = np.log(held / (1 - held)).astype(np.float32)
    answers = outputs.decode(
        {"logits": logits},
        info=info,
        top_k=EVERYTHING,
        sizes=[(int(width), int(height)) for width, height in material.sizes],
    )
    names = {name: number for number, name in enumerate(outputs.summaries(info))}
    said = [answer.as_dict() for answer in answers]
    pairs = list(zip(said, material.values, strict=True))
    held_out = HeldOut(
        judged=judged,
        confidence=np.array([answer.confidence for answer in answers], np.float64),
        right=np.array([task.right(*pair) for pair in pairs], np.bool_),
        score=np.array([task.score(*pair) for pair in pairs], np.float64),
        predicted=np.array([names.get(answer.label, 0) for answer in answers], np.int64),
    )
    return held_out, {int(place): said[place] for place in np.flatnonzero(judged)}
