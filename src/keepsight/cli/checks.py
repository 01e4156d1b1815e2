"""What ``keepsight doctor`` looks at."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepsight.cli.common import counted
from keepsight.errors import IntegrityError, KeepsightError, StorageError

if TYPE_CHECKING:
    from keepsight.store.workspace import Workspace

MIN_FREE_BYTES = 1 << 30


def run_checks(workspace: Path | None) -> list[dict[str, Any]]:
    """One dict per check: name, status (ok or bad) and a sentence. A check that fails does not stop the others."""
    from keepsight.loop import leader
    from keepsight.store import audit, leases, migrate
    from keepsight.store.workspace import Workspace
    from keepsight.zoo import catalogue, fetch

    results: list[dict[str, Any]] = []

    def check(name: str, look: Callable[[], str]) -> None:
        try:
            results.append({"name": name, "status": "ok", "text": look()})
        except KeepsightError as error:
            results.append({"name": name, "status": "bad", "text": str(error)})

    opened: list[Workspace] = []

    def open_workspace() -> str:
        ws = Workspace.open(workspace)
        opened.append(ws)
        return f"{ws.config.root}, {ws.database.dialect}, key fits"

    check("workspace", open_workspace)
    if not opened:
        return results
    ws = opened[0]

    def database() -> str:
        migrate.verify(ws.database)
        return "at this program's migration"

    def blobs() -> str:
        probe = b"keepsight doctor"
        if ws.blobs.get(ws.blobs.put(probe, now=ws.clock())) != probe:
            raise IntegrityError(
                "The blob store returned other bytes than were written.",
                expected="the same bytes.",
                do="Check the store; do not rely on it until then.",
            )
        return "an object was written and read back"

    def disk() -> str:
        free = shutil.disk_usage(ws.state).free
        if free < MIN_FREE_BYTES:
            raise StorageError(
                f"{free / 1e9:.1f} GB are free.", expected="at least 1 GB.", do="Make room before the disk is full."
            )
        return f"{free / 1e9:.0f} GB free"

    def server() -> str:
        holder = leases.holder_of(ws.database, leader.LEASE, now=ws.clock())
        return f"runs as {holder.rsplit(':', 1)[0]}" if holder else "not running; start it with `keepsight up`"

    def weights() -> str:
        have = [entry.name for entry in catalogue.entries(catalogue.BACKBONE) if fetch.available(entry)]
        return "available: " + ", ".join(have)

    check("database", database)
    check("blob store", blobs)
    check("disk", disk)
    check("audit log", lambda: f"{audit.verify(ws.database)} records, chain unbroken")
    check("weights", weights)
    for project in ws.projects():
        check(f"{project}: data", partial(_versions, ws, project))
        check(f"{project}: model", partial(_model, ws, project))
    check("server", server)
    ws.close()
    return results


def _versions(ws: Workspace, project: str) -> str:
    from keepsight.data import versions

    return f"{counted(versions.verify(ws, project), 'version')} verified"


def _model(ws: Workspace, project: str) -> str:
    from keepsight.training import models

    model = models.champion(ws, project)
    if model is None:
        return "none live"
    models.load_bundle(ws, model).verify()
    return f"model {model.number} is live, its bundle verifies"
