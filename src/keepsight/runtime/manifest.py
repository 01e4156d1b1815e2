"""What ``bundle.json`` says about a model, typed and checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from keepsight.errors import BadInputError, BundleError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.runtime.quality import QualityLimits

FORMAT_VERSION = 1


@dataclass(frozen=True)
class BackboneInfo:
    """The pretrained network under a model: its name in the zoo, sha256 of its ONNX graph and licence (SPDX)."""

    name: str
    digest: str
    licence: str


@dataclass(frozen=True)
class BundleInfo:
    """Everything a bundle knows about its model except the weights.

    Attributes:
        task: "classification", ...; found by this name in `keepsight.runtime.outputs`.
        labels: Names of the classes in the order of the network's outputs, each once; empty where a task has none.
        preprocessing: How pictures become input.
        temperature: Logits are divided by it before the softmax (Guo et al. 2017).
        thresholds: "auto" is the lowest confidence that is answered without review; tasks add their own.
        quality_limits: Pictures outside go to review.
        dataset_version: The version trained on, as people see it.
        dataset_digest: Its digest.
        backbone: What it was trained from; None for a network that was trained elsewhere.
        metrics: Figures of the test split, JSON-able.
        licences: One line of text for each part that has a licence.
        created_at: ISO 8601 with time zone.
        run_id: The training run.
        extra: JSON-able facts that the runtime does not need.
        format_version: Of ``bundle.json``.
    """

    task: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    created_at: str
    temperature: float = 1.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    quality_limits: QualityLimits = field(default_factory=QualityLimits)
    dataset_version: str = ""
    dataset_digest: str = ""
    backbone: BackboneInfo | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    licences: tuple[str, ...] = ()
    run_id: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not self.task:
            raise _wrong("task", self.task, "the name of a task")
        if not all(isinstance(label, str) and label for label in self.labels):
            raise _wrong("labels", list(self.labels)[:5], "names, none of them empty")
        if len(set(self.labels)) != len(self.labels):
            twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
            raise _wrong("labels", twice, "every label once")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise _wrong("temperature", self.temperature, "a number above 0")
        for name, value in self.thresholds.items():
            # Above 1 no confidence passes: every answer goes to review.
            if not (math.isfinite(value) and value >= 0):
                raise _wrong(f"thresholds.{name}", value, "a number of 0 or more")
        try:
            if datetime.fromisoformat(self.created_at).tzinfo is None:
                raise ValueError("no time zone")
        except ValueError as error:
            raise _wrong("created_at", self.created_at, "an ISO 8601 time with its zone") from error

    @property
    def auto_threshold(self) -> float:
        """The lowest confidence that is answered without review; 0 where none was set."""
        return self.thresholds.get("auto", 0.0)

    def as_dict(self) -> dict[str, Any]:
        """The manifest without its list of files, as JSON takes it."""
        return {
            "format_version": self.format_version,
            "task": self.task,
            "labels": list(self.labels),
            "preprocessing": self.preprocessing.as_dict(),
            "temperature": self.temperature,
            "thresholds": dict(self.thresholds),
            "quality_limits": self.quality_limits.as_dict(),
            "dataset_version": self.dataset_version,
            "dataset_digest": self.dataset_digest,
            "backbone": asdict(self.backbone) if self.backbone else None,
            "metrics": dict(self.metrics),
            "licences": list(self.licences),
            "created_at": self.created_at,
            "run_id": self.run_id,
            "extra": dict(self.extra),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BundleInfo:
        """The manifest that `as_dict` wrote.

        Raises:
            BundleError: Of a newer format, or with missing, unknown or ill-typed entries.
        """
        check_format(values)
        known = {item.name for item in fields(cls)}
        missing, unknown = sorted(known - set(values)), sorted(set(values) - known)
        if missing or unknown:
            raise BundleError(
                "bundle.json "
                + " and ".join(
                    part
                    for part in (
                        missing and f"lacks {', '.join(missing)}",
                        unknown and f"has unknown {', '.join(unknown)}",
                    )
                    if part
                )
                + ".",
                expected=f"exactly the entries of format version {FORMAT_VERSION}.",
                do='Make the bundle anew with `keepsight train`; facts of your own belong under "extra".',
                missing=missing,
                unknown=unknown,
            )
        try:
            return cls(
                task=_typed(values, "task", str),
                labels=tuple(_typed(values, "labels", list)),
                preprocessing=Preprocessing.from_dict(_typed(values, "preprocessing", dict)),
                temperature=float(values["temperature"]),
                thresholds={name: float(value) for name, value in _typed(values, "thresholds", dict).items()},
                quality_limits=QualityLimits.from_dict(_typed(values, "quality_limits", dict)),
                dataset_version=_typed(values, "dataset_version", str),
                dataset_digest=_typed(values, "dataset_digest", str),
                backbone=None if values["backbone"] is None else BackboneInfo(**_typed(values, "backbone", dict)),
                metrics=_typed(values, "metrics", dict),
                licences=tuple(map(str, _typed(values, "licences", list))),
                created_at=_typed(values, "created_at", str),
                run_id=_typed(values, "run_id", str),
                extra=_typed(values, "extra", dict),
                format_version=_typed(values, "format_version", int),
            )
        except BundleError:
            raise
        except (BadInputError, TypeError, ValueError) as error:
            found = error.found if isinstance(error, BadInputError) else str(error)
            raise BundleError(
                f"bundle.json cannot be understood: {found}",
                expected=f"the entries of format version {FORMAT_VERSION}.",
                do="Make the bundle anew with `keepsight train`.",
            ) from error


def check_format(values: Mapping[str, Any]) -> None:
    """Refuses a manifest of a format that this version cannot read."""
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BundleError(
            f"The bundle has format version {version}.",
            expected=f"format version {FORMAT_VERSION} or older, which is what this version of Keepsight reads.",
            do="Upgrade Keepsight (`pip install --upgrade keepsight`), then open the bundle again.",
            format_version=version,
        )
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _wrong("format_version", version, f"a whole number from 1 to {FORMAT_VERSION}")


def parse(text: bytes) -> dict[str, Any]:
    """The manifest in the bytes of ``bundle.json``, of a format that this version reads.

    Raises:
        BundleError: Not JSON, not an object, or of a newer format.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"bundle.json is not valid JSON ({error}).",
            expected="the file as Keepsight wrote it.",
            do="Copy the bundle again from where it was made; do not edit bundle.json by hand.",
        ) from error
    if not isinstance(values, dict):
        raise _wrong("bundle.json", type(values).__name__, "a JSON object")
    check_format(values)
    return values


def canonical(manifest: Mapping[str, Any]) -> bytes:
    """The bytes that a bundle's digest is taken over: JSON with sorted keys, without spaces, in UTF-8."""
    return json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _typed(values: Mapping[str, Any], name: str, kind: type) -> Any:
    if not isinstance(values[name], kind):
        raise _wrong(name, values[name], f"of JSON type {kind.__name__}")
    return values[name]


def _wrong(name: str, found: object, expected: str) -> BundleError:
    return BundleError(
        f"{name} of the bundle is {found!r}.",
        expected=f"{expected}.",
        do="Correct it where the bundle was made, and make it anew.",
        entry=name,
    )
