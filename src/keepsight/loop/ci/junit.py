"""What came of a run as JUnit XML, which every forge shows: a case for each step and for each check of the gate."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

from keepsight.errors import KeepsightError
from keepsight.loop.runs import RunRow

STEPS = ("version", "features", "train", "evaluate", "gate", "deploy", "robustness")
# What XML 1.0 cannot hold.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class _Case:
    name: str
    seconds: float = 0.0
    kind: str = ""
    """Empty where it passed; else ``failure``, ``error`` or ``skipped``."""
    message: str = ""
    text: str = ""


def of_run(row: RunRow) -> str:
    """The XML of a run; times in seconds."""
    suites = [("pipeline", _steps(row))]
    if row.gate is not None:
        suites.append(("gate", [_check(check) for check in row.gate["checks"]]))
    return _render(row.project, suites, began=row.created_at)


def of_error(project: str, error: KeepsightError, *, now: float) -> str:
    """The XML where there was no run to speak of."""
    case = _Case("prepare", kind="error", message=error.found, text=str(error))
    return _render(project, [("pipeline", [case])], began=now)


def _steps(row: RunRow) -> list[_Case]:
    done = {step["name"]: step["ended"] - step["began"] for step in (row.record or {}).get("steps", [])}
    cases = []
    for name in STEPS:
        if name in done:
            cases.append(_Case(name, seconds=max(0.0, done[name])))
        elif name == row.step and row.error is not None:
            told = f"{row.error['found']}\nExpected: {row.error['expected']}\nWhat to do: {row.error['do']}"
            cases.append(_Case(name, kind="error", message=row.error["found"], text=told))
        else:
            failed = [str(each["found"]) for each in row.warnings if each["step"] == name]
            message = failed[0] if failed else f"The run was {row.status} before this step."
            cases.append(_Case(name, kind="skipped", message=message))
    if row.error is not None and not any(case.kind == "error" for case in cases):
        cases.append(_Case("run", kind="error", message=row.error["found"], text=row.error["do"]))
    return cases


def _check(check: Mapping[str, Any]) -> _Case:
    name, reason = str(check["name"]), str(check["reason"])
    if check["status"] == "pass":
        return _Case(name)
    if check["status"] == "fail" and check.get("binding", True):
        return _Case(name, kind="failure", message=reason, text=reason)
    said = "Only told: " if not check.get("binding", True) else "Cannot tell: "
    return _Case(name, kind="skipped", message=said + reason)


def _render(project: str, suites: list[tuple[str, list[_Case]]], *, began: float) -> str:
    root = ElementTree.Element("testsuites")
    for number, (name, cases) in enumerate(suites):
        counts = {kind: sum(case.kind == kind for case in cases) for kind in ("failure", "error", "skipped")}
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=name,
            package="keepsight",
            id=str(number),
            timestamp=datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            hostname=_clean(socket.gethostname()),
            tests=str(len(cases)),
            failures=str(counts["failure"]),
            errors=str(counts["error"]),
            skipped=str(counts["skipped"]),
            time=f"{sum(case.seconds for case in cases):.3f}",
        )
        ElementTree.SubElement(suite, "properties")
        for case in cases:
            element = ElementTree.SubElement(
                suite,
                "testcase",
                name=_clean(case.name),
                classname=f"keepsight.{_clean(project)}.{name}",
                time=f"{case.seconds:.3f}",
            )
            if case.kind:
                found = ElementTree.SubElement(element, case.kind, message=_clean(case.message))
                if case.kind != "skipped":
                    found.set("type", case.kind)
                    found.text = _clean(case.text)
        ElementTree.SubElement(suite, "system-out")
        ElementTree.SubElement(suite, "system-err")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("�", text)
