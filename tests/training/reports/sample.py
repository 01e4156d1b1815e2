"""A report's content with something in every part."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from keepsight.training.models import Model
from keepsight.training.reports.content import Content
from keepsight.training.reports.pictures import Shown

NAMES = ["apple", "pear", "quince"]
BINS: list[dict[str, Any]] = [
    {"low": 0.0, "high": 0.5, "n": 20, "confidence": 0.4, "accuracy": 0.5},
    {"low": 0.5, "high": 0.9, "n": 0, "confidence": None, "accuracy": None},
    {"low": 0.9, "high": 1.0, "n": 180, "confidence": 0.95, "accuracy": 0.96},
]


def interval(value: float, *, n: int = 200) -> dict[str, Any]:
    return {"value": value, "low": max(0.0, value - 0.05), "high": min(1.0, value + 0.05), "n": n}


def per_class(recall: float, support: int) -> dict[str, Any]:
    return {"precision": interval(0.9), "recall": interval(recall), "f1": interval(recall), "support": support}


def metrics() -> dict[str, Any]:
    return {
        "accuracy": interval(0.91),
        "ece": interval(0.05),
        "per_class": {"apple": per_class(1.0, 80), "pear": per_class(0.5, 60), "quince": per_class(0.9, 60)},
        "names": NAMES,
        "confusion": [[80, 0, 0], [5, 30, 25], [0, 6, 54]],
        "absent": ["plum"],
    }


def mistake(number: int = 0, label: str = "pear") -> dict[str, Any]:
    near = {"sample_id": "5" * 32, "picture_id": "near", "label": "quince", "cosine": 0.91}
    return {
        "sample_id": f"{number:032x}",
        "picture_id": "p",
        "label": label,
        "predicted": "quince",
        "confidence": 0.97,
        "nearest": [near],
    }


def evaluation() -> dict[str, Any]:
    minus = {"value": -0.25, "low": -0.4, "high": -0.1, "n": 50}
    return {
        "pictures": 200,
        "unknown": {"plum": 4},
        "calibration": {
            "temperature": 1.4,
            "before": {"ece": 0.12, "bins": BINS},
            "after": {"ece": 0.05, "bins": BINS},
        },
        "slices": [
            {"key": "size", "value": "small", "n": 200, "accuracy": interval(0.91), "difference": None, "clear": False},
            {"key": "camera", "value": "door", "n": 50, "accuracy": interval(0.7), "difference": minus, "clear": True},
        ],
        "robustness": [
            {
                "name": "darker",
                "text": "dark",
                "n": 200,
                "clean": interval(0.9),
                "accuracy": interval(0.8),
                "kept": 0.89,
            },
            {
                "name": "blurred",
                "text": "blurred (out of focus)",
                "n": 200,
                "clean": interval(0.9),
                "accuracy": interval(0.4),
                "kept": 0.44,
            },
        ],
        "mistakes": [mistake()],
        "explained_by": "class activation map",
        "latency_ms": {"p50": 8.0, "p95": 9.5, "n": 50},
        "size_bytes": {"float": 13_800_000, "int8": 3_600_000},
        "parameters": 3_400_000,
    }


def run() -> dict[str, Any]:
    reason = "On 200 test pictures the new model is right on 91.0 %."
    return {
        "trigger": "labels",
        "reason": "200 new labels",
        "params": {"budget_minutes": 10, "max_cost_eur": 2},
        "gate": {
            "decision": "ask",
            "checks": [
                {"name": "test", "status": "pass", "reason": reason},
                {"name": "recent", "status": "cannot_tell", "reason": "Too few pictures."},
                {"name": "licences", "status": "fail", "reason": "For information.", "binding": False},
            ],
        },
        "record": {
            "recipe": "finetune",
            "plan": {"recipe": "finetune", "epochs": 9, "candidates": [1, 2]},
            "pictures": {"training": 800, "test": 204, "recent": 0},
            "seed": 0,
            "worked_s": {"train": 300.0},
            "cost_eur": 0.0123,
        },
    }


def content(**changes: Any) -> Content:
    model = Model(
        "shop", 7, "d" * 64, "blob", "run", "challenger", 3, changes.pop("metrics", metrics()), 1_760_000_000.0
    )
    values = {"evaluation": evaluation(), "run": run(), **changes}
    return Content("shop", "classification", model, **values)


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "JPEG")
    return out.getvalue()


def shown(label: str = "pear") -> Shown:
    return Shown(mistake(label=label), jpeg(), jpeg(), (("quince", 0.91, jpeg()),))
