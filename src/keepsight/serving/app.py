"""The HTTP routes of serving, for any source of models and any sink of events.

``create_app`` makes the whole application of a server without a database; the dashboard adds its pages to the same.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

import keepsight
from keepsight.errors import KeepsightError
from keepsight.runtime import pictured
from keepsight.runtime.decode import DEFAULT_LIMITS, Limits, decode
from keepsight.serving import inbox, videos
from keepsight.serving.answers import Answer, Answerer, trace_of
from keepsight.serving.answers import Request as PictureRequest
from keepsight.serving.bodies import Pictures, read_json, read_pictures
from keepsight.serving.events import EventSink, ModelSource, Served
from keepsight.serving.guard import Guard, GuardMiddleware, Identity
from keepsight.serving.metrics import CONTENT_TYPE, Metrics
from keepsight.serving.problems import Render, error_response, install, json_response

# A verdict may hold the mask of a large picture.
MAX_JSON_BYTES = 512 * 1024

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

# FastAPI would measure by itself where OpenTelemetry is set up; nothing leaves a workspace unasked.
_NO_TELEMETRY: Any = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


@dataclass(frozen=True)
class Services:
    """What the routes work with; ``app.state.services``."""

    source: ModelSource
    sink: EventSink
    answerer: Answerer
    metrics: Metrics
    limits: Limits
    clock: Callable[[], float]


def create_app(
    source: ModelSource,
    sink: EventSink,
    guard: Guard,
    *,
    threads: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    max_waiting: int = 256,
    server_id: str = "",
    clock: Callable[[], float] = time.time,
    lifespan: Lifespan | None = None,
    render: Render = error_response,
) -> FastAPI:
    """An application that answers pictures.

    Args:
        source: Where models come from; started and closed with the application.
        sink: Where events go; likewise.
        guard: Who may do what.
        threads: Pictures computed at once; None: one per core.
        limits: The largest picture, and the longest raw body, taken.
        max_waiting: Pictures that may wait for a thread before requests are refused.
        server_id: Told in the metrics.
        clock: Seconds since 1970.
        lifespan: What else runs with the application, within the life of source and sink.
        render: How errors look.
    """
    services = Services(
        source=source,
        sink=sink,
        answerer=Answerer(sink, threads=threads or os.cpu_count() or 1, max_waiting=max_waiting, clock=clock),
        metrics=Metrics(server_id=server_id),
        limits=limits,
        clock=clock,
    )
    app = FastAPI(
        title="Keepsight",
        version=keepsight.__version__,
        description="Answers pictures, and learns from what people say about the answers.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(services, lifespan),
        telemetry=_NO_TELEMETRY,
    )
    app.state.services = services
    install(app, render=render)
    app.add_middleware(GuardMiddleware, guard=guard)
    _add_routes(app, services)
    return app


def _lifespan(services: Services, inner: Lifespan | None) -> Lifespan:
    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            # Closed in the reverse order: first the pictures in work, then their events, then the models.
            for start, close in (
                (services.source.start, services.source.close),
                (services.sink.start, services.sink.close),
                (None, services.answerer.close),
            ):
                if start is not None:
                    try:
                        await asyncio.to_thread(start)
                    except KeepsightError as error:
                        app.state.startup_error = error
                        raise
                stack.push_async_callback(asyncio.to_thread, close)
            if inner is not None:
                await stack.enter_async_context(inner(app))
            yield

    return life


def _add_routes(app: FastAPI, services: Services) -> None:
    async def predict(request: Request, project: str) -> Response:
        return await _counted(services, project, partial(_predict, services, request))

    async def predict_video(request: Request, project: str) -> Response:
        return await _counted(services, project, partial(_predict_video, services, request))

    async def feedback(request: Request, project: str) -> Response:
        content = await read_json(request, limit=MAX_JSON_BYTES)
        return json_response(await inbox.take_feedback(services, project, content, author=_author(request)))

    async def events(request: Request, project: str) -> Response:
        # A record may carry a picture in base64, so this body is longer than a picture may be.
        content = await read_json(request, limit=2 * services.limits.max_bytes)
        return json_response(await inbox.take_events(services, project, content, sender=_author(request)))

    async def healthz() -> Response:
        return json_response({"status": "ok"})

    async def readyz() -> Response:
        return json_response({"status": "ready", "models": dict(services.source.check())})

    async def metrics() -> Response:
        models = {item.project: (item.model_number, item.bundle_digest) for item in services.source.served()}
        return Response(services.metrics.text(models=models, waiting=services.sink.waiting()), media_type=CONTENT_TYPE)

    post: dict[str, Any] = {"methods": ["POST"], "tags": ["serving"], "response_class": Response}
    app.add_api_route("/v1/{project}/predict", predict, **post, openapi_extra=_PREDICT_DOC, summary="Answer a picture")
    app.add_api_route(
        "/v1/{project}/predict-video",
        predict_video,
        **post,
        openapi_extra=videos.DOC,
        summary="Answer the frames of a video",
    )
    app.add_api_route(
        "/v1/{project}/feedback", feedback, **post, openapi_extra=_FEEDBACK_DOC, summary="Judge an answer"
    )
    app.add_api_route(
        "/v1/{project}/events", events, **post, openapi_extra=_EVENTS_DOC, summary="Take a spool's records"
    )
    for path, probe, summary in (
        ("/healthz", healthz, "The process runs"),
        ("/readyz", readyz, "All deployed models are loaded"),
        ("/metrics", metrics, "Prometheus metrics"),
    ):
        app.add_api_route(path, probe, methods=["GET"], tags=["server"], response_class=Response, summary=summary)
        app.add_api_route(path, probe, methods=["HEAD"], include_in_schema=False)


async def _counted(services: Services, project: str, answer: Callable[[Served], Awaitable[Response]]) -> Response:
    """What the live model answers; an error is counted."""
    counted = project
    try:
        try:
            served = services.source.current(project)
        except KeepsightError:
            counted = ""  # a name that a stranger made up must not become a label
            raise
        return await answer(served)
    except KeepsightError as error:
        services.metrics.failed(project=counted, status=error.status, code=error.code)
        raise


async def _predict(services: Services, request: Request, served: Served) -> Response:
    pictures = await read_pictures(request, limit=services.limits.max_bytes)
    asked = PictureRequest(
        source=pictures.source, meta=pictures.meta, trace_id=trace_of(request.headers.get("traceparent"))
    )
    if pictures.form == "picture":
        return await _pictured(services, served, pictures, asked)
    if not pictures.many:
        return json_response(await _answer(services, served, pictures.files[0], asked))
    return json_response(
        await asyncio.gather(*[_answer_of_many(services, served, data, asked) for data in pictures.files])
    )


async def _predict_video(services: Services, request: Request, served: Served) -> Response:
    return json_response(await videos.answered(request, served, answer=partial(_answer, services, served)))


async def _answer(services: Services, served: Served, data: bytes, asked: PictureRequest) -> dict[str, Any]:
    answer: Answer = await asyncio.wrap_future(services.answerer.submit(served, data, request=asked))
    body = answer.finish()
    services.metrics.answered(
        project=served.project,
        model=str(served.model_number),
        decision=answer.event.decision,
        selected_by=answer.event.selected_by,
        latency_ms=body["timings_ms"]["total"],
    )
    return body


async def _pictured(services: Services, served: Served, pictures: Pictures, asked: PictureRequest) -> Response:
    """The answer as a PNG, and in headers what a client needs to take part in the loop."""
    task, data, given = served.predictor.info.task, pictures.files[0], pictures.background
    pictured.check(task)
    behind = (
        pictured.colour(given)
        if isinstance(given, str)
        else await asyncio.to_thread(decode, given, limits=services.limits)
    )
    body = await _answer(services, served, data, asked)
    work = partial(pictured.picture, task, body, data, background=behind, limits=services.limits)
    content = await asyncio.wrap_future(services.answerer.also(work))
    headers = {
        "X-Keepsight-Prediction-Id": body["prediction_id"],
        "X-Keepsight-Decision": body["decision"],
        "X-Keepsight-Confidence": f"{body['confidence']:.4f}",
    }
    return Response(content, media_type=pictured.MEDIA_TYPE, headers=headers)


async def _answer_of_many(services: Services, served: Served, data: bytes, asked: PictureRequest) -> dict[str, Any]:
    try:
        return await _answer(services, served, data, asked)
    except KeepsightError as error:
        services.metrics.failed(project=served.project, status=error.status, code=error.code)
        return error.as_dict()


def _author(request: Request) -> str:
    identity: Identity | None = request.state.identity
    return identity.name if identity is not None else ""


_PREDICT_DOC: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "picture": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "source": {"type": "string"},
                        "group": {"type": "string"},
                        "background": {"type": "string", "format": "binary"},
                    },
                }
            },
        },
    },
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}, "description": text}
        for name, text in (
            ("source", "Camera, shop or client."),
            ("group", "Pictures of one thing; never on both sides of a split."),
            ("meta.NAME", "Any further fact."),
            ("as", "picture: the answer as a PNG, where the task makes one, its id and decision in headers."),
            ("background", "Of that picture: a colour such as white or %23ffffff; else transparent."),
        )
    ],
}
_FEEDBACK_DOC: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["prediction_id"],
                    "properties": {
                        "prediction_id": {"type": "string"},
                        "correct": {"type": "boolean"},
                        "label": {"type": "string"},
                        "id": {"type": "string", "description": "Tells a repeated request from a second opinion."},
                    },
                }
            }
        },
    },
}
_EVENTS_DOC: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "events": {"type": "array", "items": {"type": "object"}},
                        "feedback": {"type": "array", "items": {"type": "object"}},
                    },
                }
            }
        },
    },
}
