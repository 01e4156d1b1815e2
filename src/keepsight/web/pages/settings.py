"""``/{project}/settings``: every setting with its value, where it comes from and what it does."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from keepsight import config
from keepsight.config import kinds
from keepsight.errors import KeepsightError, SettingsError
from keepsight.store.workspace import Workspace
from keepsight.training import recipes
from keepsight.web.pages.common import Actor, Form, Project, Space, back, project_page

router = APIRouter(include_in_schema=False)

ORIGINS = {
    "file": "set in git",
    "environment": "set in the environment",
    "database": "set here",
    "default": "as delivered",
}
# Where settings of the same beginning stand together, and what these are about.
GROUPS = {
    "task": "The job",
    "data": "Data",
    "train": "Training",
    "evaluation": "What is found out about a new model",
    "gate": "What a new model must pass",
    "gallery": "Gallery",
    "serving": "Answers",
    "review": "Review",
    "monitor": "Alarms",
    "retrain": "When it trains by itself",
    "privacy": "Consent and privacy",
    "registry": "Models outside this workspace",
    "database": "This workspace",
    "blobs": "This workspace",
    "machine": "This workspace",
    "executor": "This workspace",
    "ray": "This workspace",
    "mlflow": "This workspace",
}


RECIPE = "train.recipe"
# What a box of names sends with it, since boxes that are not ticked send nothing.
TICKED, SEVERAL = "value.", "several"


@dataclass(frozen=True)
class Row:
    """One setting as the page shows it.

    ``control`` is how it is changed: a ``text``, a ``flag``, a ``choice`` of one of ``choices``, ``several`` of them.
    """

    setting: config.Setting
    text: str
    origin: str
    editable: bool
    control: str = "text"
    choices: tuple[str, ...] = ()

    @property
    def ticked(self) -> tuple[str, ...]:
        """Those of several choices that are in use."""
        return tuple(name.strip() for name in self.text.split(","))


@router.get("/{project}/settings")
def settings(request: Request, ws: Space, project: Project) -> Response:
    """All settings of the project and of the workspace."""
    return _page(request, ws, project)


@router.post("/{project}/settings")
def change(request: Request, ws: Space, project: Project, who: Actor, form: Form) -> Response:
    """Stores one setting."""
    name, text = form.get("name", ""), form.get("value", "")
    if SEVERAL in form:
        text = ", ".join(field.removeprefix(TICKED) for field in form if field.startswith(TICKED))
    try:
        ws.set_setting(project, name, _raw(name, text), actor=who)
    except SettingsError as error:
        return _page(request, ws, project, error=error, wrong=(name, text))
    return back(f"/{project}/settings", said="saved")


def _page(
    request: Request,
    ws: Workspace,
    project: str,
    *,
    error: SettingsError | None = None,
    wrong: tuple[str, str] | None = None,
) -> Response:
    values = ws.settings(project).values
    # The workspace's own come last: most people never touch them.
    groups: dict[str, list[Row]] = {title: [] for title in GROUPS.values()}
    for setting in config.TABLE:
        value = values[setting.name] if setting.scope == "project" else ws.config.workspace[setting.name]
        editable = setting.scope == "project" and setting.name != "task" and value.origin in {"database", "default"}
        shown = "" if setting.name == "database" and value.value else _text(value.value)
        shown = shown or ("kept secret" if value.value else "")
        control, choices = _control(setting, value.value, task=str(values["task"].value))
        row = Row(setting, shown, ORIGINS[value.origin], editable, control, choices)
        groups[GROUPS[setting.name.split(".")[0]]].append(row)
    status = 200 if error is None else error.status
    response = project_page(
        request, "settings.html", project, active="settings", groups=groups, error=error, wrong=wrong
    )
    response.status_code = status
    return response


def _control(setting: config.Setting, value: Any, *, task: str) -> tuple[str, tuple[str, ...]]:
    """How a setting is changed, and between what one chooses."""
    if setting.parse is kinds.flag:
        return "flag", ()
    if isinstance(setting.parse, kinds.Names) and setting.parse.known:
        return "several", setting.parse.known
    known = setting.parse.names if isinstance(setting.parse, kinds.Choice) else ()
    if setting.name == RECIPE:
        # A plug-in that cannot be loaded must not take the page with it.
        with suppress(KeepsightError):
            known = recipes.names(task)
    # What is set stays in sight, even where it is none of those that are known here.
    return ("choice", known if value in known else (*known, str(value))) if known else ("text", ())


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item:g}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _raw(name: str, text: str) -> Any:
    """What a person typed, as the table of settings takes it."""
    setting = config.BY_NAME.get(name)
    text = text.strip()
    if setting is not None and isinstance(setting.default, dict):
        pairs = [part.rpartition(":") for part in text.split(",") if part.strip()]
        return {key.strip(): share.strip() for key, _, share in pairs}
    if setting is not None and isinstance(setting.default, list):
        # An empty box is an empty list here, not "as delivered".
        return [item.strip() for item in text.split(",") if item.strip()]
    return text or None
