"""From the bytes of a picture to the answer: predict, decide, select for review, keep, log.

Everything here runs in a pool of threads, one per core; only the wait for the disk happens outside, so that the next
picture is computed while the events of the last ones are written together.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from keepsight.errors import NotReadyError
from keepsight.runtime.predictor import Prediction
from keepsight.runtime.quality import REASON_TEXTS
from keepsight.serving.events import MAX_LABEL, Event, EventSink, Served

UNPROVEN = "unproven"
LOW_CONFIDENCE = "low_confidence"
RETRY_AFTER_S = 1

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True)
class Request:
    """What a client says with a picture.

    Attributes:
        source: Camera, shop or client.
        meta: Further facts; ``group`` keeps pictures of one thing on one side of a split.
        trace_id: 32 hex digits, or empty: the event's id is taken.
        received: ``time.perf_counter`` when the request was complete.
    """

    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    trace_id: str = ""
    received: float = field(default_factory=time.perf_counter)


@dataclass
class Answer:
    """An answer; it may leave once ``logged`` is done."""

    served: Served
    event: Event
    body: dict[str, Any]
    logged: Future[None]
    request: Request
    written: float

    def finish(self) -> dict[str, Any]:
        """The body with the last two timings; call it when ``logged`` is done."""
        now = time.perf_counter()
        self.body["timings_ms"]["log"] = round((now - self.written) * 1000, 3)
        self.body["timings_ms"]["total"] = round((now - self.request.received) * 1000, 3)
        return self.body


class Answerer:
    """Answers pictures on a pool of threads.

    Args:
        sink: Where events go.
        threads: How many pictures are computed at once.
        max_waiting: Pictures that may wait for a thread; more are refused, so that waiting stays short.
        clock: Seconds since 1970.
        new_id: Gives 32 hex digits.
    """

    def __init__(
        self,
        sink: EventSink,
        *,
        threads: int,
        max_waiting: int = 256,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._sink = sink
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="keepsight-answer")
        self._room = threading.BoundedSemaphore(threads + max_waiting)
        self._clock = clock
        self._new_id = new_id

    def submit(self, served: Served, data: bytes, *, request: Request) -> Future[Answer]:
        """The answer to a picture, as soon as it is computed and its event is logged.

        Raises:
            NotReadyError: Too many pictures wait already.
        """
        if not self._room.acquire(blocking=False):
            raise overloaded("pictures wait for an answer")
        try:
            computed = self._pool.submit(self.answer, served, data, request=request)
        except RuntimeError:
            self._room.release()
            raise _stopping() from None
        # One future for both waits: the event loop is woken once.
        ready: Future[Answer] = Future()
        ready.set_running_or_notify_cancel()
        computed.add_done_callback(lambda _computed: self._room.release())
        computed.add_done_callback(partial(_when_computed, ready))
        return ready

    def answer(self, served: Served, data: bytes, *, request: Request) -> Answer:
        """Computes the answer in this thread and hands its event to the sink.

        Raises:
            PictureError: The picture cannot be read. StorageError: It cannot be kept.
        """
        settings = served.settings
        prediction = served.predictor.predict(data, top_k=settings.top_k)
        reasons = decide(prediction, served=served)
        event_id = self._new_id()
        selected_by, probability = select(event_id, uncertain=bool(reasons), share=settings.audit_share)
        sealed = None if selected_by is None else self._sink.keep(data, info=prediction.info)
        output = prediction.output.as_dict()
        quality = prediction.quality.as_dict()
        written = time.perf_counter()
        event = Event(
            id=event_id,
            project_id=served.project,
            at=self._clock(),
            model_number=served.model_number,
            bundle_digest=served.bundle_digest,
            variant=served.variant,
            prediction=output,
            label=prediction.output.label[:MAX_LABEL],
            confidence=prediction.output.confidence,
            decision="review" if reasons else "auto",
            quality=quality,
            reasons=reasons,
            features=prediction.features.astype(np.dtype("<f2")).tobytes(),
            picture_id=None if sealed is None else sealed.get("id"),
            sealed=sealed,
            selected_by=selected_by,
            probability=probability,
            source=request.source,
            trace_id=request.trace_id or event_id,
            meta=request.meta,
            latency_ms=(written - request.received) * 1000,
        )
        body = {
            "prediction_id": event_id,
            **output,
            "decision": event.decision,
            "reasons": reasons,
            "quality": quality,
            "model": {"version": served.model_number, "digest": served.bundle_digest},
            "timings_ms": {name: round(value, 3) for name, value in prediction.timings_ms.items()},
            "trace_id": event.trace_id,
        }
        return Answer(served, event, body, self._sink.write(event), request, written)

    def also(self, work: Callable[[], bytes]) -> Future[bytes]:
        """Does other work of a request on the same threads, within the same limits.

        Raises:
            NotReadyError: Too much waits already, or the server is stopping.
        """
        if not self._room.acquire(blocking=False):
            raise overloaded("pictures wait for an answer")
        try:
            done = self._pool.submit(work)
        except RuntimeError:
            self._room.release()
            raise _stopping() from None
        done.add_done_callback(lambda _done: self._room.release())
        return done

    def close(self) -> None:
        """Finishes what was submitted; nothing more is taken."""
        self._pool.shutdown(wait=True)


def _when_computed(ready: Future[Answer], computed: Future[Answer]) -> None:
    error = computed.exception()
    if error is not None:
        ready.set_exception(error)
    else:
        computed.result().logged.add_done_callback(partial(_when_logged, ready, computed.result()))


def _when_logged(ready: Future[Answer], answer: Answer, logged: Future[None]) -> None:
    error = logged.exception()
    if error is not None:
        ready.set_exception(error)
    else:
        ready.set_result(answer)


def decide(prediction: Prediction, *, served: Served) -> list[dict[str, str]]:
    """Why a person should look at this answer, as ``{code, text}``; empty where it may be used as it is.

    ``review.min_confidence`` replaces the threshold that the model learned from its own data.
    """
    least = served.settings.min_confidence
    if least is None:
        least = served.predictor.info.auto_threshold
    reasons = [{"code": code, "text": REASON_TEXTS[code]} for code in prediction.quality_reasons]
    if least > 1.0:
        reasons.append({"code": UNPROVEN, "text": "The model has not been tried on enough pictures to answer alone."})
    elif prediction.output.confidence < least:
        reasons.append({"code": LOW_CONFIDENCE, "text": "The model is not sure."})
    return reasons


def select(event_id: str, *, uncertain: bool, share: float) -> tuple[str | None, float]:
    """Whether a picture is kept for a person, as ``(selected_by, probability)``.

    The audit is a random sample of all traffic, drawn from a hash of the event's id, so that it does not depend on the
    answer; an event in it counts as audited even where the model is unsure. All other unsure ones are kept as well. For
    an event that is not kept the probability is that of the audit that missed it.
    """
    draw = int.from_bytes(hashlib.sha256(b"audit " + event_id.encode()).digest()[:8], "big") / 2**64
    if draw < share:
        return "audit", share
    return ("uncertain", 1.0) if uncertain else (None, share)


def trace_of(traceparent: str | None) -> str:
    """The trace id of a W3C ``traceparent`` header; empty where there is none or it is malformed."""
    match = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent else None
    return match.group(1) if match and match.group(1) != "0" * 32 else ""


def _stopping() -> NotReadyError:
    return NotReadyError(
        "The server is stopping.", expected="a running server.", do="Send the picture again in a moment."
    )


def overloaded(what: str) -> NotReadyError:
    """The error for a full queue; its answer carries ``Retry-After``."""
    return NotReadyError(
        f"Too many {what}.",
        expected="fewer requests at once than this server can take.",
        do=f"Send it again after {RETRY_AFTER_S} s; for more traffic run more workers (`keepsight serve --workers N`).",
        retry_after_s=RETRY_AFTER_S,
    )
