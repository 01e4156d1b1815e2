"""What should be served: the newest deployment row of each project, and which servers do serve it.

Promoting writes a row; every server polls, loads, warms, swaps and acknowledges. A deployment is live once every live
server has acknowledged it. A server counts as live while its heartbeat is at most ``SERVER_TIMEOUT_S`` old.

Here the gate really blocks: whoever calls, a model whose own run's gate did not let it pass against the model that is
live at that moment is refused, unless a person overrides the gate with a name and a reason, which the audit log keeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepsight.errors import BadInputError, ConflictError
from keepsight.runtime.bundle import Bundle
from keepsight.store import audit, schema
from keepsight.store.database import upsert
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.gate import open_checks

SERVER_TIMEOUT_S = 5.0
PROMOTE, OVERRIDE, ROLLBACK, REGISTRY = "promote", "override", "rollback", "registry"
KINDS = (PROMOTE, OVERRIDE, ROLLBACK, REGISTRY)
FLOAT = "float"
# No model's number: a result that does not say what it compared with fits no live model.
_UNNAMED = -1


@dataclass(frozen=True)
class Deployment:
    """One decision to serve a model; ``live_at`` is None until all live servers have it."""

    id: int
    project: str
    model_number: int
    kind: str
    reason: str
    actor: str
    run_id: str | None
    created_at: float
    live_at: float | None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json`` and REST."""
        return asdict(self)


def current(ws: Workspace, project: str) -> Deployment | None:
    """The deployment that should be served, or None."""
    with ws.database.read() as connection:
        return _current(connection, project)


def history(ws: Workspace, project: str) -> list[Deployment]:
    """All deployments of a project, newest first."""
    query = (
        sa.select(schema.deployment)
        .where(schema.deployment.c.project_id == project)
        .order_by(schema.deployment.c.id.desc())
    )
    with ws.database.read() as connection:
        return [_deployment(row) for row in connection.execute(query).mappings()]


def promote(
    ws: Workspace,
    project: str,
    number: int,
    *,
    actor: str,
    reason: str,
    kind: str = PROMOTE,
    run_id: str | None = None,
) -> Deployment:
    """Makes a model the one to serve, audited; once per run, however often it is called.

    Args:
        ws: The workspace.
        project: Its project.
        number: The model.
        actor: Who releases it.
        reason: Why.
        kind: ``promote``: the gate of the model's own run said "deploy" about the model that is live now. ``override``:
            a person decides in its stead, with a name and a reason. ``rollback``: the model was live before.
            ``registry``: the project's registry (``registry.url``), which it was brought in from, says that it is live.
        run_id: The run that releases it by itself.

    Raises:
        ConflictError: The model was discarded, or is live already; it did not pass its gate; the gate compared it with
            another model than the one that is live now (``details`` name both, ``compared_with`` and ``champion``); it
            was never live and so cannot be gone back to.
        BadInputError: No name or no reason for an override.
    """
    if kind not in KINDS:
        raise BadInputError(
            f'A model cannot be released by "{kind}".', expected=f"one of: {', '.join(KINDS)}.", do="Name one of these."
        )
    if kind in (OVERRIDE, REGISTRY) and not (reason.strip() and actor.strip()):
        raise BadInputError(
            f"There is no {'reason' if actor.strip() else 'name'}.",
            expected="why you decide in the gate's stead.",
            do="Say it in a sentence (--reason).",
        )
    if kind == REGISTRY and ws.settings(project)["registry.url"] is None:
        raise ConflictError(
            f"{project} has no registry that could say what is live.",
            expected="the setting registry.url.",
            do="Set it in keepsight.yaml.",
        )
    now = ws.clock()
    with ws.database.write() as connection:
        ws.database.lock(connection, f"deploy {project}")
        model = models.get_in(connection, project, number)
        if run_id is not None:
            done = (
                connection.execute(sa.select(schema.deployment).where(schema.deployment.c.run_id == run_id))
                .mappings()
                .one_or_none()
            )
            if done is not None:
                return _deployment(done)
        before = _current(connection, project)
        live = None if before is None else before.model_number
        _check_free(model, live)
        gate = _gate(connection, model)
        if kind == PROMOTE:
            _check_passed(model, gate, live)
        elif kind == ROLLBACK:
            _check_was_live(connection, model)
        if live is not None:
            models.set_status(connection, project, live, "archived")
        models.set_status(connection, project, number, "champion")
        insert = sa.insert(schema.deployment).values(
            project_id=project,
            model_number=number,
            kind=kind,
            reason=reason,
            actor=actor,
            run_id=run_id,
            created_at=now,
            live_at=None,
        )
        made = connection.execute(insert.returning(schema.deployment)).mappings().one()
        detail: dict[str, Any] = {"reason": reason, "before": live}
        if kind in (OVERRIDE, REGISTRY):
            detail |= {"gate": None if gate is None else gate["decision"], "not_passed": _not_passed(gate)}
        audit.append(
            ws.database,
            connection,
            actor=actor,
            action=f"model.{kind}",
            target=f"{project}@{number}",
            now=now,
            detail=detail,
        )
        return _deployment(made)


