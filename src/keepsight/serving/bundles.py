"""Serving bundles from disk, without a database: in a container, a function, on a camera."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from keepsight import config
from keepsight.errors import BadInputError, NotFoundError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.predictor import Predictor
from keepsight.serving.events import Served, ServingSettings


class BundleSource:
    """Serves one bundle for each project; what is served never changes.

    Args:
        paths: Folder or .zip of the bundle, by project.
        environment: Where settings such as ``KEEPSIGHT_SERVING_TOP_K`` stand.
        log: Whether events are recorded; without that no picture is selected for an audit.
    """

    def __init__(
        self, paths: Mapping[str, Path], *, environment: Mapping[str, str] | None = None, log: bool = True
    ) -> None:
        self._paths = {config.check_project_name(project): path for project, path in paths.items()}
        self._environment = dict(os.environ if environment is None else environment)
        self._log = log
        self._served: dict[str, Served] = {}

    def start(self) -> None:
        """Loads and warms all bundles.

        Raises:
            BundleError: One cannot be served. NotFoundError: It lacks the variant that ``serving.variant`` names.
        """
        for project, path in self._paths.items():
            bundle = Bundle.open(path)
            settings = self._settings(project)
            predictor = Predictor(bundle, variant=settings.variant)
            predictor.warm()
            number = bundle.info.extra.get("model_number", 0)
            self._served[project] = Served(
                project=project,
                model_number=number if isinstance(number, int) else 0,
                bundle_digest=bundle.digest,
                predictor=predictor,
                settings=settings,
                variant=predictor.variant,
            )

    def projects(self) -> Sequence[str]:
        """Names of all projects."""
        return list(self._paths)

    def served(self) -> Sequence[Served]:
        """All that is loaded."""
        return list(self._served.values())

    def current(self, project: str) -> Served:
        """What answers the project.

        Raises:
            NotFoundError: This server has no bundle for it.
        """
        served = self._served.get(project)
        if served is None:
            raise NotFoundError.among("project", project, self._paths)
        return served

    def check(self) -> Mapping[str, int]:
        """Model numbers by project."""
        return {served.project: served.model_number for served in self.served()}

    def close(self) -> None:
        """Nothing has to be stopped."""

    def _settings(self, project: str) -> ServingSettings:
        known = config.Config(root=Path(), workspace={}, projects={project: {}}, environment=self._environment)
        values = known.project(project)
        return ServingSettings(
            top_k=values["serving.top_k"],
            video_s=values["serving.video_seconds"],
            min_confidence=values["review.min_confidence"],
            audit_share=values["review.audit_share"] if self._log else 0.0,
            variant=values["serving.variant"],
        )


def named_paths(entries: Sequence[str]) -> dict[str, Path]:
    """Paths by project from entries such as ``shop=bundles/shop.zip``; without a name the file's own name counts.

    Raises:
        BadInputError: Two entries have one name.
    """
    paths: dict[str, Path] = {}
    for entry in entries:
        name, separator, path = entry.rpartition("=")
        project = config.check_project_name(name if separator else Path(path).stem)
        if project in paths:
            raise BadInputError(
                f"Two bundles are named {project}.",
                expected="one bundle for each project.",
                do="Name them: --bundle shop=FILE --bundle office=FILE.",
            )
        paths[project] = Path(path)
    return paths
