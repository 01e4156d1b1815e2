"""All that is found out about a model, as the one JSON that everything else reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    ``calibration``           ``temperature``, and ``before`` and ``after``: ``ece`` and ``bins``
    ``slices``                each with ``key``, ``value``, ``n``, ``accuracy``, ``difference`` to the rest, ``clear``
    ``robustness``            each corruption with ``name``, ``text``, ``n``, ``clean``, ``accuracy``, ``kept``
    ``mistakes``              the surest first, at most 60, each with the 3 ``nearest`` training pictures
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
    names = bundle.info.labels
    test = parts["test"]
    known = np.array([label in names for label in test.labels], np.bool_)
    unknown: dict[str, int] = {}
    for label, there in zip(test.labels, known, strict=True):
        if not there:
            unknown[label] = unknown.get(label, 0) + 1
    test = test.take(np.flatnonzero(known))
    answered = evaluation.answers(ws, bundle, test, backbone=backbone, progress=progress)
    correct = answered.correct(test.labels)
    true = np.array([names.index(label) for label in test.labels], np.int64)
    shares = evaluation.probabilities(answered, names)[answered.there]
    return {
        "pictures": len(test),
        "unknown": unknown,
        "metrics": dict(metrics),
        "calibration": calibration_figures(shares, true[answered.there], temperature=bundle.info.temperature),
        "slices": slice_figures(test, correct),
        "robustness": robustness_card(ws, bundle, test, seed=seed, pictures=robustness_pictures, progress=progress),
        "mistakes": _mistakes(
            test,
            answered,
            correct,
            lambda: Neighbours.of(ws, bundle, parts["training"], backbone=backbone, seed=seed, progress=progress),
        ),
        "explained_by": None if explain.activation_maps(bundle) is None else explain.NAME,
        "latency_ms": latency(ws, bundle, test if len(test) else parts["training"]),
        "size_bytes": {
            variant: len(bundle.model(variant)) if variant in bundle.variants else None for variant in ("float", "int8")
        },
        "parameters": parameters(bundle),
    }


def _mistakes(
    test: Part, answered: Answers, correct: NDArray[np.bool_], neighbours: Callable[[], Neighbours]
) -> list[dict[str, Any]]:
    """Wrong answers, the surest first."""
    wrong = [
        (output.confidence, place, output.label)
        for place, output in enumerate(answered.outputs)
        if output is not None and not correct[place]
    ]
    wrong.sort(key=lambda item: (-item[0], item[1]))
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
