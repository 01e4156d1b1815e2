"""The report of a run in Markdown, as it is posted on a change: the verdict, the comparison, the checks, the data.

What is known of the model itself is told by ``keepsight.training.reports``; this puts the run around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepsight.data import diffs, versions
from keepsight.errors import KeepsightError
from keepsight.loop.runs import RunRow
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.gate import open_reasons
from keepsight.training.reports import markdown, words
from keepsight.training.reports.content import Content
from keepsight.training.reports.document import Block, Document, Section, Table, document

GATE_TITLE = "May it be released?"
MOST_ROWS = 20
VERDICTS: Mapping[str, str] = {
    "deployed": "Released: it is the live model now.",
    "kept": "It passed the gate and may be released.",
    "ask": "A person must decide.",
    "rejected": "Not released: it did not pass the gate.",
}


def of_run(ws: Workspace, row: RunRow) -> str:
    """The report of a run, however it ended."""
    mine = [_decision(row), _warnings(row), _comparison(row), _data(ws, row), _costs(row)]
    theirs: tuple[Section, ...] = ()
    subtitle = f"run {row.id[:8]}, {row.reason}"
    if row.model_number is not None:
        model = models.get(ws, row.project, row.model_number)
        about = document(Content.gather(ws, model, run=row.as_dict()))
        theirs = about.sections
        subtitle = f"model {row.model_number}, {subtitle}"
    first = [section for section in theirs if section.title == GATE_TITLE]
    rest = [section for section in theirs if section.title != GATE_TITLE]
    sections = [*first, *(section for section in mine if section is not None), *rest]
    return markdown.render(Document(f"Keepsight: {row.project}", subtitle, verdict(row), tuple(sections)))


def of_error(project: str, error: KeepsightError) -> str:
    """The report where there was no run to speak of."""
    blocks = (f"Expected: {error.expected}", f"What to do: {error.do}")
    return markdown.render(
        Document(f"Keepsight: {project}", "no run", f"Error: {error.found}", (Section("What to do", blocks),))
    )


def verdict(row: RunRow) -> str:
    """The run in one line."""
    if row.error is not None:
        return f"Error: {row.error['found']} What to do: {row.error['do']}"
    if row.status != "done":
        return f"The run is {row.status}."
    reasons = open_reasons(row.gate or {}) if row.outcome in {"ask", "rejected"} else ""
    return f"{VERDICTS.get(row.outcome or '', str(row.outcome))} {reasons}".strip()


def _decision(row: RunRow) -> Section | None:
    """How a person decides."""
    if row.outcome != "ask":
        return None
    if (row.params.get("ci") or {}).get("registry"):
        digest = (row.record or {}).get("bundle_digest", "")[:12]
        how = f'keepsight ci approve {row.project} {digest} --reason "..."'
    else:
        how = f'keepsight models promote {row.project} {row.model_number} --reason "..."'
    return Section("How to decide", (f"To release it: {how}", "Otherwise leave it: the live model stays."))


def _warnings(row: RunRow) -> Section | None:
    """What could not be done after the outcome stood."""
    told = tuple(f"{each['step']}: {each['found']} What to do: {each['do']}" for each in row.warnings)
    return Section("Warnings", told) if told else None


def _comparison(row: RunRow) -> Section | None:
    gate = row.gate or {}
    told = gate.get("sides")
    if not told:
        return None
    rows = [
        (
            f"right on {name} ({words.pictures(part['n'])})",
            words.span(part["champion"]),
            words.span(part["challenger"]),
            words.points(part["difference"]),
        )
        for name, part in told["parts"].items()
    ]
    worst = sorted(
        (each for each in told["classes"] if each["difference"] is not None and each["gained"] != each["lost"]),
        key=lambda each: (each["difference"]["value"], each["name"]),
    )[:MOST_ROWS]
    rows += [
        (
            f'of "{each["name"]}" ({words.pictures(each["n"])})',
            words.span(each["champion"]),
            words.span(each["challenger"]),
            words.points(each["difference"]),
        )
        for each in worst
    ]
    time, size = told["latency_ms"], told["size_bytes"]
    rows.append(("time for a picture", _ms(time["champion"]), _ms(time["challenger"]), ""))
    rows.append(("size", _mb(size["champion"]), _mb(size["challenger"]), ""))
    champion, brought = gate.get("champion"), ((row.params.get("ci") or {}).get("champion")) or {}
    about = f"Model {gate.get('challenger')} against model {champion}, which is live"
    if champion is None:
        about = f"Model {gate.get('challenger')}; no model was live"
    elif brought:
        about += f" (release {brought['release']} of the registry)"
    head = ("on the same pictures", "live model", "new model", "difference, points")
    return Section("Live model and new model", (f"{about}.", Table(head, tuple(rows), numbers=head[1:])))


def _data(ws: Workspace, row: RunRow) -> Section | None:
    if row.dataset_version is None:
        return None
    version = versions.get(ws, row.project, row.dataset_version)
    counts = (row.record or {}).get("pictures", {})
    told = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    blocks: list[Block] = [
        f"Version {version.number}: {words.pictures(version.samples)}"
        + (f" ({told})" if told else "")
        + f", digest {version.digest[:16]}."
    ]
    ci = row.params.get("ci") or {}
    blocks += _brought(ci)
    before = _version_before(ws, row)
    if before is not None and before != version.number:
        changed = diffs.between(ws, row.project, before, version.number).counts()
        rows = [
            (kind, label or "(no label)", str(n)) for kind, counted in changed.items() for label, n in counted.items()
        ]
        blocks.append(
            f"Since version {before}, which the live model was trained on:" if rows else f"As version {before}."
        )
        if rows:
            blocks.append(Table(("change", "class", "pictures"), tuple(rows[:MOST_ROWS]), numbers=("pictures",)))
        if len(rows) > MOST_ROWS:
            blocks.append(f"And {len(rows) - MOST_ROWS} more rows.")
    return Section("The data", tuple(blocks))


def _brought(ci: Mapping[str, Any]) -> list[Block]:
    """What a run without a server took in."""
    said: list[Block] = []
    if "imported" in ci:
        found = ci["imported"]
        text = f"From {found['from']}: {words.pictures(found['added'])} added, {found['updated']} changed"
        text += f", {found['unchanged']} there already." if found["unchanged"] else "."
        if found["rejected"]:
            text += f" {words.pictures(found['rejected'])} could not be taken."
        said.append(" ".join([text, *found["warnings"]]))
    if "champion" in ci:
        seen = ci["pictures"]
        said.append(
            f"Against the pictures of the live model: {seen['knew']:,} the same, {seen['new']:,} new, "
            f"{seen['gone']:,} gone. Those that are the same stand on the same side of the split."
        )
    return said


def _version_before(ws: Workspace, row: RunRow) -> int | None:
    champion = (row.gate or {}).get("champion")
    if champion is None:
        return None
    return models.get(ws, row.project, champion).dataset_version


def _costs(row: RunRow) -> Section | None:
    record = row.record or {}
    rows = [(step["name"], words.duration(max(0.0, step["ended"] - step["began"]))) for step in record.get("steps", [])]
    if not rows:
        return None
    if "duration_s" in record:
        rows.append(("worked, in all", words.duration(float(record["duration_s"]))))
    if "cost_eur" in record:
        rows.append(("cost", f"{float(record['cost_eur']):.4f} EUR"))
    return Section("Time and cost", (Table(("step", "took"), tuple(rows), numbers=("took",)),))


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def _mb(value: int | None) -> str:
    return "–" if value is None else words.size(value)
