"""What comes in about pictures that were answered before: people's feedback, and the records of spools elsewhere."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol

from keepsight import tasks
from keepsight.errors import AnnotationError, BadInputError, NotFoundError
from keepsight.runtime.decode import Limits, probe
from keepsight.serving.events import ID_PATTERN, MAX_AUTHOR, Event, EventSink, Feedback, ModelSource, Served, plain_text
from keepsight.serving.metrics import Metrics

MAX_RECORDS = 1000
MAX_ID = 100


class Services(Protocol):
    """The parts of a server that this module works with."""

    @property
    def source(self) -> ModelSource:
        """Where models come from."""

    @property
    def sink(self) -> EventSink:
        """Where events go."""

    @property
    def metrics(self) -> Metrics:
        """What is counted."""

    @property
    def limits(self) -> Limits:
        """The largest picture taken."""

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds since 1970."""


_JUDGES = ("correct", "label", "value")


async def take_feedback(services: Services, project: str, content: Mapping[str, Any], *, author: str) -> dict[str, Any]:
    """Records what a client says about one answer; sending the same again changes nothing.

    ``content`` has ``prediction_id`` and one of ``correct`` (true or false), ``label`` (the right class) and ``value``
    (the right annotation of the project's task). A client that gives different people's opinions gives each an ``id``.

    Raises:
        BadInputError: Something is missing or does not fit.
        AnnotationError: The model does not know the label.
        NotFoundError: No such project or prediction.
    """
    served = services.source.current(project)
    event_id, kind, value = _judgement(content)
    if value is not None:
        value = _known(value, served)
    known = await asyncio.to_thread(services.sink.knows, project, [event_id])
    if known is not None and event_id not in known:
        raise NotFoundError(
            f'There is no prediction "{event_id}" in {project}.',
            expected="the prediction_id of an answer of this project.",
            do="Take it from the answer that you judge.",
            kind="prediction",
            name=event_id,
        )
    mark = plain_text("id", _text(content, "id", default=""), longest=MAX_ID)
    # The id is made from what is said, so a request that is sent again is the same record.
    told = json.dumps([project, event_id, author, kind, value, mark], sort_keys=True)
    feedback = Feedback(
        id=hashlib.sha256(told.encode()).hexdigest()[:32],
        project_id=project,
        event_id=event_id,
        at=services.clock(),
        kind=kind,
        value=value,
        author=author[:MAX_AUTHOR],
    )
    await asyncio.wrap_future(services.sink.feedback(feedback))
    services.metrics.count("keepsight_feedback_total", project=project, kind=kind)
    return {"feedback_id": feedback.id, "prediction_id": event_id, "kind": kind}


def _known(raw: Any, served: Served) -> dict[str, Any]:
    """The annotation that is meant, of classes that the model knows."""
    task = tasks.get(served.predictor.info.task)
    value = task.canonical(task.parse(raw))
    for name in task.classes(value) if served.labels else ():
        if name not in served.labels:
            missing = NotFoundError.among("class", name, served.labels)
            raise AnnotationError(missing.found, expected=missing.expected, do=missing.do, **missing.details)
    return value


def _judgement(content: Mapping[str, Any]) -> tuple[str, str, Any]:
    unknown = sorted(set(content) - {"prediction_id", *_JUDGES, "id"})
    if unknown:
        raise BadInputError(
            f"The feedback has {', '.join(unknown)[:200]}.",
            expected="prediction_id; correct, label or value; and perhaps id.",
            do="Leave the others out.",
        )
    event_id = _text(content, "prediction_id")
    if not ID_PATTERN.fullmatch(event_id):
        raise BadInputError(
            f'"{event_id[:100]}" is no prediction_id.',
            expected="32 hex digits.",
            do="Take it from the answer that you judge.",
        )
    given = [name for name in _JUDGES if name in content]
    if len(given) != 1:
        raise BadInputError(
            f"The feedback has {' and '.join(given)}." if given else "The feedback judges nothing.",
            expected="correct (true or false), label (the right class), or value (the right annotation).",
            do="Send one of them.",
        )
    if "value" in content:
        return event_id, "label", content["value"]
    if "label" in content:
        return event_id, "label", {"label": _text(content, "label")}
    if not isinstance(content["correct"], bool):
        raise BadInputError(
            f"correct is {content['correct']!r}.", expected="true or false.", do="Send it without quotes."
        )
    return event_id, "correct" if content["correct"] else "wrong", None


