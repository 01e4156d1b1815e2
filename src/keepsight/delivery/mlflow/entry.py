"""What a run of ours is in MLflow: parameters, metrics, tags, the data set it saw. No pictures, no names of files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keepsight.delivery.mlflow.store import without_secrets
from keepsight.runtime.bundle import Bundle

# How MLflow calls the ways a run can end.
STATUSES = {"done": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
MAX_PARAM_CHARS, MAX_TAG_CHARS, MAX_NAME_CHARS, MAX_DIGEST_CHARS = 6000, 5000, 250, 36
_FORBIDDEN = re.compile(r"[^\w.\- ]", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """A run to be written. ``key`` finds it again; times are seconds since 1970.

    Attributes:
        project: The project.
        key: The run's id, or ``bundle-DIGEST`` for a model that no run of this workspace made.
        name: For people.
        status: FINISHED, FAILED or KILLED.
        started_at: When it began.
        ended_at: When it ended.
        params: Settings and plan.
        metrics: Figures.
        tags: Everything else.
        dataset: Version and digest of the data set; None where it had none.
        files: Texts, by path.
        bundle: The model; None where there is none.
        model_number: Its number.
    """

    project: str
    key: str
    name: str
    status: str
    started_at: float
    ended_at: float
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    dataset: tuple[int, str] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    bundle: Bundle | None = None
    model_number: int | None = None


def params_of(run: Mapping[str, Any]) -> dict[str, str]:
    """The settings that the run resolved and the plan it followed."""
    record = run["record"] or {}
    found = {"recipe": record.get("recipe"), "seed": record.get("seed")}
    found |= {f"setting.{name}": _shown(value) for name, value in (record.get("settings") or {}).items()}
    found |= {f"plan.{name}": value for name, value in _flat(record.get("plan") or {})}
    found |= {f"asked.{name}": value for name, value in _flat(run["params"] or {}) if not name.startswith("estimate")}
    return {_name(name): _text(value)[:MAX_PARAM_CHARS] for name, value in found.items() if value is not None}


def metrics_of(
    metrics: Mapping[str, Any], evaluation: Mapping[str, Any], record: Mapping[str, Any]
) -> dict[str, float]:
    """Figures of the test split, each with its interval; classes, slices, robustness, calibration, time and money."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        found |= _figure(f"test.{name}", value)
    for label, row in (metrics.get("per_class") or {}).items():
        for name, value in row.items():
            found |= _figure(f"class.{label}.{name}", value)
    for row in evaluation.get("slices") or []:
        found |= _figure(f"slice.{row['key']}.{row['value']}.accuracy", row["accuracy"])
    for row in evaluation.get("robustness") or []:
        found |= _figure(f"robustness.{row['name']}.accuracy", row["accuracy"])
        found[f"robustness.{row['name']}.kept"] = row["kept"]
    calibration = evaluation.get("calibration") or {}
    found["calibration.temperature"] = calibration.get("temperature")
    for side in ("before", "after"):
        found[f"calibration.{side}.ece"] = (calibration.get(side) or {}).get("ece")
    for name in ("latency_ms", "size_bytes"):
        found |= {f"{name}.{key}": value for key, value in (evaluation.get(name) or {}).items()}
    found["parameters"] = evaluation.get("parameters")
    found |= {name: record.get(name) for name in ("duration_s", "cost_eur", "train_s")}
    found |= {f"pictures.{name}": count for name, count in (record.get("pictures") or {}).items()}
    return {_name(name): float(value) for name, value in found.items() if _is_number(value)}


def tags_of(run: Mapping[str, Any]) -> dict[str, str]:
    """Why the run was started, by whom, on which data, and how it ended."""
    record, gate, error = run["record"] or {}, run["gate"] or {}, run["error"] or {}
    dataset = record.get("dataset") or {}
    found = {
        "keepsight.run_id": run["id"],
        "keepsight.project": run["project"],
        "keepsight.trigger": run["trigger"],
        "keepsight.reason": run["reason"],
        "keepsight.actor": run["actor"],
        "keepsight.trace_id": run["trace_id"],
        "keepsight.status": run["status"],
        "keepsight.outcome": run["outcome"],
        "keepsight.dataset.version": run["dataset_version"],
        "keepsight.dataset.digest": dataset.get("digest"),
        "keepsight.gate": gate.get("decision"),
        "keepsight.model_number": run["model_number"],
        "keepsight.bundle": record.get("bundle_digest"),
        "keepsight.error": error.get("found"),
        "keepsight.environment": record.get("environment"),
    }
    return {name: _text(value)[:MAX_TAG_CHARS] for name, value in found.items() if value is not None}


def _figure(name: str, value: Any) -> dict[str, Any]:
    """A number, or an interval as three."""
    if isinstance(value, Mapping) and "value" in value:
        return {name: value["value"], f"{name}.low": value.get("low"), f"{name}.high": value.get("high")}
    return {name: value}


def _flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _shown(value: Any) -> Any:
    """Addresses lose their passwords: what is mirrored is read by others."""
    return without_secrets(value) if isinstance(value, str) else value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, default=str) if isinstance(value, Mapping | Sequence) else str(value)


def _name(name: str) -> str:
    return _FORBIDDEN.sub("_", name)[:MAX_NAME_CHARS]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
