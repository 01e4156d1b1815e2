"""Pipelines for forges, filled in for a workspace: ``keepsight ci init``."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from keepsight import __version__
from keepsight.config import STATE_FOLDER, Config, ProjectSettings
from keepsight.delivery.registry.stores import is_bucket
from keepsight.errors import BadInputError, ConflictError, NotFoundError, StorageError

TARGETS: Mapping[str, str] = {"github": ".github/workflows/keepsight.yml", "gitlab": ".gitlab-ci.yml"}
# Recipes for which the server's own libraries do.
WITHOUT_TORCH = {"head"}


@dataclass(frozen=True)
class Written:
    """What was written, and what is left for a person to do."""

    project: str
    paths: tuple[Path, ...]
    next: tuple[str, ...]


def write(config: Config, forge: str, *, project: str | None, on_server: bool, force: bool) -> Written:
    """Writes the pipeline of a forge into the workspace.

    Raises:
        NotFoundError: No such forge or project. BadInputError: Several projects, and none is named.
        ConflictError: There is a pipeline already, and ``force`` is False. StorageError: It cannot be written.
    """
    if forge not in TARGETS:
        raise NotFoundError.among("forge", forge, TARGETS)
    name = _project(config, project)
    settings = config.project(name)
    target = config.root / TARGETS[forge]
    if target.exists() and not force:
        raise ConflictError(
            f"There is a {TARGETS[forge]} already.",
            expected="no pipeline that would be lost.",
            do="Add the job by hand, or replace the file with --force.",
        )
    written = [target]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(render(forge, settings, on_server=on_server), encoding="utf-8")
        ignore = config.root / ".gitignore"
        lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else []
        # The workspace folder holds the key of all pictures.
        missing = [line for line in (f"{STATE_FOLDER}/", ".cache/") if line not in lines]
        if missing:
            ignore.write_text("\n".join([*lines, *missing]) + "\n", encoding="utf-8")
            written.append(ignore)
    except OSError as error:
        raise StorageError(
            f"{error.filename} cannot be written: {error.strerror}.",
            expected="a folder that can be written.",
            do="Change its permissions.",
        ) from None
    return Written(name, tuple(written), tuple(_next(forge, settings, on_server=on_server)))


def render(forge: str, settings: ProjectSettings, *, on_server: bool) -> str:
    """The text of a pipeline."""
    template = (importlib.resources.files(__package__) / f"{forge}.yml").read_text(encoding="utf-8")
    keep, drop = ("#server# ", "#standalone# ") if on_server else ("#standalone# ", "#server# ")
    lines = [line.removeprefix(keep) for line in template.splitlines() if not line.startswith(drop)]
    indent = "      " if forge == "github" else "        "
    values = {
        "PROJECT": settings.project,
        "VERSION": __version__,
        "EXTRA": "server" if on_server or settings["train.recipe"] in WITHOUT_TORCH else "train",
        "SERVER": '--server "$KEEPSIGHT_SERVER" ' if on_server else "",
        "PATHS": "\n".join(f'{indent}- "{path}"' for path in _paths(forge, settings)),
    }
    text = "\n".join(lines) + "\n"
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _project(config: Config, wanted: str | None) -> str:
    names = sorted(config.projects)
    if wanted is not None:
        if wanted not in names:
            raise NotFoundError.among("project", wanted, names, do=f"Add it with `keepsight init {wanted}`.")
        return wanted
    if len(names) != 1:
        raise BadInputError(
            f"keepsight.yaml has {len(names)} projects.",
            expected="one, or the name of one.",
            do="Name it with --project." if names else "Add one with `keepsight init NAME`.",
        )
    return names[0]


def _paths(forge: str, settings: ProjectSettings) -> list[str]:
    """What a change must touch to be worth a run."""
    paths = ["keepsight.yaml", TARGETS[forge]]
    source = settings["data.source"]
    if source is not None and not is_bucket(str(source)) and not PurePosixPath(source).is_absolute():
        path = PurePosixPath(source)
        if ".." not in path.parts:
            # A table lists pictures that lie beside it.
            folder = path.parent if path.suffix else path
            paths.append("**" if str(folder) == "." else f"{folder}/**")
    return paths


def _next(forge: str, settings: ProjectSettings, *, on_server: bool) -> list[str]:
    where = "Settings > Secrets and variables > Actions" if forge == "github" else "Settings > CI/CD > Variables"
    steps = []
    if on_server:
        steps.append(f"Set KEEPSIGHT_SERVER, the address of your server, under {where}.")
        steps.append(
            f"Make a token on the server (`keepsight token create ci --scope operate`) and set the secret "
            f"KEEPSIGHT_TOKEN under {where}."
        )
    else:
        missing = [name for name in ("data.source", "registry.url") if settings[name] is None]
        if missing:
            steps.append(f"Set {' and '.join(missing)} in keepsight.yaml: the runner starts empty.")
        local = settings["registry.url"]
        if local is not None and not is_bucket(str(local)):
            steps.append("registry.url is a folder, which a hosted runner forgets: name a bucket instead.")
        if any(is_bucket(str(settings[name] or "")) for name in ("data.source", "registry.url")):
            steps.append(f"Set the bucket's credentials under {where}.")
    if forge == "gitlab":
        steps.append("Set KEEPSIGHT_GITLAB_TOKEN (scope api) to have reports posted on merge requests.")
        steps.append("Add a schedule under Build > Pipeline schedules.")
    return [*steps, "Commit and push."]
