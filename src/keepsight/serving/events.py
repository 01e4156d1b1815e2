"""What serving tells the rest of the loop, and the two protocols it knows: where models come from, where events go.

A database, a bundle on disk, an encrypted spool: the answering code is the same. The columns of ``Event`` and
``Feedback`` are those of the tables ``event`` and ``feedback``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from keepsight.errors import BadInputError
from keepsight.runtime.decode import PictureInfo
from keepsight.runtime.predictor import Predictor

ID_PATTERN = re.compile(r"[0-9a-f]{32}")
FEEDBACK_KINDS = ("correct", "wrong", "label")

# The widest texts that the tables take.
MAX_LABEL = 200
MAX_SOURCE = 200
MAX_AUTHOR = 120


@dataclass(frozen=True)
class Event:
    """One served prediction.

    Attributes:
        id: 32 hex digits; the ``prediction_id`` of the answer.
        project_id: The project's name.
        at: Seconds since 1970.
        model_number: Of the model that answered; 0 for a bundle without a number.
        bundle_digest: Digest of its bundle.
        variant: ``float`` or ``int8``.
        prediction: The task-typed output as JSON.
        label: The answer in one word, for counting.
        confidence: 0 to 1, calibrated.
        decision: ``auto`` or ``review``.
        quality: Figures of the picture's quality.
        reasons: ``[{code, text}]``, why a person should look.
        features: The network's features, float16 little endian.
        picture_id: Blob id where the picture was kept in a workspace.
        sealed: What the sink's ``keep`` said of the kept picture.
        selected_by: ``audit``, ``uncertain`` or None: not kept.
        probability: Chance that this event had of being selected in this way; of an event that was not selected, the
            chance of an audit that it missed.
        source: Camera, shop or client.
        trace_id: 32 hex digits that follow the picture through the loop.
        meta: What the client said about the picture, ``group`` among it.
        latency_ms: From the complete request to this event.
    """

    id: str
    project_id: str
    at: float
    model_number: int
    bundle_digest: str
    variant: str
    prediction: Mapping[str, Any]
    label: str
    confidence: float
    decision: str
    quality: Mapping[str, Any]
    reasons: Sequence[Mapping[str, str]]
    features: bytes | None
    picture_id: str | None
    sealed: Mapping[str, Any] | None
    selected_by: str | None
    probability: float
    source: str
    trace_id: str
    meta: Mapping[str, Any]
    latency_ms: float

    def row(self) -> dict[str, Any]:
        """The columns of the table, by name."""
        return {name: getattr(self, name) for name in _EVENT_COLUMNS}

    def as_dict(self) -> dict[str, Any]:
        """The event as JSON: the row, with the features in base64."""
        values = self.row()
        values["features"] = None if self.features is None else base64.b64encode(self.features).decode()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Event:
        """The event that ``as_dict`` wrote, checked field by field: it may come from another machine.

        Raises:
            BadInputError: A field is missing, unknown or does not fit.
        """
        checked = _checked(values, cls, _EVENT_CHECKS)
        features = checked["features"]
        if features is not None:
            try:
                checked["features"] = base64.b64decode(features, validate=True)
            except binascii.Error:
                raise _unfit("features", "base64 of float16 numbers") from None
        return cls(**checked)


@dataclass(frozen=True)
class Feedback:
    """What a client said about one answer: ``correct``, ``wrong``, or the right ``label`` (in ``value``)."""

    id: str
    project_id: str
    event_id: str
    at: float
    kind: str
    value: Mapping[str, Any] | None
    author: str

    def as_dict(self) -> dict[str, Any]:
        """The columns of the table, by name; also its JSON."""
        return asdict(self)

    row = as_dict

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Feedback:
        """The feedback that ``as_dict`` wrote, checked field by field.

        Raises:
            BadInputError: A field is missing, unknown or does not fit.
        """
        return cls(**_checked(values, cls, _FEEDBACK_CHECKS))


@dataclass(frozen=True)
class ServingSettings:
    """The settings of a project that serving needs.

    Attributes:
        top_k: How many alternatives an answer lists.
        min_confidence: Below it a person is asked; None: what the bundle's threshold says.
        audit_share: Random share of pictures kept for a blind check.
        variant: The network that should answer, ``float`` or ``int8``; ``Served.variant`` is the one that does.
        video_s: Longest part of a video that is answered, in seconds.
    """

    top_k: int = 5
    min_confidence: float | None = None
    audit_share: float = 0.05
    variant: str = "float"
    video_s: float = 600.0


@dataclass(frozen=True)
class Served:
    """What answers a project now. A request takes one and uses it from beginning to end, so a swap mixes nothing."""

    project: str
    model_number: int
    bundle_digest: str
    predictor: Predictor
    settings: ServingSettings
    variant: str = "float"

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names of the model."""
        return self.predictor.bundle.info.labels


class ModelSource(Protocol):
    """Where models come from."""

    def start(self) -> None:
        """Loads what should be served, and from now on follows it."""

    def projects(self) -> Sequence[str]:
        """Names of all projects."""

    def current(self, project: str) -> Served:
        """What answers the project now.

        Raises:
            NotFoundError: There is no such project. NotReadyError: It has no model yet.
        """

    def served(self) -> Sequence[Served]:
        """All that is loaded."""

    def check(self) -> Mapping[str, int]:
        """Model numbers by project, once everything that is deployed is loaded.

        Raises:
            NotReadyError: Something is still loading, or following has stopped.
        """

    def close(self) -> None:
        """Stops following."""


