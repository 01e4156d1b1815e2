"""``/{project}/pictures/{picture_id}``: a picture for the eye, in a few sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from keepsight.errors import NotFoundError
from keepsight.runtime import pictured
from keepsight.store.workspace import Workspace
from keepsight.web import figures, pictures
from keepsight.web.pages.common import Project, Space

router = APIRouter(include_in_schema=False)


def as_png(
    ws: Workspace, project: str, picture_id: str, answer: Mapping[str, Any] | None, *, background: str
) -> Response:
    """What the project's task makes of a stored picture and an answer to it.

    Raises:
        NotFoundError: There is no answer that may be seen. BadInputError: The task makes no pictures, or the
            background is no colour.
    """
    if answer is None:
        raise NotFoundError(
            "There is nothing to make a picture of.",
            expected="a label, or a model's answer that may be seen.",
            do="Label the picture first.",
        )
    task = ws.settings(project)["task"]
    content = pictured.picture(task, answer, ws.blobs.get(picture_id), background=pictured.colour(background))
    return Response(content, media_type=pictured.MEDIA_TYPE, headers={"cache-control": "private, no-store"})


# Long enough to page back and forth, short enough that an erased picture does not stay in a browser.
KEEP_S = 300


@router.get("/{project}/pictures/{picture_id}")
def picture(ws: Space, project: Project, picture_id: str, side: int = 320) -> Response:
    """A JPEG of the picture."""
    if not figures.has_picture(ws, project, picture_id):
        raise NotFoundError(
            f"{project} has no picture {picture_id[:12]}.",
            expected="a picture of its data or its review queue.",
            do="Load the page again; it may have been erased.",
        )
    return Response(
        pictures.scaled(ws, picture_id, side=side),
        media_type="image/jpeg",
        headers={"cache-control": f"private, max-age={KEEP_S}"},
    )
