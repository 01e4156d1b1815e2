"""``/``: all projects, each in a sentence; ``/audit``: who did what."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from keepsight.errors import IntegrityError
from keepsight.store import audit, schema
from keepsight.web import render
from keepsight.web.pages.common import Project, Since, Space
from keepsight.web.standing import standing
from keepsight.web.waiting import waiting

router = APIRouter(include_in_schema=False)

RECORDS = 100


@router.get("/")
def overview(request: Request, ws: Space) -> Response:
    """Every project with its standing."""
    names = ws.projects()
    decisions = [item for name in names for item in waiting(ws, name)]
    return render.page(
        request,
        "overview.html",
        projects=names,
        standings=[standing(ws, name) for name in names],
        decisions=decisions,
    )


@router.get("/audit")
def audit_log(request: Request, ws: Space, before: Since = None) -> Response:
    """The audit chain, newest first, with the result of checking all of it."""
    import sqlalchemy as sa

    broken: IntegrityError | None = None
    count = 0
    try:
        count = audit.verify(ws.database)
    except IntegrityError as error:
        broken = error
    query = sa.select(schema.audit).order_by(schema.audit.c.seq.desc()).limit(RECORDS)
    if before is not None:
        query = query.where(schema.audit.c.seq < before)
    with ws.database.read() as connection:
        records = connection.execute(query).mappings().all()
    older = records[-1]["seq"] if len(records) == RECORDS and records[-1]["seq"] > 1 else None
    return render.page(
        request, "audit.html", projects=ws.projects(), records=records, count=count, broken=broken, older=older
    )


@router.get("/{project}")
def project_root(project: Project) -> Response:
    """A project's first page is its monitor."""
    return RedirectResponse(f"/{project}/monitor", status_code=307)
