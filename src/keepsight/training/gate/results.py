"""What the gate says: checks with their evidence, and the decision that follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["pass", "fail", "cannot_tell"]
Decision = Literal["deploy", "ask", "reject"]


@dataclass(frozen=True)
class Check:
    """One thing that a release must show.

    Attributes:
        name: Stable name, such as ``test`` or ``recall of knife``.
        status: pass, fail or cannot_tell.
        value: The estimate (a difference of shares, a share, milliseconds, megabytes); None where nothing was measured.
        threshold: What it was compared with.
        low, high: One-sided 95 % bounds of the value, where it is uncertain.
        n: Pictures behind it.
        reason: The result in plain words, with its numbers.
        evidence: The numbers behind it, JSON-able; ``pictures_needed`` is how many would do if the estimate stays.
        binding: Whether it decides; where not, it is told only.
    """

    name: str
    status: Status
    value: float | None
    threshold: float | None
    low: float | None
    high: float | None
    n: int
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    binding: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The check as JSON-able values."""
        return asdict(self)


def unknown(
    name: str, threshold: float | None, reason: str, *, binding: bool = True, evidence: Mapping[str, Any] | None = None
) -> Check:
    """A check for which there is nothing to measure."""
    return Check(name, "cannot_tell", None, threshold, None, None, 0, reason, evidence or {}, binding)


@dataclass(frozen=True)
class GateResult:
    """``deploy`` where all checks that bind pass, ``reject`` where one fails, ``ask`` (a person) otherwise."""

    decision: Decision
    checks: tuple[Check, ...]

    @classmethod
    def of(cls, checks: Sequence[Check]) -> GateResult:
        """The decision that follows from checks."""
        statuses = {check.status for check in checks if check.binding}
        decision: Decision = "reject" if "fail" in statuses else "ask" if "cannot_tell" in statuses else "deploy"
        return cls(decision, tuple(checks))

    def as_dict(self) -> dict[str, Any]:
        """``{"decision", "checks": [...]}``."""
        return {"decision": self.decision, "checks": [check.as_dict() for check in self.checks]}


def open_checks(gate: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The checks of a stored result that stand in the way of a release, failed ones first."""
    found = [check for check in gate.get("checks", []) if check["status"] != "pass" and check.get("binding", True)]
    return sorted(found, key=lambda check: check["status"] != "fail")


def open_reasons(gate: Mapping[str, Any]) -> str:
    """Why a stored result is no release, in plain words."""
    return " ".join(check["reason"] for check in open_checks(gate))
