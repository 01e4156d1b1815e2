"""``keepsight settings``: show, set."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from keepsight.cli.common import Json, Project, WorkspaceOption, actor, opened, show, table
from keepsight.errors import BadInputError

app = typer.Typer(help="Settings and where each value comes from.", no_args_is_help=True)


@app.command("show")
def show_settings(
    project: Annotated[str | None, typer.Argument(help="A project; else the workspace.", show_default=False)] = None,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Every setting with its value, origin (file, environment, database, default), unit and meaning."""
    from keepsight.config import BY_NAME

    with opened(workspace) as ws:
        values = ws.config.workspace if project is None else ws.settings(ws.check_project(project)).values
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "value": item.value,
            "origin": item.origin,
            "unit": BY_NAME[name].unit,
            "help": BY_NAME[name].help,
        }
        for name, item in values.items()
    ]
    lines = [(row["name"], row["value"], row["origin"], row["unit"], row["help"]) for row in rows]
    show(rows, as_json=json, text=lambda: table(("setting", "value", "from", "unit", "meaning"), lines, empty=""))


@app.command("set")
def set_setting(
    project: Project,
    name: Annotated[str, typer.Argument(help="Such as review.audit_share.", show_default=False)],
    value: Annotated[str, typer.Argument(help="The new value.", show_default=False)],
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Store a setting in the database, audited. What keepsight.yaml sets is changed there."""
    import yaml

    try:
        given = yaml.safe_load(value)
    except yaml.YAMLError:
        raise BadInputError(
            f'"{value}" cannot be read.',
            expected="a value as it would stand in keepsight.yaml.",
            do="Put quotes around it, or leave out what YAML takes for its own signs.",
        ) from None
    with opened(workspace) as ws:
        ws.set_setting(ws.check_project(project), name, given, actor=actor())
    show({"project": project, "name": name, "value": value}, as_json=json, text=lambda: f"{name} is {value} now.")