def _text(content: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    value = content.get(name, default)
    if not isinstance(value, str):
        raise BadInputError(
            f"{name} is missing." if value is None else f"{name} is no text.", expected="a text.", do=f"Send {name}."
        )
    return value


async def take_events(services: Services, project: str, content: Mapping[str, Any], *, sender: str) -> dict[str, Any]:
    """Takes the records that a spool forwards: ``{taken, known, rejected: [{id, error}]}``.

    A record with a known id was taken before and is left as it is. A record that does not fit is listed and costs no
    other. Where the records cannot be written the request fails as a whole, and the spool sends them again.

    Raises:
        BadInputError: The lists are missing or too long.
        NotFoundError: No such project.
        StorageError, NotReadyError: The records could not be written.
    """
    if project not in services.source.projects():
        raise NotFoundError.among("project", project, services.source.projects())
    given = {name: content.get(name, []) for name in ("events", "feedback")}
    if set(content) - set(given) or not all(isinstance(items, list) for items in given.values()):
        raise BadInputError(
            "The body is not what a spool sends.",
            expected='{"events": [...], "feedback": [...]}.',
            do="Send the records as a Keepsight server writes them.",
        )
    count = sum(len(items) for items in given.values())
    if count > MAX_RECORDS:
        raise BadInputError(
            f"The request has {count} records.", expected=f"at most {MAX_RECORDS}.", do="Send them in parts."
        )
    rejected: list[dict[str, Any]] = []
    events: list[Event] = [*_parsed(given["events"], Event.from_dict, project, rejected)]
    judged: list[Feedback] = [*_parsed(given["feedback"], Feedback.from_dict, project, rejected)]
    known = await asyncio.to_thread(services.sink.knows, project, [event.id for event in events]) or set()
    futures: list[Future[None]] = []
    for event in events:
        if event.id in known:
            continue
        try:
            adopted = await asyncio.to_thread(_adopt, services, event)
        except BadInputError as error:
            rejected.append({"id": event.id, **error.as_dict()})
            continue
        futures.append(services.sink.write(adopted))
    for feedback in judged:
        author = f"{sender}/{feedback.author}" if feedback.author else sender
        futures.append(services.sink.feedback(replace(feedback, author=author[:MAX_AUTHOR])))
    await asyncio.gather(*map(asyncio.wrap_future, futures))
    return {"taken": len(futures), "known": len(known), "rejected": rejected}


def _parsed(
    items: Sequence[Any], parse: Callable[[Any], Any], project: str, rejected: list[dict[str, Any]]
) -> list[Any]:
    good: list[Any] = []
    for item in items:
        try:
            record = parse(item)
            if record.project_id != project:
                raise BadInputError(
                    f"The record belongs to {record.project_id}.",
                    expected=f"records of {project}.",
                    do="Send it to the address of its own project.",
                )
        except BadInputError as error:
            rejected.append({"id": item.get("id") if isinstance(item, dict) else None, **error.as_dict()})
        else:
            good.append(record)
    return good


def _adopt(services: Services, event: Event) -> Event:
    """A foreign event as this place records it: its picture kept here, its model by the number that it has here."""
    number = event.model_number or services.sink.number_of(event.project_id, event.bundle_digest)
    # Never what the sender says of an object of ours: only a picture that it brings.
    event = replace(event, model_number=number, picture_id=None)
    if event.sealed is None:
        return event
    try:
        data = base64.b64decode(event.sealed["data"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise BadInputError(
            "The record was selected for review and brings no picture.",
            expected="sealed.data with the picture in base64.",
            do="Update the server that sent it.",
        ) from None
    sealed = services.sink.keep(data, info=probe(data, limits=services.limits))
    return replace(event, sealed=sealed, picture_id=sealed.get("id"))
