"""``keepsight token``: create, list, revoke."""

from __future__ import annotations

from typing import Annotated

import typer

from keepsight.cli.common import Json, WorkspaceOption, actor, opened, say, show, table, when
from keepsight.errors import BadInputError

app = typer.Typer(help="Access tokens for programs and people.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Whose token it is.", show_default=False)]
MAX_NAME = 100


@app.command("create")
def create(
    name: Name,
    scope: Annotated[list[str] | None, typer.Option(help="predict, review or operate; may be given twice.")] = None,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Make a token. Its secret is shown once; from now on every request needs a token."""
    from keepsight.store import tokens

    if not (name.strip() and name.isprintable() and len(name) <= MAX_NAME):
        # It stands in lists, in the audit log and under every label of its holder.
        raise BadInputError(
            f"{name[:MAX_NAME]!r} is no name for a token.",
            expected=f"1 to {MAX_NAME} printable characters.",
            do="Name the person or the program that gets it.",
        )
    with opened(workspace) as ws:
        secret = tokens.create(ws.database, name, scopes=scope or ["predict"], actor=actor(), now=ws.clock())
        known = {item for token in tokens.valid_tokens(ws.database) for item in token.scopes}
    if not known & {"review", "operate"}:
        say("The dashboard needs a token too: make one with --scope review or --scope operate.")
    show({"name": name, "token": secret}, as_json=json, text=lambda: secret)


@app.command("list")
def list_tokens(workspace: WorkspaceOption = None, json: Json = False) -> None:
    """All valid tokens, without their secrets."""
    from keepsight.store import tokens

    with opened(workspace) as ws:
        rows = tokens.valid_tokens(ws.database)
    value = [{"name": row.name, "scopes": row.scopes, "created_at": row.created_at} for row in rows]
    lines = [(row.name, ", ".join(row.scopes), when(row.created_at)) for row in rows]
    show(value, as_json=json, text=lambda: table(("name", "scopes", "made"), lines, empty="No tokens."))


@app.command("revoke")
def revoke(name: Name, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """Make a token invalid at once."""
    from keepsight.store import tokens

    with opened(workspace) as ws:
        tokens.revoke(ws.database, name, actor=actor(), now=ws.clock())
    show({"name": name, "revoked": True}, as_json=json, text=lambda: f"Revoked {name}.")