def was_live(ws: Workspace, project: str, number: int) -> bool:
    """Whether a model was ever released."""
    with ws.database.read() as connection:
        return _was_live(connection, project, number)


def serving_variant(ws: Workspace, project: str, number: int, *, bundle: Bundle, wanted: str) -> str:
    """The network of a model that answers where ``wanted`` is asked for (``serving.variant``).

    The 8-bit network answers only if the gate of the model's run looked at it: as the one to be served, or beside the
    float one, which it equalled. Else, and where the bundle has none, the float one answers.
    """
    if wanted == FLOAT or wanted not in bundle.variants:
        return FLOAT
    with ws.database.read() as connection:
        gate = _gate(connection, models.get_in(connection, project, number)) or {}
    equal = any(check.get("name") == wanted and check["status"] == "pass" for check in gate.get("checks", []))
    return wanted if equal or gate.get("sides", {}).get("variant") == wanted else FLOAT


def has_passed(gate: Mapping[str, Any] | None, live: int | None) -> bool:
    """Whether a gate's stored result lets its model replace the one that is live (its number, or None)."""
    return gate is not None and gate["decision"] == "deploy" and gate.get("champion", _UNNAMED) == live


def _check_free(model: models.Model, live: int | None) -> None:
    """Whether the model can be released at all."""
    if model.status == "discarded":
        raise ConflictError(
            f"Model {model.number} of {model.project} was discarded.",
            expected="a challenger, or a model that was live before.",
            do=f"Choose one from `keepsight models list {model.project}`.",
        )
    if model.number == live:
        raise ConflictError(
            f"Model {model.number} of {model.project} is live already.",
            expected="another model.",
            do="Nothing needs doing.",
        )


def _check_passed(model: models.Model, gate: Mapping[str, Any] | None, live: int | None) -> None:
    """Whether the model's own gate let it pass, against the model that is live now."""
    if has_passed(gate, live):
        return
    do = f"Look at `keepsight models compare {model.project} {model.number}`, then decide with a reason, or train anew."
    if gate is None or gate["decision"] != "deploy":
        said = "has no gate's result" if gate is None else "did not pass its gate"
        raise ConflictError(
            f"Model {model.number} of {model.project} {said}.",
            expected="a model that its own run let pass.",
            do=do,
            decision=None if gate is None else gate["decision"],
            not_passed=_not_passed(gate),
        )
    compared = gate.get("champion")
    raise ConflictError(
        f"The gate compared model {model.number} of {model.project} with "
        f"{'no live model' if compared is None else f'model {compared}'}, "
        f"and now {'none' if live is None else f'model {live}'} is live.",
        expected="a comparison with the model that is live.",
        do=do,
        compared_with=compared,
        champion=live,
    )


def _check_was_live(connection: Connection, model: models.Model) -> None:
    if not _was_live(connection, model.project, model.number):
        raise ConflictError(
            f"Model {model.number} of {model.project} was never live.",
            expected="a model that was live before.",
            do=f"See `keepsight models list {model.project}`.",
        )


def _was_live(connection: Connection, project: str, number: int) -> bool:
    table = schema.deployment
    query = sa.select(table.c.id).where(table.c.project_id == project, table.c.model_number == number).limit(1)
    return connection.scalar(query) is not None


def _gate(connection: Connection, model: models.Model) -> dict[str, Any] | None:
    """What the gate of the model's own run said of it."""
    if model.run_id is None:
        return None
    query = sa.select(schema.run.c.gate).where(
        schema.run.c.id == model.run_id, schema.run.c.project_id == model.project
    )
    gate: dict[str, Any] | None = connection.scalar(query)
    return gate if gate is None or gate.get("challenger", model.number) == model.number else None


def _not_passed(gate: Mapping[str, Any] | None) -> list[str]:
    """Names of the checks that stand in the way."""
    return [] if gate is None else [str(check.get("name", "")) for check in open_checks(gate)]


def rollback(ws: Workspace, project: str, *, actor: str, reason: str = "rolled back") -> Deployment:
    """Serves again the model that was live before the present one; called again, the one before that.

    Raises:
        ConflictError: There is none.
    """
    number = before(ws, project)
    if number is not None:
        return promote(ws, project, number, actor=actor, reason=reason, kind=ROLLBACK)
    live = current(ws, project)
    found = "no model was ever live" if live is None else f"nothing was live before model {live.model_number}"
    raise ConflictError(
        f"{project} has no earlier model to go back to: {found}.",
        expected="a model that was live before the present one and was not discarded.",
        do=f"Choose one from `keepsight models list {project}` and release it: `keepsight models promote {project} N`.",
    )


