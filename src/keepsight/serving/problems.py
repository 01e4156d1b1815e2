"""Errors as HTTP answers: one JSON shape for all of them, whoever raised them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from keepsight.errors import BadInputError, KeepsightError, NotFoundError

Render = Callable[[Request, KeepsightError], Response]


class MethodNotAllowedError(KeepsightError):
    """The path exists, but not for this method."""

    code = "method_not_allowed"
    status = 405


class HttpError(KeepsightError):
    """Any other refusal of the HTTP layer."""

    code = "http_error"
    status = 400


class InternalError(KeepsightError):
    """A fault of Keepsight itself; the log has the traceback."""

    code = "internal"
    status = 500


def json_response(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def error_response(_request: Request | None, error: KeepsightError) -> Response:
    """The JSON answer to an error, with the headers that its status asks for."""
    headers: dict[str, str] = {}
    if "retry_after_s" in error.details:
        headers["Retry-After"] = str(error.details["retry_after_s"])
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if "allow" in error.details:
        headers["Allow"] = ", ".join(error.details["allow"])
    return json_response(error.as_dict(), status=error.status, headers=headers)


def install(app: FastAPI, *, render: Render = error_response) -> None:
    """Makes ``app`` answer every error through ``render``."""

    async def told(request: Request, error: Any) -> Response:
        return render(request, error)

    async def invalid(request: Request, error: Any) -> Response:
        return render(request, _invalid(error))

    async def refused(request: Request, error: Any) -> Response:
        return render(request, _refused(request, error))

    async def gone(_request: Request, _error: Exception) -> Response:
        # Nobody is there to read it; 499 is what proxies log for a client that went away.
        return Response(status_code=499)

    async def internal(request: Request, _error: Exception) -> Response:
        # The server logs the traceback: it gets the exception again after this answer has left.
        return render(
            request,
            InternalError(
                "Keepsight failed in an unexpected way.",
                expected="an answer.",
                do="Look into the server's log, and report what stands there.",
            ),
        )

    handlers: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
        KeepsightError: told,
        RequestValidationError: invalid,
        HTTPException: refused,
        ClientDisconnect: gone,
        Exception: internal,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _invalid(error: RequestValidationError) -> BadInputError:
    faults = [{"where": ".".join(map(str, item["loc"])), "what": item["msg"]} for item in error.errors()]
    told = "; ".join(f"{fault['where']}: {fault['what']}" for fault in faults)
    return BadInputError(
        f"The request does not fit: {told}.",
        expected="what /openapi.json describes for this path.",
        do="Correct the named parts and send it again.",
        faults=faults,
    )


def _refused(request: Request, error: HTTPException) -> KeepsightError:
    method, path = request.method, request.url.path
    if error.status_code == 404:
        return NotFoundError(
            f"There is no {path} here.",
            expected="a path that /openapi.json lists.",
            do="Correct the path.",
            path=path,
        )
    if error.status_code == 405:
        allow = [item.strip() for item in (error.headers or {}).get("Allow", "").split(",") if item.strip()]
        return MethodNotAllowedError(
            f"{path} does not take {method}.",
            expected=" or ".join(allow) + "." if allow else "another method.",
            do=f"Use {allow[0]}." if allow else "Look the path up in /openapi.json.",
            allow=allow,
        )
    other = HttpError(
        f"The request was refused: {error.detail}.", expected="a request as /openapi.json describes.", do="Correct it."
    )
    other.status = error.status_code
    return other
