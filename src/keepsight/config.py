"""Settings: one typed table, one ``keepsight.yaml`` per workspace, and where each value came from.

The table below is the only place where a setting is named: the file, the environment, ``keepsight settings show``, the
settings page and the documentation all read it. A key of the file wins over the environment, which wins over a value
stored in the database (set in the dashboard), which wins over the default. Unknown keys fail.

The module is long because the table is: reading, checking and writing the file are one idea with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keepsight.errors import ConflictError, NotFoundError, SettingsError, StorageError

FILE_NAME = "keepsight.yaml"
STATE_FOLDER = ".keepsight"
ENVIRONMENT_PREFIX = "KEEPSIGHT_"
# Paths of the server that a project's pages must not hide.
RESERVED = ("audit", "docs", "healthz", "login", "logout", "metrics", "readyz", "static", "v1")


@dataclass(frozen=True)
class Setting:
    """One row of the table of settings.

    ``scope`` is ``workspace`` or ``project``; ``unit`` is for people ("share 0-1", "milliseconds").
    """

    name: str
    scope: str
    default: Any
    unit: str
    help: str
    parse: Callable[[Any], Any]


def _number(low: float, high: float, *, optional: bool = False) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(f"a number from {low:g} to {high:g}")
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"a number from {low:g} to {high:g}") from None
        if not low <= number <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return number

    return parse


def _integer(low: int, high: int) -> Callable[[Any], Any]:
    def parse(value: Any) -> int:
        try:
            number = int(str(value))
        except ValueError:
            raise ValueError(f"a whole number from {low} to {high}") from None
        if isinstance(value, bool) or not low <= number <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return number

    return parse


def _choice(*names: str) -> Callable[[Any], Any]:
    def parse(value: Any) -> str:
        if value not in names:
            raise ValueError("one of " + ", ".join(names))
        return str(value)

    return parse


def _text(*, optional: bool = False) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if value is None and optional:
            return None
        if not isinstance(value, str) or not value.strip():
            raise ValueError("a text")
        return value

    return parse


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in {"true", "yes", "on", "1"}:
        return True
    if str(value).lower() in {"false", "no", "off", "0"}:
        return False
    raise ValueError("true or false")


def _shares(value: Any) -> dict[str, float]:
    share = _number(0, 1)
    if not isinstance(value, Mapping):
        raise ValueError("a map from class name to a share, such as {apple: 0.9}")
    return {str(key): share(item) for key, item in value.items()}


def _cron(value: Any) -> str | None:
    if value is None:
        return None
    from croniter import croniter

    if not isinstance(value, str) or not croniter.is_valid(value):
        raise ValueError('a cron line of five fields, such as "0 3 * * 1" (Mondays at three)')
    return value


TABLE: tuple[Setting, ...] = (
    Setting(
        "database",
        "workspace",
        None,
        "URL",
        "PostgreSQL URL; empty: SQLite files in the workspace folder.",
        _text(optional=True),
    ),
    Setting(
        "blobs",
        "workspace",
        None,
        "URL",
        "Where pictures are kept: a folder, s3://, gs:// or az:// URL; empty: the workspace folder.",
        _text(optional=True),
    ),
    Setting(
        "machine.eur_per_hour",
        "workspace",
        0.10,
        "euro per hour",
        "Price of this machine, for what training cost.",
        _number(0, 1000),
    ),
    Setting(
        "machine.threads",
        "workspace",
        None,
        "threads",
        "Threads for training and serving; empty: all cores.",
        _number(1, 256, optional=True),
    ),
    Setting(
        "serving.log",
        "workspace",
        "durable",
        "",
        "durable: an answer leaves after its event is on disk; relaxed: a crash may lose the last second.",
        _choice("durable", "relaxed"),
    ),
    Setting("task", "project", "classification", "", "The kind of vision job.", _text()),
    Setting("data.val_share", "project", 0.1, "share 0-1", "Share of new groups that goes to val.", _number(0, 0.5)),
    Setting("data.test_share", "project", 0.2, "share 0-1", "Share of new groups that goes to test.", _number(0, 0.5)),
    Setting(
        "data.near_duplicate",
        "project",
        None,
        "cosine 0-1",
        "Pictures at least this alike stay on one side of a split; empty: what the labels show.",
        _number(0.5, 1, optional=True),
    ),
    Setting(
        "train.backbone",
        "project",
        "efficientnet-lite0",
        "",
        "A name from `keepsight zoo list`, or the path of an ONNX file.",
        _text(),
    ),
    Setting("train.recipe", "project", "head", "", "Which recipe trains.", _text()),
    Setting("train.seed", "project", 0, "", "Seed of everything random in training.", _integer(0, 2**31 - 1)),
    Setting(
        "gate.margin",
        "project",
        0.02,
        "share 0-1",
        "A release may be this much worse than the live model, at most.",
        _number(0, 1),
    ),
    Setting(
        "gate.margin_drift",
        "project",
        0.05,
        "share 0-1",
        "The same on the frozen test split, where drift started the run.",
        _number(0, 1),
    ),
    Setting(
        "gate.min_accuracy",
        "project",
        None,
        "share 0-1",
        "Least accuracy on the test split.",
        _number(0, 1, optional=True),
    ),
    Setting("gate.min_recall", "project", {}, "share 0-1 per class", "Least recall of named classes.", _shares),
    Setting(
        "gate.max_latency_ms",
        "project",
        None,
        "milliseconds",
        "Longest median time for one picture on this machine.",
        _number(0.1, 60000, optional=True),
    ),
    Setting("serving.top_k", "project", 5, "answers", "How many alternatives an answer lists.", _integer(1, 100)),
    Setting(
        "review.audit_share",
        "project",
        0.05,
        "share 0-1",
        "Random share of pictures that a person checks blind; accuracy is estimated from these.",
        _number(0, 1),
    ),
    Setting(
        "review.audit_share_alarm",
        "project",
        0.25,
        "share 0-1",
        "The same while a drift or accuracy alarm is open.",
        _number(0, 1),
    ),
    Setting(
        "review.min_confidence",
        "project",
        None,
        "probability 0-1",
        "Below this a person is asked; empty: what the model learned from its own data.",
        _number(0, 1, optional=True),
    ),
    Setting(
        "review.target_accuracy",
        "project",
        0.95,
        "share 0-1",
        "Accuracy that answers without review should have.",
        _number(0.5, 1),
    ),
    Setting(
        "monitor.drift_alpha",
        "project",
        0.01,
        "probability 0-1",
        "Chance of ever a false drift alarm for one deployed model.",
        _number(1e-6, 0.5),
    ),
    Setting(
        "monitor.drift_false_alarm_every",
        "project",
        None,
        "pictures",
        "Instead: at most one false alarm in so many pictures, on average.",
        _number(100, 1e9, optional=True),
    ),
    Setting(
        "monitor.accuracy_tolerance",
        "project",
        0.05,
        "share 0-1",
        "Alarm when audited accuracy is this far below its release figure.",
        _number(0.001, 1),
    ),
    Setting(
        "retrain.on_drift", "project", True, "", "Retrain after a drift alarm, once there are enough new labels.", _flag
    ),
    Setting("retrain.on_accuracy", "project", True, "", "The same after an accuracy alarm.", _flag),
    Setting(
        "retrain.min_new_labels",
        "project",
        100,
        "labels",
        "New labels needed before an alarm retrains.",
        _integer(1, 10**9),
    ),
    Setting(
        "retrain.new_labels",
        "project",
        500,
        "labels",
        "Retrain when so many new labels are there; 0: never.",
        _integer(0, 10**9),
    ),
    Setting("retrain.schedule", "project", None, "cron", "Retrain at these times (UTC).", _cron),
    Setting(
        "retrain.cooldown_minutes",
        "project",
        60.0,
        "minutes",
        "Least time between two retrains that start by themselves.",
        _number(0, 525600),
    ),
)

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in TABLE}


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
