"""A workspace: one company's settings, database, blobs and keys, opened together."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from keepsight import config as settings
from keepsight.errors import ConflictError, NotFoundError
from keepsight.store import audit, migrate, schema
from keepsight.store.blobs import Blobs
from keepsight.store.database import Database, insert_ignore
from keepsight.store.keys import KEY_VARIABLE, check_key, create_key, load_keys

Clock = Callable[[], float]

# Below the state folder: what runs keep while they work, a folder for each.
RUNS = "work"


class Workspace:
    """What every command and server works on.

    Use ``Workspace.open``; attributes: ``config``, ``database``, ``keys``, ``blobs``, ``clock`` (seconds since 1970).
    """

    def __init__(
        self, config: settings.Config, *, environment: Mapping[str, str] | None = None, clock: Clock = time.time
    ) -> None:
        environment = os.environ if environment is None else environment
        self.config = config
        self.clock = clock
        self.state = config.state
        durable = config["serving.log"] == "durable"
        self.database = Database(self.state, url=config["database"], durable=durable)
        with ExitStack() as undo:
            undo.callback(self.database.close)
            migrate.upgrade(self.database)
            self._make_key(environment)
            self.keys = load_keys(self.state, environment=environment)
            self._check_key()
            self.blobs = Blobs(self.database, self.keys, url=config["blobs"], folder=self.state)
            undo.pop_all()

    @classmethod
    def open(
        cls, root: Path | None = None, *, environment: Mapping[str, str] | None = None, clock: Clock = time.time
    ) -> Workspace:
        """The workspace at ``root``, or the one at or above the current folder.

        Raises:
            NotFoundError: There is no ``keepsight.yaml``.
            SettingsError, StorageError, WorkspaceKeyError: It cannot be opened.
        """
        root = settings.find_root(Path.cwd()) if root is None else root.resolve()
        if not (root / settings.FILE_NAME).is_file():
            settings.find_root(root)
        return cls(settings.load(root, environment=environment), environment=environment, clock=clock)

    def close(self) -> None:
        """Closes the database connections."""
        self.database.close()

    # --- projects -----------------------------------------------------------------------------------------------------

    def ensure_project(self, name: str) -> None:
        """Makes the database row of a project that ``keepsight.yaml`` names.

        Raises:
            NotFoundError: The file does not name it and the database does not know it.
            ConflictError: The file gives it another task than it was made with.
        """
        with self.database.read() as connection:
            row = connection.execute(sa.select(schema.project).where(schema.project.c.id == name)).one_or_none()
        if row is None:
            task = self.config.project(name)["task"]
            with self.database.write() as connection:
                values = {"id": name, "task": task, "created_at": self.clock()}
                insert_ignore(connection, schema.project, [values])
        elif name in self.config.projects and self.config.project(name)["task"] != row.task:
            raise ConflictError(
                f"{settings.FILE_NAME} gives {name} the task {self.config.project(name)['task']}.",
                expected=f"{row.task}, which it was made with.",
                do="Start a new project for another task.",
            )

    def projects(self) -> list[str]:
        """Names of all projects, of the file and of the database."""
        with self.database.read() as connection:
            known = connection.scalars(sa.select(schema.project.c.id)).all()
        return sorted({*known, *self.config.projects})

    def check_project(self, name: str) -> str:
        """The name, if there is such a project.

        Raises:
            NotFoundError: There is none; names those that exist.
        """
        if name not in self.projects():
            raise NotFoundError.among("project", name, self.projects(), do=f"Add it with `keepsight init {name}`.")
        self.ensure_project(name)
        return name

    def settings(self, project: str) -> settings.ProjectSettings:
        """Resolved settings of a project: file, environment, database, default, in this order."""
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(schema.setting.c.name, schema.setting.c.value).where(schema.setting.c.project_id == project)
            ).all()
        return self.config.project(project, {row.name: row.value for row in rows})

    def set_setting(self, project: str, name: str, value: Any, *, actor: str) -> None:
        """Stores one setting of a project, audited.

        Raises:
            SettingsError: Unknown, out of range. ConflictError: ``keepsight.yaml`` or the environment sets it.
        """
        value = settings.parse_value(name, value, origin="the request")
        origin = self.settings(project).values[name].origin
        if origin in {"file", "environment"}:
            raise ConflictError(
                f"{name} is set in the {origin}.",
                expected="a setting that only the database holds.",
                do=f"Change it in {settings.FILE_NAME}." if origin == "file" else "Unset the variable.",
            )
        now = self.clock()
        row = {"project_id": project, "name": name, "value": value, "author": actor, "set_at": now}
        with self.database.write() as connection:
            connection.execute(
                sa.delete(schema.setting).where(schema.setting.c.project_id == project, schema.setting.c.name == name)
            )
            connection.execute(sa.insert(schema.setting).values(row))
            audit.append(
                self.database,
                connection,
                actor=actor,
                action="setting.change",
                target=f"{project}/{name}",
                now=now,
                detail={"value": value},
            )

    # --- keys ---------------------------------------------------------------------------------------------------------

    def _stored(self, name: str) -> str | None:
        with self.database.read() as connection:
            return connection.scalar(sa.select(schema.workspace.c.value).where(schema.workspace.c.name == name))

    def _make_key(self, environment: Mapping[str, str]) -> None:
        if self._stored("key_check") is None and KEY_VARIABLE not in environment:
            create_key(self.state)

    def _check_key(self) -> None:
        stored = self._stored("key_check")
        if stored is None:
            rows = [
                {"name": "key_check", "value": self.keys.check},
                {"name": "id", "value": uuid.uuid4().hex},
            ]
            with self.database.write() as connection:
                insert_ignore(connection, schema.workspace, rows)
            stored = self._stored("key_check")
        check_key(self.keys, str(stored))