class EventSink(Protocol):
    """Where events go. The futures are done when the record survives a power cut, or fail with a KeepsightError."""

    def start(self) -> None:
        """Opens what the sink writes to."""

    def keep(self, data: bytes, *, info: PictureInfo) -> Mapping[str, Any]:
        """Keeps a selected picture; what it gives goes into ``Event.sealed`` (``id`` in it is the picture's id).

        Raises:
            StorageError: There is no room, or the store cannot be reached.
        """

    def write(self, event: Event) -> Future[None]:
        """Records an event; one with a known id is taken already.

        Raises:
            NotReadyError: Too much is waiting to be written.
        """

    def feedback(self, feedback: Feedback) -> Future[None]:
        """Records feedback; the same rules."""

    def knows(self, project: str, event_ids: Sequence[str]) -> set[str] | None:
        """Which of these events are recorded; None where the sink cannot tell."""

    def number_of(self, project: str, bundle_digest: str) -> int:
        """The number that a model has here; 0 where it has none."""

    def waiting(self) -> int:
        """Records that are accepted and not yet where they belong."""

    def close(self) -> None:
        """Writes what is waiting, then stops."""


_EVENT_COLUMNS = tuple(item.name for item in fields(Event))
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def plain_text(name: str, value: str, *, longest: int) -> str:
    """The text, if a table takes it.

    Raises:
        BadInputError: It is too long or holds control characters (a database takes no NUL).
    """
    if len(value) > longest or _CONTROL.search(value):
        raise _unfit(name, f"a text of at most {longest} characters without control characters")
    return value


def _unfit(name: str, expected: str) -> BadInputError:
    return BadInputError(
        f"{name} does not fit.", expected=f"{expected}.", do=f"Correct {name} and send it again.", field=name
    )


# What each field may be: its types, and the longest text.
_EVENT_CHECKS: dict[str, tuple[tuple[type, ...], int]] = {
    "id": ((str,), 32),
    "project_id": ((str,), 40),
    "at": ((int, float), 0),
    "model_number": ((int,), 0),
    "bundle_digest": ((str,), 64),
    "variant": ((str,), 10),
    "prediction": ((dict,), 0),
    "label": ((str,), MAX_LABEL),
    "confidence": ((int, float), 0),
    "decision": ((str,), 10),
    "quality": ((dict,), 0),
    "reasons": ((list,), 0),
    "features": ((str, type(None)), 1_000_000),
    "picture_id": ((str, type(None)), 64),
    "sealed": ((dict, type(None)), 0),
    "selected_by": ((str, type(None)), 20),
    "probability": ((int, float), 0),
    "source": ((str,), MAX_SOURCE),
    "trace_id": ((str,), 32),
    "meta": ((dict,), 0),
    "latency_ms": ((int, float), 0),
}
_FEEDBACK_CHECKS: dict[str, tuple[tuple[type, ...], int]] = {
    "id": ((str,), 32),
    "project_id": ((str,), 40),
    "event_id": ((str,), 32),
    "at": ((int, float), 0),
    "kind": ((str,), 10),
    "value": ((dict, type(None)), 0),
    "author": ((str,), MAX_AUTHOR),
}
_CHOICES = {
    "variant": ("float", "int8"),
    "decision": ("auto", "review"),
    "selected_by": (None, "audit", "uncertain"),
    "kind": FEEDBACK_KINDS,
}
_RANGES = {
    "confidence": (0.0, 1.0),
    "probability": (0.0, 1.0),
    "latency_ms": (0.0, 1e9),
    "at": (0.0, 1e11),
    "model_number": (0, 2**31 - 1),
}


def _checked(
    values: Mapping[str, Any], kind: type, checks: Mapping[str, tuple[tuple[type, ...], int]]
) -> dict[str, Any]:
    names = set(checks)
    if not isinstance(values, Mapping) or set(values) != names:
        given = set(values) if isinstance(values, Mapping) else set()
        odd = sorted(names ^ given)
        raise BadInputError(
            f"The {kind.__name__.lower()} lacks or has too much: {', '.join(map(str, odd))[:500]}.",
            expected=f"exactly {', '.join(sorted(names))}.",
            do="Send it as a Keepsight server writes it; update the older of the two.",
        )
    for name, (types, longest) in checks.items():
        value: Any = values[name]
        if not any(isinstance(value, item) for item in types) or isinstance(value, bool):
            raise _unfit(name, "a " + " or ".join(item.__name__ for item in types))
        if isinstance(value, str):
            plain_text(name, value, longest=longest)
        if name in _CHOICES and value not in _CHOICES[name]:
            raise _unfit(name, "one of " + ", ".join(str(item) for item in _CHOICES[name]))
        if name in _RANGES and not _RANGES[name][0] <= value <= _RANGES[name][1]:
            raise _unfit(name, f"a number from {_RANGES[name][0]:g} to {_RANGES[name][1]:g}")
        if name in ("id", "event_id", "trace_id") and not ID_PATTERN.fullmatch(value):
            raise _unfit(name, "32 hex digits")
    return dict(values)
