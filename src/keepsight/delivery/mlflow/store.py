"""A tracking server or SQL store of MLflow, as far as Keepsight uses it.

Names there: an experiment and a registered model ``keepsight-PROJECT``; a run is found again by the tag
``keepsight.key``, a model version by the tag ``keepsight.bundle``. MLflow itself is imported on connecting.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from keepsight.errors import IntegrityError, MissingExtraError, SettingsError, StorageError
from keepsight.runtime.bundle import Bundle

KEY_TAG = "keepsight.key"
BUNDLE_TAG = "keepsight.bundle"
NUMBER_TAG = "keepsight.model_number"
CHAMPION, CHALLENGER = "champion", "challenger"
MODEL_FOLDER, BUNDLE_FOLDER = "model", "bundle"
ARTIFACTS = "mlflow-artifacts"
SQL_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")
SCHEMES = (*SQL_SCHEMES, "http", "https", "databricks")
# What MLflow would do by itself: report its use, and try a server that is away for minutes.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class MlflowStore:
    """An open connection; errors of MLflow come out as ours.

    Attributes:
        client: MLflow's own client.
        shown: The address without user and password.
    """

    def __init__(self, url: str, *, root: Path) -> None:
        """Connects; the first time, a SQL store makes its tables, which takes some seconds.

        Args:
            url: ``http(s)://...``, ``sqlite:///file.db`` (relative to ``root``), another SQL URL or ``databricks``.
            root: The workspace; a SQL store keeps its files in ``mlflow-artifacts`` there.

        Raises:
            SettingsError: The URL is none of these. MissingExtraError: MLflow is not installed.
            StorageError: It cannot be reached.
        """
        self.shown = without_secrets(url)
        user, at, _ = urlsplit(url).netloc.rpartition("@")
        self._secret = user + at or "\0"
        scheme = urlsplit(url).scheme or url
        if scheme.partition("+")[0] not in SCHEMES:
            raise SettingsError(
                f'"{self.shown}" is no address of MLflow.',
                expected="https://host, sqlite:///mlflow.db, postgresql://host/database or databricks.",
                do="Correct mlflow.url or registry.url in keepsight.yaml.",
            )
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise MissingExtraError(
                "MLflow is not installed.", expected="the extra [mlflow].", do="pip install 'keepsight[mlflow]'"
            ) from None
        self._files: str | None = None
        if scheme.partition("+")[0] in SQL_SCHEMES:
            self._files = (root.resolve() / ARTIFACTS).as_uri()
        with self.told():
            address = _absolute(url, root)
            self.client = MlflowClient(tracking_uri=address, registry_uri=address)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turns what MLflow, its database or the network raise into a StorageError."""
        import sqlalchemy as sa
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, sa.exc.SQLAlchemyError, OSError) as error:
            text = str(error).replace(self._secret, "").strip()
            raise StorageError(
                f"MLflow at {self.shown} failed: {text.splitlines()[0][:300] if text else type(error).__name__}",
                expected="a server or SQL store that can be reached, read and written.",
                do="Check the address, the network, and MLflow's credentials in the environment.",
            ) from error

    def experiment(self, project: str) -> str:
        """The id of the project's experiment, which is made where it is missing."""
        with self.told():
            found = self.client.get_experiment_by_name(name_of(project))
            if found is None:
                return str(self.client.create_experiment(name_of(project), artifact_location=self._place(project)))
            return str(found.experiment_id)

    def find_run(self, project: str, key: str) -> Any:
        """MLflow's run with this key, or None."""
        experiment = self.experiment(project)
        with self.told():
            found = self.client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        return found[0] if found else None

    def versions(self, project: str) -> list[Any]:
        """All versions of the project's registered model, newest first."""
        with self.told():
            found, token = [], None
            while True:
                page = self.client.search_model_versions(f"name = '{name_of(project)}'", page_token=token)
                found += page
                token = page.token
                if not token:
                    return sorted(found, key=lambda version: -int(version.version))

    def version_of(self, project: str, digest: str) -> Any:
        """The version that holds the bundle of this digest, or None."""
        return next((found for found in self.versions(project) if found.tags.get(BUNDLE_TAG) == digest), None)

    def add_version(self, project: str, run: Any, tags: Mapping[str, str]) -> Any:
        """A model in a run's artifacts as the next version of the registered model."""
        with self.told():
            if not list(self.client.search_registered_models(f"name = '{name_of(project)}'")):
                self.client.create_registered_model(name_of(project), tags={"keepsight.project": project})
            return self.client.create_model_version(
                name_of(project),
                source=f"{run.info.artifact_uri}/{MODEL_FOLDER}",
                run_id=run.info.run_id,
                tags=dict(tags),
            )

    def tag_version(self, project: str, version: Any, tags: Mapping[str, str]) -> None:
        """Sets tags of a version."""
        with self.told():
            for name, value in tags.items():
                self.client.set_model_version_tag(name_of(project), str(version.version), name, value)

    def alias(self, project: str, alias: str) -> Any:
        """The version with this alias, or None."""
        with self.told():
            models = list(self.client.search_registered_models(f"name = '{name_of(project)}'"))
            number = dict(models[0].aliases).get(alias) if models else None
            return None if number is None else self.client.get_model_version(name_of(project), str(number))

    def set_alias(self, project: str, alias: str, version: Any) -> bool:
        """Points an alias to a version, or removes it (None); whether that changed anything."""
        before = self.alias(project, alias)
        if (before and str(before.version)) == (version and str(version.version)):
            return False
        with self.told():
            if version is None:
                self.client.delete_registered_model_alias(name_of(project), alias)
            else:
                self.client.set_registered_model_alias(name_of(project), alias, str(version.version))
        return True

    def read_bundle(self, version: Any) -> Bundle:
        """The bundle of a version, verified.

        Raises:
            IntegrityError: It is another one than the version's tag says.
        """
        with tempfile.TemporaryDirectory(prefix="keepsight-mlflow-") as place, self.told():
            path = self.client.download_artifacts(version.run_id, f"{MODEL_FOLDER}/{BUNDLE_FOLDER}", place)
            bundle = Bundle.open(path)
            bundle.verify()
        if bundle.digest != version.tags.get(BUNDLE_TAG):
            raise IntegrityError(
                f"Version {version.version} of {version.name} in MLflow holds another bundle ({bundle.digest[:12]}).",
                expected="the bundle that was stored.",
                do="Restore MLflow's files from a backup, or choose another version.",
            )
        return bundle

    def read_text(self, version: Any, path: str) -> str:
        """A text file among the artifacts of a version's run."""
        with tempfile.TemporaryDirectory(prefix="keepsight-mlflow-") as place, self.told():
            return Path(self.client.download_artifacts(version.run_id, path, place)).read_text(encoding="utf-8")

    def write_files(self, run: Any, files: Mapping[str, str], bundle: Bundle | None) -> None:
        """Texts by path, and a bundle that ``mlflow.pyfunc`` can load, as artifacts of a run."""
        from keepsight.delivery.mlflow.pyfunc import save_model

        with tempfile.TemporaryDirectory(prefix="keepsight-mlflow-") as place, self.told():
            for path, text in files.items():
                (Path(place) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(place) / path).write_text(text, encoding="utf-8")
            if bundle is not None:
                save_model(bundle, Path(place) / MODEL_FOLDER, run_id=run.info.run_id)
            if any(Path(place).iterdir()):
                self.client.log_artifacts(run.info.run_id, place)

    def _place(self, project: str) -> str | None:
        return None if self._files is None else f"{self._files}/{project}"


def name_of(project: str) -> str:
    """Of the project's experiment and registered model."""
    return f"keepsight-{project}"


def without_secrets(url: str) -> str:
    """The address without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")) if parts.netloc else url


def _absolute(url: str, root: Path) -> str:
    path = url.removeprefix("sqlite:///")
    return url if path == url or path.startswith("/") else f"sqlite:///{root.resolve() / path}"