def before(ws: Workspace, project: str) -> int | None:
    """The model that going back would serve: the one that the present model replaced; None where it was the first.

    A model that was left by going back is not gone back to: two in a row do not end where they began.
    """
    replaced: list[int] = []
    for row in reversed(history(ws, project)):
        if row.kind == ROLLBACK and row.model_number in replaced:
            while replaced[-1] != row.model_number:
                replaced.pop()
        else:
            replaced.append(row.model_number)
    discarded = {model.number for model in models.list_models(ws, project) if model.status == "discarded"}
    return next((number for number in reversed(replaced[:-1]) if number not in {replaced[-1], *discarded}), None)


def live_servers(ws: Workspace) -> list[str]:
    """Ids of the servers whose heartbeat is fresh."""
    with ws.database.read() as connection:
        return _live_servers(connection, ws.clock())


def acknowledge(ws: Workspace, deployment_id: int, server_id: str, error: str | None = None) -> None:
    """Records that a server serves a deployment, or why it cannot; marks it live once all live servers do."""
    now = ws.clock()
    with ws.database.write() as connection:
        # Of two servers that acknowledge at once, the second must see the first.
        ws.database.lock(connection, f"acknowledge {deployment_id}")
        row = {"deployment_id": deployment_id, "server_id": server_id, "at": now, "error": error}
        upsert(connection, schema.acknowledgement, [row])
        if _is_served(connection, deployment_id, now):
            _mark_live(connection, deployment_id, now)


def settle(ws: Workspace, project: str) -> None:
    """Marks the current deployment live where the server that it still waited for is gone; the leader calls this."""
    now = ws.clock()
    with ws.database.read() as connection:
        waiting = _current(connection, project)
        served = waiting is not None and waiting.live_at is None and _is_served(connection, waiting.id, now)
    if waiting is not None and served:
        with ws.database.write() as connection:
            _mark_live(connection, waiting.id, now)


def wait_live(
    ws: Workspace, project: str, deployment_id: int, *, timeout_s: float, stop: Callable[[], bool] = lambda: False
) -> bool:
    """Waits until all live servers serve a deployment; whether they do. Without a live server there is nobody to wait
    for, and the answer is False at once.

    Raises:
        ConflictError: A server cannot serve it; says why.
    """
    deadline = time.monotonic() + timeout_s
    while live_servers(ws) and time.monotonic() < deadline and not stop():
        settle(ws, project)
        now = next(row for row in history(ws, project) if row.id == deployment_id)
        if now.live_at is not None:
            return True
        wrong = failures(ws, deployment_id, live_only=True)
        if wrong:
            raise ConflictError(
                f"A server cannot serve model {now.model_number} of {project}: {wrong[0]}",
                expected="servers that can load the bundle.",
                do=f"Roll back (`keepsight models rollback {project}`) and look at that server's log.",
            )
        time.sleep(0.02)
    return False


def failures(ws: Workspace, deployment_id: int, *, live_only: bool = False) -> list[str]:
    """What the servers said that could not take a deployment; with ``live_only`` those that still run."""
    with ws.database.read() as connection:
        query = sa.select(schema.acknowledgement.c.error).where(
            schema.acknowledgement.c.deployment_id == deployment_id, schema.acknowledgement.c.error.is_not(None)
        )
        if live_only:
            query = query.where(schema.acknowledgement.c.server_id.in_(_live_servers(connection, ws.clock())))
        return list(connection.scalars(query))


def _live_servers(connection: Connection, now: float) -> list[str]:
    return list(
        connection.scalars(sa.select(schema.server.c.id).where(schema.server.c.seen_at > now - SERVER_TIMEOUT_S))
    )


def _is_served(connection: Connection, deployment_id: int, now: float) -> bool:
    """Whether somebody serves it and no live server does not."""
    table = schema.acknowledgement
    query = sa.select(table.c.server_id).where(table.c.deployment_id == deployment_id, table.c.error.is_(None))
    have = set(connection.scalars(query))
    return bool(have) and have >= set(_live_servers(connection, now))


def _mark_live(connection: Connection, deployment_id: int, now: float) -> None:
    connection.execute(
        sa.update(schema.deployment)
        .where(schema.deployment.c.id == deployment_id, schema.deployment.c.live_at.is_(None))
        .values(live_at=now)
    )


def _current(connection: Connection, project: str) -> Deployment | None:
    row = (
        connection.execute(
            sa.select(schema.deployment)
            .where(schema.deployment.c.project_id == project)
            .order_by(schema.deployment.c.id.desc())
            .limit(1)
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else _deployment(row)


def _deployment(row: Any) -> Deployment:
    return Deployment(
        id=row["id"],
        project=row["project_id"],
        model_number=row["model_number"],
        kind=row["kind"],
        reason=row["reason"],
        actor=row["actor"],
        run_id=row["run_id"],
        created_at=row["created_at"],
        live_at=row["live_at"],
    )
