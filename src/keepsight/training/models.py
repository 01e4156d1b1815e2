"""The registry of a project's models: one numbered row per bundle.

A model is a ``challenger`` until it is promoted (``champion``), replaced (``archived``) or ``discarded``. The bundle
itself is an encrypted blob, so that every server of the workspace can load it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepsight.data.gallery import bundles
from keepsight.errors import ConflictError, NotFoundError, NotReadyError
from keepsight.runtime.bundle import Bundle
from keepsight.store import audit, schema
from keepsight.store.workspace import Workspace


@dataclass(frozen=True)
class Model:
    """One row of the registry; ``metrics`` are those of the test split."""

    project: str
    number: int
    bundle_digest: str
    blob_id: str
    run_id: str | None
    status: str
    dataset_version: int | None
    metrics: dict[str, Any]
    created_at: float

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return {
            "project": self.project,
            "number": self.number,
            "status": self.status,
            "bundle_digest": self.bundle_digest,
            "run_id": self.run_id,
            "dataset_version": self.dataset_version,
            "metrics": self.metrics,
            "created_at": self.created_at,
        }


def register(
    ws: Workspace,
    project: str,
    bundle: Bundle,
    *,
    run_id: str | None,
    dataset_version: int | None,
    metrics: dict[str, Any],
    actor: str,
) -> Model:
    """Stores a bundle as the project's next challenger; once per run, however often it is called."""
    # First, so that whatever is erased from now on finds the bundle that is about to hold it.
    bundles.note(ws, project, bundle)
    if run_id is not None:
        with ws.database.read() as connection:
            number = _of_run(connection, project, run_id)
            if number is not None:
                return get_in(connection, project, number)
    blob_id = ws.blobs.put(bundle.zip_bytes(), now=ws.clock())
    now = ws.clock()
    with ws.database.write() as connection:
        ws.database.lock(connection, f"model {project}")
        if run_id is not None:
            number = _of_run(connection, project, run_id)
            if number is not None:
                return get_in(connection, project, number)
        last = connection.scalar(
            sa.select(sa.func.max(schema.model.c.number)).where(schema.model.c.project_id == project)
        )
        number = 1 + (last or 0)
        connection.execute(
            sa.insert(schema.model).values(
                project_id=project,
                number=number,
                bundle_digest=bundle.digest,
                blob_id=blob_id,
                run_id=run_id,
                status="challenger",
                dataset_version=dataset_version,
                metrics=metrics,
                created_at=now,
            )
        )
        audit.append(
            ws.database,
            connection,
            actor=actor,
            action="model.register",
            target=f"{project}@{number}",
            now=now,
            detail={"bundle": bundle.digest, "run": run_id},
        )
        return get_in(connection, project, number)


def list_models(ws: Workspace, project: str) -> list[Model]:
    """All models of a project, newest first."""
    with ws.database.read() as connection:
        rows = connection.execute(
            sa.select(schema.model).where(schema.model.c.project_id == project).order_by(schema.model.c.number.desc())
        ).mappings()
        return [_model(row) for row in rows]


def get(ws: Workspace, project: str, number: int) -> Model:
    """One model.

    Raises:
        NotFoundError: No such number; names those that exist.
    """
    with ws.database.read() as connection:
        return get_in(connection, project, number)


def find(ws: Workspace, project: str, number: int | None) -> Model:
    """The model with this number, or the live one.

    Raises:
        NotFoundError: No such number. NotReadyError: None is live.
    """
    if number is not None:
        return get(ws, project, number)
    model = champion(ws, project)
    if model is None:
        raise NotReadyError(
            f"{project} has no live model.",
            expected="a model that was trained and released.",
            do=f"Run `keepsight train {project}`, or name a model number.",
        )
    return model


def champion(ws: Workspace, project: str) -> Model | None:
    """The model that is deployed, or None."""
    with ws.database.read() as connection:
        row = (
            connection.execute(
                sa.select(schema.model).where(schema.model.c.project_id == project, schema.model.c.status == "champion")
            )
            .mappings()
            .one_or_none()
        )
    return None if row is None else _model(row)


def load_bundle(ws: Workspace, model: Model) -> Bundle:
    """The model's bundle, decrypted and verified."""
    return Bundle.from_bytes(ws.blobs.get(model.blob_id))


def discard(ws: Workspace, project: str, number: int, *, actor: str, reason: str) -> None:
    """Takes a challenger out of the choice, audited; its bundle stays readable.

    Raises:
        ConflictError: It is live.
    """
    now = ws.clock()
    with ws.database.write() as connection:
        # The lock of ``deployments.promote``: nothing is discarded that goes live at the same time.
        ws.database.lock(connection, f"deploy {project}")
        model = get_in(connection, project, number)
        if model.status == "champion":
            raise ConflictError(
                f"Model {number} of {project} is live.",
                expected="a model that is not live.",
                do="Promote another one first, or roll back.",
            )
        set_status(connection, project, number, "discarded")
        audit.append(
            ws.database,
            connection,
            actor=actor,
            action="model.discard",
            target=f"{project}@{number}",
            now=now,
            detail={"reason": reason},
        )


def set_status(connection: Connection, project: str, number: int, status: str) -> None:
    """Changes a model's status within the caller's transaction."""
    connection.execute(
        sa.update(schema.model)
        .where(schema.model.c.project_id == project, schema.model.c.number == number)
        .values(status=status)
    )


def _of_run(connection: Connection, project: str, run_id: str) -> int | None:
    return connection.scalar(
        sa.select(schema.model.c.number).where(schema.model.c.project_id == project, schema.model.c.run_id == run_id)
    )


def get_in(connection: Connection, project: str, number: int) -> Model:
    """``get`` within the caller's transaction."""
    where = schema.model.c.project_id == project
    row = (
        connection.execute(sa.select(schema.model).where(where, schema.model.c.number == number))
        .mappings()
        .one_or_none()
    )
    if row is None:
        numbers = connection.scalars(sa.select(schema.model.c.number).where(where).order_by(schema.model.c.number))
        raise NotFoundError.among(
            f"model of {project}", number, numbers.all(), do=f"See `keepsight models list {project}`."
        )
    return _model(row)


def _model(row: Any) -> Model:
    return Model(
        project=row["project_id"],
        number=row["number"],
        bundle_digest=row["bundle_digest"],
        blob_id=row["blob_id"],
        run_id=row["run_id"],
        status=row["status"],
        dataset_version=row["dataset_version"],
        metrics=row["metrics"],
        created_at=row["created_at"],
    )
