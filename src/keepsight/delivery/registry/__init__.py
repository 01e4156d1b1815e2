"""Where runs without a workspace of their own find the live model and leave what they made: ``registry.url``.

A registry holds the champions of a project in the order of their release, and every bundle that a run made beside its
report. It also holds which picture stands on which side of the split, so that no run on an empty machine tests the
champion on pictures that it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from keepsight.errors import ConflictError
from keepsight.runtime.bundle import Bundle

Decision = Literal["deploy", "ask", "reject"]
Splits = Mapping[str, str]
"""Splits of pictures, by the sha256 of their bytes in hex."""


@dataclass(frozen=True)
class Release:
    """A run's model as it goes into a registry.

    Attributes:
        bundle: The model.
        decision: What its gate said.
        expected: Digest of the champion that it was compared with; None where there was none.
        report: Markdown.
        splits: Of all pictures of its data set.
        facts: What else stands in its record: run, gate, data set; JSON-able, without pictures or their names.
    """

    bundle: Bundle
    decision: Decision
    expected: str | None
    report: str
    splits: Splits
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RegisteredBundle:
    """The live model of a registry; ``number`` counts the releases of the project from 1."""

    project: str
    number: int
    bundle: Bundle
    splits: Splits
    actor: str
    reason: str
    released_at: float

    @property
    def digest(self) -> str:
        """Of the bundle."""
        return self.bundle.digest


@dataclass(frozen=True)
class Candidate:
    """A model in a registry that is not live: the record of its release, without its bundle."""

    digest: str
    decision: str
    expected: str | None
    actor: str
    reason: str
    pushed_at: float
    facts: Mapping[str, Any]


class Registry(Protocol):
    """What ``keepsight ci`` asks of a registry."""

    def champion(self, project: str) -> RegisteredBundle | None:
        """The live model, verified; None where none was released yet."""

    def push(self, project: str, release: Release, *, actor: str, reason: str) -> int | None:
        """Stores a run's model; one that its gate lets pass becomes the champion, and its number is returned.

        The bundle is there before the champion names it, so that nobody finds half a release.

        Raises:
            ConflictError: Another champion than ``release.expected`` is live now; the bundle stays as a candidate.
            StorageError: The registry cannot be written.
        """

    def candidates(self, project: str) -> list[Candidate]:
        """What was pushed and is not live, newest first."""

    def approve(self, project: str, digest: str, *, actor: str, reason: str) -> int:
        """Makes a stored model the champion because a person says so; its number.

        Args:
            project: The project.
            digest: Of the bundle, or its beginning.
            actor: Who.
            reason: Why.

        Raises:
            NotFoundError: No such model. BadInputError: No reason.
            ConflictError: It is live, or was compared with another champion than the live one.
        """


def open_registry(url: str, *, root: Path, mlflow_url: str | None = None) -> Registry:
    """The registry that ``registry.url`` names; folders are relative to ``root``, ``mlflow`` means ``mlflow_url``.

    Raises:
        SettingsError: It is no folder and no URL that is known.
    """
    if url == "mlflow" or url.startswith("mlflow+"):
        from keepsight.delivery.registry.mlflow import MlflowRegistry, address

        return MlflowRegistry(address(url, mlflow_url=mlflow_url), root=root)
    from keepsight.delivery.registry.bucket import BucketRegistry
    from keepsight.delivery.registry.stores import open_store

    return BucketRegistry(open_store(url, root=root, setting="registry.url"))


def another_champion(project: str, *, expected: str | None, found: str | None) -> ConflictError:
    """The error where a model was compared with another champion than the live one."""
    return ConflictError(
        f"The live model of {project} in the registry is {_named(found)} now; the new one was compared with "
        f"{_named(expected)}.",
        expected="a comparison with the live model.",
        do="Run it again: it is then compared with that one.",
        expected_digest=expected,
        found_digest=found,
    )


def _named(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
