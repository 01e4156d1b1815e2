"""The gallery over REST, under ``/v1/{project}/gallery``: who is known, enrolling, taking out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from keepsight.data import gallery
from keepsight.data.gallery import Enrolling, enrolling
from keepsight.errors import BadInputError, KeepsightError, NotReadyError
from keepsight.loop import galleries
from keepsight.runtime.decode import DEFAULT_LIMITS
from keepsight.serving.bodies import read_body, read_form
from keepsight.serving.database import DatabaseSource
from keepsight.store.workspace import Workspace
from keepsight.web.pages.common import Actor, Project, Space

router = APIRouter(prefix="/v1/{project}", tags=["gallery"])

Json = dict[str, Any]
LONGEST_NAME = 200


@dataclass(frozen=True)
class Taken:
    """What became of pictures that were sent to be enrolled: those that are in, and the errors of the others."""

    done: tuple[enrolling.Enrolled, ...]
    failed: tuple[KeepsightError, ...]


@router.get("/gallery", summary="Who is known")
def list_gallery(request: Request, ws: Space, project: Project) -> Json:
    """Everybody in the gallery of the model that this server answers with, and the similarity that it asks for."""
    return overview(request, ws, project).as_dict()


@router.post(
    "/gallery",
    summary="Enrol pictures",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "image/*": {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"picture": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                    }
                },
            },
        }
    },
)
async def enrol(
    request: Request,
    ws: Space,
    project: Project,
    who: Actor,
    *,
    name: str = Query(min_length=1, max_length=LONGEST_NAME, description="Who or what it is; a new name is enough."),
) -> Json:
    """Pictures of somebody, or something: this server knows them when it answers, the others within a second.

    A picture that cannot be enrolled is listed under ``failed``; where none can, its error is the answer.
    """
    files = await _files(request)
    found = await run_in_threadpool(take, request, ws, project, name=name, files=files, who=who)
    if not found.done:
        raise found.failed[0]
    return {
        "enrolled": [item.as_dict() for item in found.done],
        "failed": [error.as_dict()["error"] for error in found.failed],
    }


@router.delete("/gallery", summary="Take somebody out")
def remove(
    request: Request,
    ws: Space,
    project: Project,
    who: Actor,
    *,
    name: str = Query(max_length=LONGEST_NAME),
    sample: str | None = Query(None, description="Only this picture, by its sample id."),
) -> Json:
    """Takes the pictures out of the gallery and the data set; this server has forgotten them when it answers."""
    taken = enrolling.remove(ws, project, name, actor=who, sample_id=sample)
    follow(request)
    return {"name": name, "samples": [sample_id for sample_id, _ in taken.samples]}


async def _files(request: Request) -> list[bytes]:
    """The pictures of a multipart form, or the body as one.

    Raises:
        BadInputError: There is none.
    """
    limit = DEFAULT_LIMITS.max_bytes
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        files = [data for data in (await read_form(request, limit=4 * limit))[0] if data]
    else:
        body = await read_body(request, limit=limit)
        files = [body] if body else []
    if not files:
        raise BadInputError(
            "The request carries no picture.",
            expected="a picture as the body, or one or more multipart fields named picture.",
            do='For example: curl --data-binary @anna.jpg "URL?name=Anna".',
        )
    return files


def take(request: Request, ws: Workspace, project: str, *, name: str, files: list[bytes], who: str) -> Taken:
    """Enrols pictures one by one; a fault costs one."""
    live = engine_of(request, ws, project)
    engine = live or galleries.checking_engine(ws, project)
    done, failed = [], []
    for data in files:
        try:
            done.append(enrolling.enrol(ws, project, name, data, engine=engine, live=live is not None, actor=who))
        except KeepsightError as error:
            failed.append(error)
    follow(request)
    return Taken(tuple(done), tuple(failed))


def engine_of(request: Request, ws: Workspace, project: str) -> Enrolling | None:
    """The engine that this server answers the project with; None where no model is live."""
    gallery.check(ws, project)
    try:
        engine = request.app.state.services.source.current(project).predictor.engine
    except NotReadyError:
        return None
    return engine if isinstance(engine, Enrolling) else None


def follow(request: Request) -> None:
    """Takes in at once what this request changed, instead of with the next look."""
    source = request.app.state.services.source
    if isinstance(source, DatabaseSource):
        source.follow_galleries()


def overview(request: Request, ws: Workspace, project: str) -> galleries.Overview:
    """Who is known to the model that this server answers with."""
    engine = engine_of(request, ws, project)
    if engine is None:
        return galleries.overview(ws, project)
    number = request.app.state.services.source.current(project).model_number
    return galleries.Overview(number, engine.gallery.names(), engine.gallery.threshold)
