"""Settings: one typed table, one ``keepsight.yaml`` per workspace, and where each value came from.

The table (:mod:`keepsight.config.table`) is the only place where a setting is named. A key of the file wins over the
environment, which wins over a value stored in the database (set in the dashboard), which wins over the default.
Unknown keys fail.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keepsight.config.table import BY_NAME, TABLE, Setting
from keepsight.errors import ConflictError, NotFoundError, SettingsError, StorageError

__all__ = ["BY_NAME", "TABLE", "Config", "ProjectSettings", "Setting", "Value", "add_project", "check_project_name"]

FILE_NAME = "keepsight.yaml"
STATE_FOLDER = ".keepsight"
ENVIRONMENT_PREFIX = "KEEPSIGHT_"
# Paths of the server that a project's pages must not hide.
RESERVED = ("audit", "docs", "healthz", "login", "logout", "metrics", "readyz", "static", "v1")


@dataclass(frozen=True)
class Value:
    """A resolved setting and its origin: ``file``, ``environment``, ``database`` or ``default``."""

    value: Any
    origin: str


@dataclass(frozen=True)
class ProjectSettings:
    """All settings of one project, resolved; ``settings["gate.margin"]`` gives the value."""

    project: str
    values: Mapping[str, Value]

    def __getitem__(self, name: str) -> Any:
        return self.values[name].value

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, for a run's record."""
        return {name: item.value for name, item in self.values.items()}


@dataclass(frozen=True)
class Config:
    """What ``keepsight.yaml`` and the environment say.

    ``root`` is the folder of the file; ``state`` the workspace folder beside it.
    """

    root: Path
    workspace: Mapping[str, Value]
    projects: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """The workspace folder."""
        return self.root / STATE_FOLDER

    def __getitem__(self, name: str) -> Any:
        return self.workspace[name].value

    def project(self, name: str, stored: Mapping[str, Any] | None = None) -> ProjectSettings:
        """Resolved settings of a project.

        Args:
            name: Project name; a project that only the database knows has an empty map here.
            stored: Values kept in the database by setting name.
        """
        if name not in self.projects and stored is None:
            raise NotFoundError.among("project", name, self.projects, do=f"Add it with `keepsight init {name}`.")
        given = self.projects.get(name, {})
        values = {
            setting.name: _resolve(setting, given, self.environment, stored or {})
            for setting in TABLE
            if setting.scope == "project"
        }
        return ProjectSettings(name, values)


def environment_name(setting: str) -> str:
    """The environment variable of a setting: ``gate.margin`` -> ``KEEPSIGHT_GATE_MARGIN``."""
    return ENVIRONMENT_PREFIX + setting.upper().replace(".", "_")


def parse_value(name: str, raw: Any, *, origin: str) -> Any:
    """The checked value of one setting.

    Raises:
        SettingsError: The name is unknown or the value does not fit.
    """
    setting = BY_NAME.get(name)
    if setting is None:
        missing = NotFoundError.among("setting", name, BY_NAME)
        raise SettingsError(f"{missing.found[:-1]} (in {origin}).", expected=missing.expected, do=missing.do, name=name)
    try:
        return setting.parse(raw)
    except ValueError as error:
        raise SettingsError(
            f"{name} is {raw!r} (in {origin}).",
            expected=f"{error}.",
            do=f"Correct it; {setting.help}",
            name=name,
        ) from None


