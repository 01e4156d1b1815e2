"""Every error that Keepsight raises on purpose, in one tree.

Each error has a stable ``code``, an HTTP ``status`` and a message in three parts: what was found, what was expected and
what to do now. Extra facts (numbers, names) travel in ``details``. Errors pickle, so they cross process borders whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class KeepsightError(Exception):
    """Base of all errors meant for a user.

    Args:
        found: What was met, as a sentence part ("the file is a text file").
        expected: What would have been right.
        do: What the user can do now, as an imperative.
        details: JSON-able facts for programs.
    """

    code: str = "error"
    status: int = 500

    def __init__(self, found: str, *, expected: str, do: str, **details: Any) -> None:
        super().__init__(found)
        self.found = found
        self.expected = expected
        self.do = do
        self.details: dict[str, Any] = details

    def __str__(self) -> str:
        return f"{self.found} Expected: {self.expected} What to do: {self.do}"

    def as_dict(self) -> dict[str, Any]:
        """The one JSON shape of an error: ``{"error": {code, found, expected, do, details}}``."""
        return {
            "error": {
                "code": self.code,
                "found": self.found,
                "expected": self.expected,
                "do": self.do,
                "details": self.details,
            }
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.found, self.expected, self.do, self.details))


def _rebuild(kind: type[KeepsightError], found: str, expected: str, do: str, details: dict[str, Any]) -> KeepsightError:
    return kind(found, expected=expected, do=do, **details)


class BadInputError(KeepsightError):
    """Something the caller sent is not what the call takes."""

    code = "bad_input"
    status = 422


class PictureError(BadInputError):
    """A picture cannot be read."""

    code = "picture_unreadable"


class PictureTooLargeError(PictureError):
    """A picture has more pixels or bytes than the limits allow (protection against decompression bombs)."""

    code = "picture_too_large"
    status = 413


class AnnotationError(BadInputError):
    """An annotation does not fit its task."""

    code = "annotation_invalid"


class DataError(BadInputError):
    """The data set does not allow what was asked for (no pictures, one class only)."""

    code = "data_insufficient"


class SettingsError(BadInputError):
    """``keepsight.yaml``, an environment variable or a stored setting is wrong."""

    code = "settings_invalid"


class BundleError(BadInputError):
    """A model bundle is incomplete, damaged or of an unknown format."""

    code = "bundle_invalid"


class WeightsError(KeepsightError):
    """Pretrained weights are missing, not what their sha256 says, or in a format that is not allowed."""

    code = "weights_unavailable"
    status = 500


class MissingExtraError(KeepsightError):
    """A command needs an optional part of Keepsight that is not installed."""

    code = "extra_missing"
    status = 501


class PluginError(KeepsightError):
    """An installed package that brings a task cannot be used: its name is taken, or it cannot be loaded."""

    code = "plugin_invalid"
    status = 500


class NotFoundError(KeepsightError):
    """A name that does not exist; says which do, and the nearest match."""

    code = "not_found"
    status = 404

    @classmethod
    def among(cls, kind: str, name: object, existing: Iterable[object], *, do: str | None = None) -> NotFoundError:
        """The error for ``name`` looked up among the ``existing`` names of one ``kind``."""
        names = [str(item) for item in existing]
        near = difflib.get_close_matches(str(name), names, n=1)
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        if do is None:
            do = f'Did you mean "{near[0]}"?' if near else f"Use one of the existing {kind} names."
        return cls(
            f'There is no {kind} "{name}".',
            expected=f"one of: {shown}." if names else f"an existing {kind}; there is none yet.",
            do=do,
            kind=kind,
            name=str(name),
            existing=names[:100],
        )


class ConflictError(KeepsightError):
    """The state does not allow the request now (a second server, a label changed meanwhile)."""

    code = "conflict"
    status = 409


class NotReadyError(KeepsightError):
    """The request is right, but nothing is deployed yet or the server is stopping."""

    code = "not_ready"
    status = 503


class UnauthorizedError(KeepsightError):
    """No token, or one that is not valid."""

    code = "unauthorized"
    status = 401


class ForbiddenError(KeepsightError):
    """A valid identity without the scope that the request needs, or a request from a foreign site."""

    code = "forbidden"
    status = 403


class StorageError(KeepsightError):
    """The database or the blob store cannot be written or read (full disk, read-only folder, server away)."""

    code = "storage_failed"
    status = 507


class WorkspaceKeyError(KeepsightError):
    """The workspace key is missing or is not the one that encrypted this workspace."""

    code = "workspace_key_wrong"
    status = 500


class IntegrityError(KeepsightError):
    """Stored content does not match its digest."""

    code = "integrity_broken"
    status = 500


class TrainingError(KeepsightError):
    """Training could not produce a model."""

    code = "training_failed"
    status = 500


class BudgetError(KeepsightError):
    """Training would cost more time or money than was allowed."""

    code = "budget_exceeded"
    status = 402


class ExecutorError(KeepsightError):
    """The Ray cluster that work should run on cannot be reached, or lost the work."""

    code = "executor_failed"
    status = 503


class CancelledError(KeepsightError):
    """Work was stopped on request."""

    code = "cancelled"
    status = 409
