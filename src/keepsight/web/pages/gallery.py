"""``/{project}/gallery``: who is known, enrolling by dropping pictures, taking somebody out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from keepsight import tasks
from keepsight.data import gallery, samples
from keepsight.data.gallery import enrolling
from keepsight.data.samples import Sample
from keepsight.errors import BadInputError, KeepsightError
from keepsight.runtime.decode import DEFAULT_LIMITS
from keepsight.serving.bodies import read_form
from keepsight.store.workspace import Workspace
from keepsight.web import galleries
from keepsight.web.pages.common import Actor, Form, Project, Space, back, project_page

router = APIRouter(include_in_schema=False)

SHOWN_PEOPLE = 200
SHOWN_PICTURES = 6
JUDGING = ("test", "recent")


@dataclass(frozen=True)
class Person:
    """Somebody, with the pictures that they are known by."""

    name: str
    live: int
    pictures: list[Sample]


@router.get("/{project}/gallery")
def gallery_page(request: Request, ws: Space, project: Project, *, find: str = "") -> Response:
    """Everybody by name, with a few of their pictures."""
    return _page(request, ws, project, find=find)


@router.post("/{project}/gallery")
async def enrol(request: Request, ws: Space, project: Project, who: Actor) -> Response:
    """Enrols the pictures of the form, and says which could not be."""
    files, fields = await read_form(request, limit=DEFAULT_LIMITS.max_bytes)
    request.app.state.sessions.check_form(request.state.session, fields.get("form_key", ""))
    name = " ".join(fields.get("name", "").split())
    files = [data for data in files if data]
    if not name or not files:
        error = BadInputError(
            "There is no name." if not name else "There is no picture.",
            expected="a name and at least one picture.",
            do="Type the name, then drop the pictures or choose their files.",
        )
        return await run_in_threadpool(_page, request, ws, project, name=name, troubles=[error])
    taken = await run_in_threadpool(galleries.take, request, ws, project, name=name, files=files, who=who)
    if taken.failed:
        troubles = list(taken.failed)
        return await run_in_threadpool(
            _page, request, ws, project, name=name, enrolled=len(taken.done), troubles=troubles
        )
    return back(f"/{project}/gallery", said="enrolled")


@router.post("/{project}/gallery/remove")
def remove(request: Request, ws: Space, project: Project, who: Actor, form: Form) -> Response:
    """Takes somebody, or one picture, out."""
    enrolling.remove(ws, project, form.get("name", ""), actor=who, sample_id=form.get("sample") or None)
    galleries.follow(request)
    return back(f"/{project}/gallery", said="taken_out")


def _page(
    request: Request,
    ws: Workspace,
    project: str,
    *,
    find: str = "",
    name: str = "",
    enrolled: int = 0,
    troubles: list[KeepsightError] | None = None,
) -> Response:
    gallery.check(ws, project)
    known = galleries.overview(request, ws, project)
    task = tasks.get(ws.settings(project)["task"])
    pictures: dict[str, list[Sample]] = {}
    for row in samples.current(ws, project):
        if row.value is not None and row.split not in JUDGING:
            for label in task.classes(row.value):
                pictures.setdefault(label, []).append(row)
    words = find.casefold().split()
    names = [label for label in sorted({*known.names, *pictures}, key=str.casefold)
             if all(word in label.casefold() for word in words)]  # fmt: skip
    context: dict[str, Any] = {
        "people": [Person(label, known.names.get(label, 0), pictures.get(label, [])) for label in names[:SHOWN_PEOPLE]],
        "total": len(known.names),
        "hidden": max(0, len(names) - SHOWN_PEOPLE),
        "model": known.model,
        "find": find,
        "name": name,
        "enrolled": enrolled,
        "troubles": troubles or [],
        "most": SHOWN_PICTURES,
        "faces": ws.settings(project)["gallery.subject"] == "face",
    }
    return project_page(request, "gallery.html", project, active="gallery", **context)
