"""``/docs``: the REST routes in one page, from ``/openapi.json``; no script, nothing from elsewhere."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from keepsight.web import render

router = APIRouter(include_in_schema=False)

METHODS = ("get", "post", "put", "patch", "delete")


@router.get("/docs")
def docs(request: Request) -> Response:
    """Every route with what it takes."""
    described = request.app.openapi()
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in described["paths"].items():
        for method in METHODS:
            if method in methods:
                route = {"path": path, "method": method.upper(), **methods[method]}
                groups.setdefault(str((route.get("tags") or ["other"])[0]), []).append(route)
    schemas = described.get("components", {}).get("schemas", {})
    return render.page(request, "docs.html", groups=groups, described=described["info"], schemas=schemas)
