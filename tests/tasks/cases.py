"""What each task brings to the shared contract test: a few annotations, what is refused, and a small real model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keepsight.runtime import rle
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.outputs.segmentation import share_in_words
from tests import matting, tiny
from tests.gallery import bundle_with
from tests.training.documents import toy

Value = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One task in the contract test.

    Attributes:
        values: Annotations in their one form, no two of which agree; a model can learn from them.
        raw: Other ways to write an annotation, and what is meant.
        refused: What means no annotation.
        unknown: An annotation with a class that is none of ``labels``; None where the task has no classes.
        labels: The classes of the values.
        prediction: The answer that says exactly what an annotation says.
        bundle: Makes a small model of the task.
        press: The button, as (name, value), that saves an annotation in the widget where no button has the key Enter.
        size: Width and height of the picture that the values are about.
    """

    values: tuple[Value, ...]
    raw: tuple[tuple[Any, Value], ...]
    refused: tuple[Any, ...]
    unknown: Value | None
    labels: tuple[str, ...]
    prediction: Callable[[Value], Value]
    bundle: Callable[[], Bundle]
    press: Callable[[Value], tuple[str, str]] | None = None
    size: tuple[int, int] = (64, 48)
    extra: Mapping[str, Any] = field(default_factory=dict)


def _class(value: Value) -> Value:
    return {"label": value["label"], "confidence": 0.9, "alternatives": [{"label": "other", "confidence": 0.1}]}


def _labels(key: str, nothing: str, labels: tuple[str, ...]) -> Callable[[Value], Value]:
    def prediction(value: Value) -> Value:
        given = [{"label": label, "confidence": 0.9, "threshold": 0.5} for label in value[key]]
        others = [label for label in labels if label not in value[key]]
        return {
            "label": ", ".join(value[key]) or nothing,
            "confidence": 0.8,
            key: given,
            "alternatives": [{"label": label, "confidence": 0.1, "threshold": 0.5} for label in others],
        }

    return prediction


