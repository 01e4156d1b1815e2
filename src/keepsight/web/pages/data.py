"""``/{project}/data``: classes, versions and their differences, the pictures themselves."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from keepsight import tasks
from keepsight.data import diffs, samples, versions
from keepsight.review import classes
from keepsight.runtime import pictured
from keepsight.web import figures, render, widgets
from keepsight.web.pages.common import Actor, Form, Number, Offset, Project, Since, Space, back, is_htmx, project_page
from keepsight.web.pages.pictures import as_png

router = APIRouter(include_in_schema=False)

PAGE = 48
SHOWN_CHANGES = 60
SPLITS = ("train", "val", "test", "recent", "pending")


@router.get("/{project}/data")
def data(
    request: Request, ws: Space, project: Project, *, label: str | None = None, split: str = "", offset: Offset = 0
) -> Response:
    """The data set as it stands, its versions, and a page of its pictures."""
    label = None if label == "*" else label
    grid = figures.sample_pictures(ws, project, label=label, split=split, offset=offset, limit=PAGE + 1)
    shown: dict[str, Any] = {
        "project": project,
        "grid": grid[:PAGE],
        "more": offset + PAGE if len(grid) > PAGE else None,
        "label": label,
        "split": split,
    }
    if is_htmx(request):
        return render.page(request, "data_grid.html", **shown)
    counts = figures.class_counts(ws, project)
    used = [name for name in SPLITS if any(name in item.splits for item in counts)]
    return project_page(
        request,
        "data.html",
        active="data",
        versions=versions.log(ws, project),
        counts=counts,
        splits=used,
        totals={name: sum(item.splits.get(name, 0) for item in counts) for name in used},
        largest=max((item.total for item in counts), default=0),
        uncommitted=figures.uncommitted(ws, project),
        **shown,
    )


@router.get("/{project}/data/versions/{number}")
def version(request: Request, ws: Space, project: Project, number: Number, since: Since = None) -> Response:
    """One version and what changed in it, or since an earlier one."""
    found = versions.get(ws, project, number)
    before = number - 1 if since is None else since
    changed = diffs.between(ws, project, before, number)
    return project_page(
        request,
        "version.html",
        project,
        active="data",
        version=found,
        before=before,
        diff=changed,
        counts=changed.counts(),
        changes=changed.changes[:SHOWN_CHANGES],
        hidden=max(0, len(changed.changes) - SHOWN_CHANGES),
        summary=samples.summaries(ws, project),
        numbers=[item.number for item in versions.log(ws, project) if item.number < number],
    )


@router.post("/{project}/data/versions/{number}/tag")
def tag(ws: Space, project: Project, number: Number, who: Actor, form: Form) -> Response:
    """Gives a version a name."""
    versions.tag(ws, project, form.get("name", "").strip(), number, actor=who)
    return back(f"/{project}/data/versions/{number}", said="tagged")


@router.get("/{project}/data/samples/{sample_id}")
def sample(request: Request, ws: Space, project: Project, sample_id: str) -> Response:
    """One picture with its label, which can be corrected here."""
    task = ws.settings(project)["task"]
    found = samples.get(ws, project, sample_id)
    return project_page(
        request,
        "sample.html",
        project,
        active="data",
        sample=found,
        task=task,
        words=widgets.get(task).words,
        editor=widgets.get(task).editor(
            found.value, classes.known(ws, project), size=figures.size_of(ws, found.picture_id)
        ),
        script=widgets.script(task),
        pictured=found.value is not None and pictured.offered(task),
    )


@router.get("/{project}/data/samples/{sample_id}/picture")
def sample_as_picture(ws: Space, project: Project, sample_id: str, background: str = "") -> Response:
    """What the task makes of a labelled picture, as a PNG to keep."""
    found = samples.get(ws, project, sample_id)
    return as_png(ws, project, found.picture_id, found.value, background=background)


@router.post("/{project}/data/samples/{sample_id}")
def correct(ws: Space, project: Project, sample_id: str, who: Actor, form: Form) -> Response:
    """Gives a picture another label; it counts from the next version on."""
    name = ws.settings(project)["task"]
    task = tasks.get(name)
    raw, new_class = widgets.get(name).read(form)
    value = task.canonical(task.parse(raw))
    classes.check(task.classes(value), classes.known(ws, project), new_class=new_class)
    with ws.database.write() as connection:
        samples.annotate(connection, ws, project, sample_id, value, author=who, origin="review")
    return back(f"/{project}/data/samples/{sample_id}", said="saved")
