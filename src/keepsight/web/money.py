"""What a run may take and what it took: time, money, and the month's money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keepsight.loop import spending
from keepsight.loop.runs import RunRow
from keepsight.store.workspace import Workspace


@dataclass(frozen=True)
class Money:
    """Limits and spending of one run; a limit is None where there is none.

    Attributes:
        budget_s: Longest time, of the limits that are its own.
        max_cost_eur: Most that it may cost.
        asked: Whether these limits came with the request; else they are the settings'.
        spent_s, spent_eur: Taken by now.
        share: Of the tightest own limit, 0..1; None where there is none.
        estimate: What was expected before: ``seconds``, ``cost_eur``, ``basis``; None where nothing was.
        month_eur: What the project's training has cost this month.
        max_month_eur: Most that it may.
        eur_per_hour: The machine's price.
    """

    budget_s: float | None
    max_cost_eur: float | None
    asked: bool
    spent_s: float
    spent_eur: float
    share: float | None
    estimate: Mapping[str, Any] | None
    month_eur: float
    max_month_eur: float | None
    eur_per_hour: float


def of_run(ws: Workspace, run: RunRow) -> Money:
    """The limits and the spending of a run."""
    record = run.record or {}
    settings = record.get("settings") or ws.settings(run.project).as_dict()
    minutes = run.params.get("budget_minutes", settings.get("train.budget_minutes"))
    most_eur = run.params.get("max_cost_eur", settings.get("train.max_cost_eur"))
    spent_s = float(record.get("duration_s", spending.worked_s(record)))
    spent_eur = float(record.get("cost_eur", spending.cost_eur(ws, spent_s)))
    shares = [spent_s / (minutes * 60)] if minutes else []
    shares += [spent_eur / most_eur] if most_eur else []
    return Money(
        budget_s=None if minutes is None else minutes * 60,
        max_cost_eur=most_eur,
        asked="budget_minutes" in run.params or "max_cost_eur" in run.params,
        spent_s=spent_s,
        spent_eur=spent_eur,
        share=min(1.0, max(shares)) if shares else None,
        estimate=run.params.get("estimate"),
        month_eur=spending.month_eur(ws, run.project),
        # The month's limit is what holds now, not what held when the run began.
        max_month_eur=ws.settings(run.project)["train.max_cost_eur_per_month"],
        eur_per_hour=float(ws.config["machine.eur_per_hour"]),
    )