def _boxes(value: Value) -> Value:
    found = [{**item, "confidence": 0.9} for item in value["boxes"]]
    counts = {item["label"]: sum(other["label"] == item["label"] for other in found) for item in found}
    told = [f"{count} {label}" for label, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    maybe = {"label": "cup", "box": [50.0, 0.0, 60.0, 10.0], "confidence": 0.05}
    return {
        "label": ", ".join(told) or "nothing",
        "confidence": 0.8,
        "boxes": found,
        "alternatives": [maybe],
    }


def _mask(value: Value) -> Value:
    covered = rle.area(value["mask"]) / (64 * 48)
    return {"label": share_in_words(covered), "confidence": 0.7, "covered": covered, **value, "alternatives": []}


def _subjects(value: Value) -> Value:
    names = sorted(item["label"] for item in value["subjects"] if item["label"] != "unknown")
    strangers = len(value["subjects"]) - len(names)
    return {
        "label": ", ".join([*names, *([f"{strangers} unknown"] if strangers else [])]) or "nobody",
        "confidence": 0.9,
        "subjects": [
            {
                **item,
                "confidence": 0.9,
                "similarity": 0.7,
                "alternatives": [{"label": "Cleo", "confidence": 0.1, "similarity": 0.2}],
            }
            for item in value["subjects"]
        ],
        "alternatives": [],
    }


def _counting() -> Bundle:
    return tiny.bundle(task="counting", labels=(), outputs={"count": 1}, thresholds={"spread": 0.7})


CASES: dict[str, Case] = {
    "classification": Case(
        values=({"label": "apple"}, {"label": "pear"}),
        raw=(("apple", {"label": "apple"}), ({"label": "  apple "}, {"label": "apple"})),
        refused=(None, 7, {"label": ""}, {"boxes": []}),
        unknown={"label": "fig"},
        labels=("apple", "other", "pear"),
        prediction=_class,
        bundle=tiny.bundle,
        press=lambda value: ("label", value["label"]),
    ),
    "multilabel": Case(
        values=({"labels": ["green", "ripe"]}, {"labels": ["ripe"]}, {"labels": []}),
        raw=(("ripe|green", {"labels": ["green", "ripe"]}), ({"label": "ripe"}, {"labels": ["ripe"]})),
        refused=(None, 7, {"labels": [""]}, {"labels": 3}, {"boxes": []}),
        unknown={"labels": ["blue", "ripe"]},
        labels=("green", "ripe"),
        prediction=_labels("labels", "(none)", ("green", "ripe")),
        bundle=lambda: tiny.bundle(task="multilabel", labels=("green", "ripe")),
    ),
    "moderation": Case(
        values=({"flags": []}, {"flags": ["logo", "plate visible"]}, {"flags": ["logo"]}),
        raw=(("allowed", {"flags": []}), ("plate visible|logo", {"flags": ["logo", "plate visible"]})),
        refused=(None, 7, {"flags": ["a|b"]}, {"flags": [None]}, {"boxes": []}),
        unknown={"flags": ["plate"]},
        labels=("logo", "plate visible"),
        prediction=_labels("flags", "allowed", ("logo", "plate visible")),
        bundle=lambda: tiny.bundle(task="moderation", labels=("logo", "plate visible"), thresholds={"label logo": 0.3}),
        press=lambda value: ("decision", "block" if value["flags"] else "approve"),
    ),
    "ocr": Case(
        values=({"fields": {"date": "1/2/2026", "total": "9.00"}}, {"fields": {"total": "8.50"}}),
        raw=(
            ('{"fields": {"total": " 8.50"}}', {"fields": {"total": "8.50"}}),
            ({"fields": {"total": 8, "date": ""}, "lines": []}, {"fields": {"total": "8"}}),
            (
                {"lines": [{"text": "TOTAL  8.50", "box": [1, 2, 30.04, 9]}]},
                {"lines": [{"text": "TOTAL 8.50", "box": [1.0, 2.0, 30.0, 9.0]}]},
            ),
        ),
        refused=(None, 7, {"fields": {}}, {"lines": [{"text": "a", "box": [5, 5, 5, 5]}]}, {"boxes": []}),
        unknown={"fields": {"sum": "8.50"}},
        labels=("date", "total"),
        prediction=lambda value: {
            "label": ", ".join(f"{name}: {text}" for name, text in value["fields"].items()),
            "confidence": 0.9,
            "lines": [],
            "found": {name: {"confidence": 0.9, "line": 0} for name in value["fields"]},
            "alternatives": [],
            **value,
        },
        bundle=toy.bundle,
    ),
    "detection": Case(
        values=(
            {"boxes": []},
            {"boxes": [{"label": "cup", "box": [1.0, 2.0, 30.0, 40.0]}]},
            {
                "boxes": [
                    {"label": "cup", "box": [1.0, 2.0, 30.0, 40.0]},
                    {"label": "lid", "box": [31.5, 5.0, 60.0, 44.0]},
                    {"label": "lid", "box": [40.0, 1.0, 62.0, 20.0]},
                ]
            },
        ),
        raw=(
            (
                {"boxes": [{"label": " cup ", "box": [1, 2, 30.001, 40], "confidence": 0.3}]},
                {"boxes": [{"label": "cup", "box": [1.0, 2.0, 30.0, 40.0]}]},
            ),
            ('{"boxes": []}', {"boxes": []}),
        ),
        refused=(
            None,
            7,
            {},
            "",
            {"label": "cup"},
            {"boxes": [{"label": "cup"}]},
            {"boxes": [{"label": "cup", "box": [30, 2, 1, 40]}]},
            {"boxes": [{"label": "", "box": [1, 2, 30, 40]}]},
            {"boxes": [{"label": "cup", "box": [1, 2, 3, float("nan")]}]},
        ),
        unknown={"boxes": [{"label": "jug", "box": [1.0, 2.0, 30.0, 40.0]}]},
        labels=("cup", "lid"),
        prediction=_boxes,
        bundle=lambda: tiny.detector(labels=("cup", "lid")),
    ),
    "segmentation": Case(
        values=tuple(matting.value(matting.disc(radius=radius)) for radius in (0.2, 0.4)),
        raw=((rle.encode(matting.disc(radius=0.4)), matting.value(matting.disc(radius=0.4))),),
        refused=(None, 7, "apple", {"boxes": []}, {"mask": rle.encode(np.zeros((48, 64), np.bool_))}),
        unknown=None,
        labels=(),
        prediction=_mask,
        bundle=matting.bundle,
    ),
    "recognition": Case(
        values=(
            {"subjects": [{"label": "Anna"}]},
            {"subjects": [{"label": "Ben"}]},
            {
                "subjects": [
                    {"label": "Anna", "box": [2.0, 3.0, 20.0, 24.0]},
                    {"label": "unknown", "box": [30, 3, 50, 24]},
                ]
            },
        ),
        raw=(("Anna", {"subjects": [{"label": "Anna"}]}), ({"label": " Ben "}, {"subjects": [{"label": "Ben"}]})),
        refused=(None, 7, {"label": ""}, {"subjects": "Anna"}, {"boxes": []}),
        unknown={"subjects": [{"label": "Dora"}]},
        labels=("Anna", "Ben", "Cleo", "unknown"),
        prediction=_subjects,
        bundle=bundle_with,
    ),
    "counting": Case(
        values=({"count": 0}, {"count": 3}, {"count": 12}),
        raw=(("3", {"count": 3}), (12, {"count": 12})),
        refused=(None, "many", -1, 0.5, True, {"boxes": []}),
        unknown=None,
        labels=(),
        prediction=lambda value: {
            "label": str(value["count"]),
            "confidence": 0.7,
            "count": value["count"],
            "alternatives": [{"count": value["count"] + 1, "confidence": 0.2}],
        },
        bundle=_counting,
    ),
}
