"""All that is found out about a model, as the one JSON that everything else reads."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight import tasks
from keepsight.errors import PictureError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.predictor import Predictor
from keepsight.store.workspace import Workspace
from keepsight.training import evaluation
from keepsight.training.assessment import explain
from keepsight.training.assessment.figures import calibration_figures, slice_figures
from keepsight.training.assessment.neighbours import Neighbours
from keepsight.training.assessment.robustness import robustness_card
from keepsight.training.evaluation import Answers, stored
from keepsight.training.material import Part
from keepsight.zoo.backbone import Backbone

Progress = Callable[[Mapping[str, Any]], None]

MOST_MISTAKES = 60
NEAREST = 3
LATENCY_PICTURES = 50


def assess(
    ws: Workspace,
    bundle: Bundle,
    parts: Mapping[str, Part],
    *,
    backbone: Backbone,
    seed: int,
    metrics: Mapping[str, Any],
    robustness_pictures: int,
    progress: Progress,
) -> dict[str, Any]:
    """What a bundle can and cannot do on the ``test`` part, JSON-able.

    ========================  =====================================================================================
    ``pictures``              test pictures of classes that the model knows; the figures are about these
    ``unknown``               by class, test pictures of classes that the model never learned
    ``metrics``               the task's figures
    ``calibration``           ``temperature``; ``before`` (or None) and ``after``: ``ece``, ``bins``
    ``slices``                each with ``key``, ``value``, ``n``, ``accuracy``, ``difference`` to the rest, ``clear``
    ``robustness``            each corruption with ``name``, ``text``, ``n``, ``clean``, ``accuracy``, ``kept``
    ``mistakes``              the worst and surest first, at most 60, each with the 3 ``nearest`` training pictures
    ``explained_by``          how a picture can be explained, or None
    ``latency_ms``            ``p50`` and ``p95`` of ``n`` pictures on one thread here, decoding included, or None
    ``size_bytes``            of the network: ``float``, and ``int8`` where there is one
    ``parameters``            numbers that the network was trained to
    ========================  =====================================================================================

    Args:
        ws: The workspace with the pictures.
        bundle: The model.
        parts: ``training`` and ``test``, whose vectors are those of ``backbone``.
        backbone: Of the project.
        seed: Of the samples that are drawn.
        metrics: The task's figures, as measured when the model was made.
        robustness_pictures: For the robustness card, which takes longest; 0 leaves it empty.
        progress: Takes dicts with ``text``, ``done`` and ``total``.
    """
    whole = parts["test"]
    test = evaluation.answerable(whole, bundle.info.labels)
    unknown = Counter(name for names in whole.classes for name in names if name not in bundle.info.labels)
    if not bundle.info.labels:
        unknown.clear()
    answered = evaluation.answers(ws, bundle, test, backbone=backbone, progress=progress)
    scores, right, there = answered.scores(test), answered.right(test), answered.there
    return {
        "pictures": len(test),
        "unknown": dict(unknown),
        "metrics": dict(metrics),
        "calibration": calibration_figures(
            answered.confidence()[there],
            right[there],
            uncalibrated=_uncalibrated(bundle, answered),
            temperature=bundle.info.temperature,
        ),
        "slices": slice_figures(test, scores),
        "robustness": robustness_card(ws, bundle, test, seed=seed, pictures=robustness_pictures, progress=progress),
        "mistakes": _mistakes(
            test,
            answered,
            np.where(right, 1.0, scores),
            lambda: Neighbours.of(ws, bundle, parts["training"], backbone=backbone, seed=seed, progress=progress),
        ),
        "explained_by": None if explain.activation_maps(bundle) is None else explain.NAME,
        "latency_ms": latency(ws, bundle, test if len(test) else parts["training"]),
        "size_bytes": {
            variant: len(bundle.model(variant)) if variant in bundle.variants else None for variant in ("float", "int8")
        },
        "parameters": parameters(bundle),
    }


def _uncalibrated(bundle: Bundle, answered: Answers) -> NDArray[np.float64] | None:
    """What the confidence of each answer was before the calibration; None where the task calibrates otherwise."""
    of: Callable[..., float] | None = getattr(tasks.get(bundle.info.task), "uncalibrated", None)
    if of is None:
        return None
    there = [said for said in answered.predictions if said is not None]
    return np.array([of(said, temperature=bundle.info.temperature) for said in there], np.float64)


def _mistakes(
    test: Part, answered: Answers, scores: NDArray[np.float64], neighbours: Callable[[], Neighbours]
) -> list[dict[str, Any]]:
    """Answers that need correcting (``scores`` below 1), the worst first, and of equally bad ones the surest."""
    wrong = [
        (output.confidence, place, output.label)
        for place, output in enumerate(answered.outputs)
        if output is not None and scores[place] < 1
    ]
    wrong.sort(key=lambda item: (scores[item[1]], -item[0], item[1]))
    wrong = wrong[:MOST_MISTAKES]
    if not wrong:
        return []
    nearest = neighbours().nearest(answered.features[[place for _, place, _ in wrong]], count=NEAREST)
    return [
        {
            "sample_id": test.samples[place].sample_id,
            "picture_id": test.samples[place].picture_id,
            "label": test.labels[place],
            "predicted": label,
            "score": round(float(scores[place]), 4),
            "confidence": confidence,
            "nearest": alike,
        }
        for (confidence, place, label), alike in zip(wrong, nearest, strict=True)
    ]


def latency(ws: Workspace, bundle: Bundle, part: Part) -> dict[str, Any] | None:
    """The time of one picture, decoding included, one thread, on this machine now; None where none can be read."""
    predictor = Predictor(bundle)
    predictor.warm()
    taken = []
    for sample in part.samples[:LATENCY_PICTURES]:
        data = stored(ws, sample.picture_id)
        if data is None:
            continue
        began = time.perf_counter()
        try:
            predictor.predict(data)
        except PictureError:
            continue
        taken.append((time.perf_counter() - began) * 1000)
    if not taken:
        return None
    p50, p95 = np.quantile(taken, [0.5, 0.95])
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3), "n": len(taken)}


def parameters(bundle: Bundle) -> int:
    """The weights of the float network, counted; single numbers such as bounds are none."""
    import onnx

    model = onnx.load_from_string(bundle.model())
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    sizes = [int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.data_type in floats]
    return sum(size for size in sizes if size > 1)
