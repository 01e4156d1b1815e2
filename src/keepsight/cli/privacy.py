"""``keepsight privacy``: audit, erase."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from keepsight.cli.common import Json, Project, Reason, WorkspaceOption, actor, counted, opened, show, table, when

app = typer.Typer(help="Who did what, and erasing pictures for good.", no_args_is_help=True)


@app.command("audit")
def audit_log(
    verify: Annotated[bool, typer.Option(help="Check the whole chain of hashes.")] = True,
    limit: Annotated[int, typer.Option(help="How many of the newest records.", min=1)] = 50,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """The newest records of the audit log; the chain of hashes is checked first."""
    from keepsight.store import audit

    with opened(workspace) as ws:
        count = audit.verify(ws.database) if verify else None
        rows: list[dict[str, Any]] = audit.newest(ws.database, limit=limit)
    lines = [(row["seq"], when(row["at"]), row["actor"], row["action"], row["target"]) for row in rows]

    def text() -> str:
        told = table(("record", "when (UTC)", "who", "what", "on"), lines, empty="Nothing recorded yet.")
        return told + (f"\n{count} records, chain unbroken." if count is not None else "")

    show({"verified": count, "records": rows}, as_json=json, text=text)


@app.command("erase")
def erase(
    project: Project,
    sample: Annotated[str, typer.Argument(help="Sample id, as `data show` lists it.", show_default=False)],
    reason: Reason = "erasure requested",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be erased.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Erase a picture for good: its key, its bytes and everything made from it, in every version."""
    from keepsight.data import erase as erasing
    from keepsight.data import samples

    with opened(workspace) as ws:
        found = samples.get(ws, ws.check_project(project), sample)
        if not dry_run and not yes and not json and sys.stdin.isatty():
            typer.confirm(f"Erase {found.name} from every version? This cannot be undone.", abort=True)
        result = erasing.erase_picture(ws, found.picture_id, actor=actor(), reason=reason, dry_run=dry_run)
    show(
        result,
        as_json=json,
        text=lambda: (
            f"{'Would erase' if dry_run else 'Erased'} {found.name} and what was made from it: "
            f"{counted(result['derived'], 'thing')}."
        ),
    )
