"""What a report tells: a model, its evaluation, and the run that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keepsight import tasks
from keepsight.store.workspace import Workspace
from keepsight.training.assessment import store
from keepsight.training.models import Model


@dataclass(frozen=True)
class Content:
    """Everything a report is written from.

    Attributes:
        project: The project's name.
        task: What it does.
        model: The model's row.
        evaluation: As ``keepsight.training.assessment.assess`` describes it; empty where it was never made.
        run: The run that made the model, as a dict; None where none did.
    """

    project: str
    task: str
    model: Model
    evaluation: Mapping[str, Any]
    run: Mapping[str, Any] | None

    @classmethod
    def gather(cls, ws: Workspace, model: Model, *, run: Mapping[str, Any] | None) -> Content:
        """Reads what is kept about a model; ``run`` is the row of its run."""
        task = ws.settings(model.project)["task"]
        return cls(model.project, task, model, store.load(ws, model.project, model.number) or {}, run)

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The task's figures on the test pictures; empty where there were none."""
        return self.model.metrics

    @property
    def headline(self) -> Mapping[str, Any] | None:
        """The figure that the task is measured by first, with its interval."""
        first = next((figure for _, figure in self.figures()), None)
        return tasks.headline(self.task, self.metrics) or first

    def figures(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The figures with an interval, by their names in words; those that people know come first."""
        return [(words, figure) for _, words, figure in tasks.figures(self.task, self.metrics)]

    def per_class(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The classes with test pictures, worst F1 first, of equal ones that with more pictures."""
        rows = [(name, row) for name, row in self.metrics.get("per_class", {}).items() if row.get("support", 0)]
        worst = "f1" if all("f1" in row for _, row in rows) else "recall"
        return sorted(rows, key=lambda item: (_value(item[1].get(worst)), -item[1]["support"], item[0]))

    def confusions(self) -> list[tuple[str, str, int]]:
        """``(true class, answer, pictures)`` of wrong answers, most frequent first."""
        names: Sequence[str] = self.metrics.get("names", [])
        table: Sequence[Sequence[int]] = self.metrics.get("confusion", [])
        found = [
            (names[row], names[column], count)
            for row, counts in enumerate(table)
            for column, count in enumerate(counts)
            if row != column and count
        ]
        return sorted(found, key=lambda item: (-item[2], item[0], item[1]))

    def slices(self) -> list[Mapping[str, Any]]:
        """The slices, the surest loss against the rest first; those of all pictures last."""
        rows: list[Mapping[str, Any]] = list(self.evaluation.get("slices", []))
        return sorted(rows, key=lambda row: (_loss(row["difference"]), row["key"], row["value"]))

    def robustness(self) -> list[Mapping[str, Any]]:
        """The corruptions, the worst first."""
        rows: list[Mapping[str, Any]] = list(self.evaluation.get("robustness", []))
        return sorted(rows, key=lambda row: (_value(row["accuracy"]), row["name"]))

    @property
    def record(self) -> Mapping[str, Any]:
        """What the run recorded."""
        return (self.run or {}).get("record") or {}

    @property
    def gate(self) -> Mapping[str, Any] | None:
        """What the gate said, or None where it was never asked."""
        found: Mapping[str, Any] | None = (self.run or {}).get("gate")
        return found


def _loss(difference: Mapping[str, Any] | None) -> float:
    """For sorting: the least that a slice loses (a negative upper bound), 2 where there is nothing to compare with."""
    return 2.0 if difference is None or difference["value"] is None else float(difference["high"])


def _value(figure: Mapping[str, Any] | None) -> float:
    """For sorting: what is unknown comes last."""
    value = None if figure is None else figure.get("value")
    return 2.0 if value is None else float(value)
