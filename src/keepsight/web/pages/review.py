"""``/{project}/review``: one picture at a time, answered by a click or a key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from keepsight.errors import AnnotationError, ConflictError, KeepsightError, NotFoundError
from keepsight.review import classes, queue, verdicts
from keepsight.runtime import pictured
from keepsight.store.workspace import Workspace
from keepsight.web import figures, render, widgets
from keepsight.web.figures import day_start
from keepsight.web.pages.common import Actor, Form, Project, Space, back, is_htmx, project_page
from keepsight.web.pages.pictures import as_png

router = APIRouter(include_in_schema=False)

CANNOT_TELL = "cannot tell"


@router.get("/{project}/review")
def review(request: Request, ws: Space, project: Project, who: Actor, *, item: str = "", after: str = "") -> Response:
    """The next picture, or the one asked for; ``after`` is an answered one of which the page tells."""
    outcome = None
    if after:
        answered = queue.get(ws, project, after)
        outcome = answered if answered.author == who else None
    shown = _asked(ws, project, item) or queue.next_item(ws, project, author=who)
    return _page(request, ws, project, who, shown=shown, outcome=outcome)


@router.get("/{project}/review/{event_id}/picture")
def answer_as_picture(ws: Space, project: Project, event_id: str, background: str = "") -> Response:
    """What the task makes of a picture and the model's answer, as a PNG to keep; not while the answer is hidden."""
    item = queue.get(ws, project, event_id)
    return as_png(ws, project, item.picture_id, item.prediction, background=background)


@router.post("/{project}/review/undo")
def undo(request: Request, ws: Space, project: Project, who: Actor, form: Form) -> Response:  # noqa: ARG001
    """Takes the last answer back and shows its picture again."""
    try:
        item = verdicts.undo(ws, project, author=who)
    except (ConflictError, NotFoundError) as error:
        return _page(request, ws, project, who, shown=queue.next_item(ws, project, author=who), error=error)
    if is_htmx(request):
        return _page(request, ws, project, who, shown=item, undone=True)
    return back(f"/{project}/review", item=item.event_id, said="undone")


@router.post("/{project}/review/{event_id}/answer")
def answer(request: Request, ws: Space, project: Project, event_id: str, *, who: Actor, form: Form) -> Response:
    """Takes a verdict and goes on with the next picture."""
    widget = widgets.get(ws.settings(project)["task"])
    try:
        raw, new_class = widget.read(form)
        done = verdicts.answer(ws, project, event_id, raw, author=who, new_class=new_class)
    except AnnotationError as error:
        return _page(request, ws, project, who, shown=queue.get(ws, project, event_id), error=error)
    except ConflictError as error:
        return _page(request, ws, project, who, shown=queue.next_item(ws, project, author=who), error=error)
    return _go_on(request, ws, project, who, done.item)


@router.post("/{project}/review/{event_id}/skip")
def skip(request: Request, ws: Space, project: Project, event_id: str, *, who: Actor, form: Form) -> Response:
    """Leaves a picture without a label."""
    try:
        done = verdicts.skip(ws, project, event_id, author=who, reason=form.get("reason", "") or CANNOT_TELL)
    except ConflictError as error:
        return _page(request, ws, project, who, shown=queue.next_item(ws, project, author=who), error=error)
    return _go_on(request, ws, project, who, done.item)


def _go_on(request: Request, ws: Workspace, project: str, who: str, answered: queue.ReviewItem) -> Response:
    if not is_htmx(request):
        return back(f"/{project}/review", after=answered.event_id)
    return _page(request, ws, project, who, shown=queue.next_item(ws, project, author=who), outcome=answered)


def _asked(ws: Workspace, project: str, event_id: str) -> queue.ReviewItem | None:
    if not event_id:
        return None
    item = queue.get(ws, project, event_id)
    return item if item.answered_at is None else None


def _page(
    request: Request,
    ws: Workspace,
    project: str,
    who: str,
    *,
    shown: queue.ReviewItem | None,
    outcome: queue.ReviewItem | None = None,
    error: KeepsightError | None = None,
    undone: bool = False,
) -> Response:
    task = ws.settings(project)["task"]
    widget = widgets.get(task)
    counts = queue.counts(ws, project, author=who, since=day_start(ws.clock()))
    ahead = [item for item in queue.upcoming(ws, project, author=who, limit=3) if item != shown]
    context: dict[str, Any] = {
        "project": project,
        "task": task,
        "item": shown,
        "editor": None
        if shown is None
        else widget.editor(shown.prediction, classes.known(ws, project), size=figures.size_of(ws, shown.picture_id)),
        "ahead": ahead[:2],
        "counts": counts,
        "outcome": outcome,
        "words": widget.words,
        "script": widgets.script(task),
        "error": error,
        "undone": undone,
        "pictured": shown is not None and shown.prediction is not None and pictured.offered(task),
    }
    if is_htmx(request):
        return render.page(request, "review_card.html", **context)
    return project_page(request, "review.html", active="review", **context)
