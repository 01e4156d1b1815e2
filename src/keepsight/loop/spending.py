"""What training costs: the time that steps worked, at the machine's hourly price, per run and per calendar month."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from keepsight.config import ProjectSettings
from keepsight.errors import BudgetError
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.training.budget import seconds_for

HOUR_S = 3600.0


def worked_s(record: Mapping[str, Any] | None) -> float:
    """Seconds that the steps of a run worked, cut-off attempts included."""
    return float(sum(((record or {}).get("worked_s") or {}).values()))


def cost_eur(ws: Workspace, seconds: float) -> float:
    """What that time costs on this machine."""
    return seconds / HOUR_S * float(ws.config["machine.eur_per_hour"])


def month_eur(ws: Workspace, project: str) -> float:
    """What the project's training has cost since the first of this month (UTC), the run under way included."""
    now = datetime.fromtimestamp(ws.clock(), UTC)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
    table = schema.run
    with ws.database.read() as connection:
        records = connection.scalars(
            sa.select(table.c.record).where(table.c.project_id == project, table.c.created_at >= first)
        ).all()
    return sum(
        float(record["cost_eur"]) if "cost_eur" in record else cost_eur(ws, worked_s(record))
        for record in records
        if record
    )


def check_month(ws: Workspace, project: str) -> None:
    """Makes sure that the month still has money for a run.

    Raises:
        BudgetError: It has not.
    """
    most = ws.settings(project)["train.max_cost_eur_per_month"]
    spent = 0.0 if most is None else month_eur(ws, project)
    if most is not None and spent >= most:
        raise BudgetError(
            f"The training of {project} has cost {spent:.4f} EUR this month.",
            expected=f"less than {most:g} EUR (train.max_cost_eur_per_month).",
            do="Wait for the next month, or allow more in keepsight.yaml.",
            spent_eur=spent,
            most_eur=most,
        )


def seconds_of_run(ws: Workspace, project: str, settings: ProjectSettings, params: Mapping[str, Any]) -> float:
    """The time that a run may take: the tightest of its own limits, the settings' and what the month has left."""
    price = float(ws.config["machine.eur_per_hour"])
    limits = [
        seconds_for(
            minutes=params.get("budget_minutes", settings["train.budget_minutes"]),
            cost_eur=params.get("max_cost_eur", settings["train.max_cost_eur"]),
            eur_per_hour=price,
        )
    ]
    most = settings["train.max_cost_eur_per_month"]
    if most is not None:
        left = max(0.0, most - month_eur(ws, project))
        limits.append(seconds_for(minutes=None, cost_eur=left, eur_per_hour=price))
    return min(limits, default=math.inf)
