"""Counting by ridge regression on the frozen backbone's vectors."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor

from keepsight import tasks
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.outputs import output_module
from keepsight.training.recipes import HeldOut, Material, Recipe, Trained

from .outputs import SPREAD

FOLDS = 5
STRENGTH = 1.0


def ridge(material: Material) -> Trained:
    """A linear layer from ``features`` to ``count``; the spread of its error comes from pictures that were held out."""
    features = material.features.astype(np.float64)
    counts = np.array([value["count"] for value in material.values], np.float64)
    fold = material.groups % FOLDS
    held = np.zeros(len(counts))
    for number in range(FOLDS):
        out = fold == number
        if out.any() and not out.all():
            weight, bias = _fit(features[~out], counts[~out])
            held[out] = features[out] @ weight + bias
    judged = np.full(len(counts), len(np.unique(fold)) > 1)
    spread = float(np.std(counts - held)) if judged.any() else 1.0
    weight, bias = _fit(features, counts)

    info = BundleInfo(
        task=material.task,
        labels=(),
        preprocessing=material.backbone.preprocessing,
        created_at="1970-01-01T00:00:00+00:00",
        thresholds={SPREAD: spread},
    )
    tensors = {"count": held[:, None].astype(np.float32)}
    answers = output_module(material.task).decode(tensors, info=info, top_k=1, sizes=[])
    task = tasks.get(material.task)
    pairs = [(answer.as_dict(), value) for answer, value in zip(answers, material.values, strict=True)]
    scores = np.array([task.score(*pair) for pair in pairs], np.float64)
    return Trained(
        model=_network(material.backbone.onnx, weight, bias),
        held_out=HeldOut(
            judged=judged,
            confidence=np.array([answer.confidence for answer in answers]),
            right=np.array([task.right(*pair) for pair in pairs], np.bool_),
            score=scores,
            predicted=np.zeros(len(counts), np.int64),
        ),
        features=material.features,
        frozen=True,
        plan={"recipe": "ridge", "spread": spread},
        figures={task.HEADLINE: float(scores.mean()), "pictures": int(judged.sum())},
        labels=(),
        thresholds={SPREAD: spread},
    )


def _fit(features: NDArray[np.float64], counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Weight (d,) and bias of the ridge regression, by its dual, as there are fewer pictures than features."""
    mean, middle = features.mean(axis=0), float(counts.mean())
    centred = features - mean
    dual = np.linalg.solve(centred @ centred.T + STRENGTH * np.eye(len(counts)), counts - middle)
    weight = centred.T @ dual
    return weight, middle - float(mean @ weight)


def _network(backbone: bytes, weight: NDArray[np.float64], bias: float) -> bytes:
    model = Extractor(onnx.load_from_string(backbone)).extract_model(["image"], ["features"])
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(weight[:, None].astype(np.float32), "counting.weight"),
            numpy_helper.from_array(np.array([bias], np.float32), "counting.bias"),
        ]
    )
    model.graph.node.append(helper.make_node("Gemm", ["features", "counting.weight", "counting.bias"], ["count"]))
    model.graph.output.append(helper.make_tensor_value_info("count", TensorProto.FLOAT, ["n", 1]))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


RECIPES: dict[str, Recipe] = {"auto": ridge, "ridge": ridge}