def _resolve(
    setting: Setting, given: Mapping[str, Any], environment: Mapping[str, str], stored: Mapping[str, Any]
) -> Value:
    if setting.name in given:
        return Value(parse_value(setting.name, given[setting.name], origin=FILE_NAME), "file")
    variable = environment_name(setting.name)
    if variable in environment:
        return Value(parse_value(setting.name, environment[variable], origin=variable), "environment")
    if setting.name in stored:
        return Value(parse_value(setting.name, stored[setting.name], origin="the database"), "database")
    return Value(setting.default, "default")


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        # An empty map stays, so that an unknown name above it is noticed.
        if isinstance(value, Mapping) and value and name not in BY_NAME:
            flat.update(_flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def find_root(start: Path) -> Path:
    """The nearest folder at or above ``start`` that holds ``keepsight.yaml``.

    Raises:
        NotFoundError: There is none.
    """
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder
    raise NotFoundError(
        f"There is no {FILE_NAME} in {start} or above it.",
        expected="a workspace: a folder with that file.",
        do="Run `keepsight init NAME` here, or name the folder with --workspace.",
    )


def load(root: Path, *, environment: Mapping[str, str] | None = None) -> Config:
    """Reads and checks ``keepsight.yaml`` of the workspace at ``root``.

    Raises:
        SettingsError: The file is no YAML map, or a key or value is wrong.
    """
    environment = dict(os.environ if environment is None else environment)
    path = root / FILE_NAME
    tree = _parse(path.read_bytes(), path) if path.exists() else {}
    tree = {} if tree is None else tree
    if not isinstance(tree, Mapping):
        raise SettingsError(
            f"{path} holds a {type(tree).__name__}.", expected="a map of settings.", do="Start it with `projects:`."
        )
    projects = tree.get("projects") or {}
    if not isinstance(projects, Mapping) or any(not isinstance(item, Mapping | None) for item in projects.values()):
        raise SettingsError(
            f"`projects` in {path} is not a map of maps.",
            expected="projects: {shop: {task: classification}}.",
            do="Indent the settings of each project below its name.",
        )
    given = _flatten({key: value for key, value in tree.items() if key != "projects"})
    _check_scope(given, "workspace", path)
    flat_projects: dict[str, dict[str, Any]] = {}
    for name, settings in projects.items():
        check_project_name(str(name))
        flat = _flatten(settings or {})
        _check_scope(flat, "project", path)
        flat_projects[str(name)] = flat
        for key, value in flat.items():
            parse_value(key, value, origin=f"{path.name}, project {name}")
    workspace = {
        setting.name: _resolve(setting, given, environment, {}) for setting in TABLE if setting.scope == "workspace"
    }
    return Config(root=root, workspace=workspace, projects=flat_projects, environment=environment)


def _parse(content: str | bytes, path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path} cannot be read as YAML: {error}", expected="a YAML file.", do="Correct the place named above."
        ) from None


def _check_scope(flat: Mapping[str, Any], scope: str, path: Path) -> None:
    names = [setting.name for setting in TABLE if setting.scope == scope]
    for name in flat:
        if name not in names:
            missing = NotFoundError.among(f"{scope} setting", name, names)
            raise SettingsError(
                f"{missing.found[:-1]} (in {path.name}).", expected=missing.expected, do=missing.do, name=name
            )


def add_project(root: Path, name: str, *, task: str) -> bool:
    """Writes a project into ``keepsight.yaml``, leaving every line that stands there as it is; False if it is there.

    Raises:
        ConflictError: It is there with another task. StorageError: The file cannot be written.
    """
    path = root / FILE_NAME
    config = load(root)
    if name in config.projects:
        there = config.project(name)["task"]
        if there != task:
            raise ConflictError(
                f"{name} is there with the task {there}.", expected=f"the task {task}.", do="Choose another name."
            )
        return False
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    place = next((number for number, line in enumerate(lines) if line.rstrip() == "projects:"), None)
    if place is not None:
        indent = _indent_below(lines[place + 1 :])
        lines[place + 1 : place + 1] = [f"{indent}{name}:", f"{indent * 2}task: {task}"]
    elif any(line.startswith("projects:") for line in lines):
        raise SettingsError(
            f"`projects` in {path} is not written as a block.",
            expected="a line `projects:` with the projects indented below it.",
            do=f"Add {name} by hand: `{name}: {{task: {task}}}`.",
        )
    else:
        lines += ["projects:", f"  {name}:", f"    task: {task}"]
    text = "\n".join(lines) + "\n"
    _parse(text, path)
    try:
        root.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror}.",
            expected="a folder that can be written.",
            do="Choose another folder, or change its permissions.",
        ) from None
    return True


def _indent_below(lines: Sequence[str]) -> str:
    """How the entries of a block are indented."""
    first = next((line for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    return first[: len(first) - len(first.lstrip(" "))] or "  "


def check_project_name(name: str) -> str:
    """The name, if it can stand in a URL and a file name.

    Raises:
        SettingsError: It cannot.
    """
    if name in RESERVED:
        raise SettingsError(
            f'"{name}" is a page of its own.',
            expected="a project name other than " + ", ".join(RESERVED) + ".",
            do='Choose a name such as "shop".',
        )
    letters = name.replace("-", "").replace("_", "")
    if not (letters.isascii() and letters.isalnum() and name[0].isalnum() and len(name) <= 40 and name == name.lower()):
        raise SettingsError(
            f'"{name}" is no project name.',
            expected="1 to 40 small letters, digits, - and _, starting with a letter or digit.",
            do='Choose a name such as "shop".',
        )
    return name
