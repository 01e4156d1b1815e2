"""Errors as JSON and back, so that they cross a process border or a database whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from keepsight.errors import KeepsightError


def error_to_json(error: KeepsightError) -> dict[str, Any]:
    """The error's JSON shape (code, found, expected, do, details) with its status and the names of its classes."""
    shape: dict[str, Any] = error.as_dict()["error"]
    return {**shape, "status": error.status, "classes": [kind.__name__ for kind in type(error).__mro__]}


def error_from_json(shape: Mapping[str, Any]) -> KeepsightError:
    """The error that :func:`error_to_json` wrote.

    A class that this process does not know (a plug-in's, raised in a child that imported it) comes back as its nearest
    known ancestor with the code and status of the original.
    """
    known = {kind.__name__: kind for kind in _tree(KeepsightError)}
    kind = next((known[name] for name in shape.get("classes", ()) if name in known), KeepsightError)
    error = kind(shape["found"], expected=shape["expected"], do=shape["do"])
    error.details = dict(shape.get("details", {}))
    error.code = shape["code"]
    error.status = shape.get("status", kind.status)
    return error


def _tree(kind: type[KeepsightError]) -> Iterator[type[KeepsightError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
