"""A run on a rented machine: pictures and live model go into a bucket, and a task that works on them is written.

The machine needs no way into this network: it finds everything in the bucket and leaves its model there.
"""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from keepsight.data import samples, versions
from keepsight.data.importers import tables
from keepsight.data.rows import SPLITS
from keepsight.delivery import registry
from keepsight.delivery.registry import Release
from keepsight.delivery.registry.stores import is_bucket, open_store, store_error
from keepsight.delivery.where.tasks import Job, render, start_command
from keepsight.delivery.where.wish import Wish
from keepsight.errors import ConflictError, DataError, StorageError
from keepsight.loop.ci import standalone
from keepsight.store.workspace import Workspace
from keepsight.training import models

TABLE = "pictures.csv"
PICTURES = "pictures"
RECENT = "recent"
UPLOADS = 16
# What differs there: where things are, and what names files or secrets of this machine.
ELSEWHERE = ("data.source", "registry.url", "train.checkpoints")
FILES = ("train.weights",)
_RESERVED = {*tables.PATH_NAMES, *tables.LABEL_NAMES, *tables.SPLIT_COLUMN, *tables.GROUP_NAMES}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Task:
    """A task that is ready: its file, what starts it, and what lies in the bucket for it."""

    path: str
    command: list[str]
    source: str
    registry: str
    pictures: int
    uploaded: int
    removed: int

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return dict(vars(self))


def prepare(
    ws: Workspace,
    project: str,
    wish: Wish,
    *,
    options: Sequence[str],
    version: int | None,
    reason: str,
    actor: str,
    progress: Progress = lambda *_: None,
) -> Task:
    """Commits, brings pictures and live model into the bucket, and writes the task file.

    Args:
        ws: The workspace.
        project: Its project.
        wish: The machine.
        options: Further words for ``keepsight ci``, such as ``--budget 20m``.
        version: The dataset version; None commits and takes the newest.
        reason: Why, for the record.
        actor: Who.
        progress: Called with what is done, how much of it and its total.

    Raises:
        DataError: There are no pictures. ConflictError: The registry's live model is another than the one here; a
            setting names a file of this machine.
        SettingsError, StorageError: The bucket cannot be opened or written.
    """
    settings = ws.settings(project)
    _check_settings(settings.as_dict())
    if version is None:
        versions.commit(ws, project, message=reason, author=actor)
        if not versions.log(ws, project):
            raise DataError(
                f"{project} has no pictures yet.",
                expected="labelled pictures of at least two classes.",
                do=f"Import some: `keepsight data import {project} PHOTOS/`.",
            )
    number = versions.get(ws, project, version or versions.LATEST).number
    models_url = _registry_url(wish, settings["registry.url"], mlflow_url=ws.config["mlflow.url"])
    known = _share_champion(ws, project, number, models_url, actor=actor)
    source = f"{wish.bucket}/{project}/data"
    opened = open_store(source, root=ws.config.root, setting="bucket")
    pictures, uploaded, removed = upload(ws, project, number, opened, known=known, progress=progress)
    job = Job(
        name=f"keepsight-{project.replace('_', '-')}-v{number}-{uuid.uuid4().hex[:6]}",
        settings=_settings_text(ws, project, wish, source=f"{source}/{TABLE}", models_url=models_url),
        command=["keepsight", "ci", project, "--reason", reason, *options],
    )
    path = ws.state / "where" / f"{project}.yaml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(wish, job), encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror}.", expected="a writable folder.", do="Change its permissions."
        ) from error
    command = start_command(wish, job, str(path))
    return Task(str(path), command, f"{source}/{TABLE}", models_url, pictures, uploaded, removed)


def upload(
    ws: Workspace, project: str, number: int, store: Any, *, known: Mapping[str, str], progress: Progress
) -> tuple[int, int, int]:
    """Makes a folder of the bucket hold exactly a version's pictures, and the table that lists them.

    What was erased or removed here goes there too. Pictures kept back as ``recent`` go along only where the registry
    knows them as such (``known``, by picture id): the others would be dealt to training there.

    Returns:
        Pictures in the table, of these how many were uploaded, and how many objects were removed.
    """
    import obstore
    from obstore.exceptions import BaseError

    chosen = [
        sample
        for sample in samples.at_version(ws, project, number)
        if sample.split != RECENT or known.get(sample.picture_id) == RECENT
    ]
    places = {sample.picture_id: _place(sample) for sample in chosen}
    try:
        there = {str(item["path"]) for item in obstore.list(store).collect()}
        missing = [(picture, place) for picture, place in places.items() if place not in there]

        def send(item: tuple[str, str]) -> None:
            obstore.put(store, item[1], ws.blobs.get(item[0]))

        with ThreadPoolExecutor(UPLOADS) as pool:
            for done, _ in enumerate(pool.map(send, missing), start=1):
                progress("uploading", done, len(missing))
        # Last: what it lists is there.
        obstore.put(store, TABLE, _table(chosen, places).encode())
        gone = sorted(there - set(places.values()) - {TABLE})
        if gone:
            obstore.delete(store, gone)
    except (BaseError, OSError) as error:
        raise store_error("The bucket", error) from error
    return len(chosen), len(missing), len(gone)


def _share_champion(ws: Workspace, project: str, number: int, url: str, *, actor: str) -> dict[str, str]:
    """Makes sure that the registry's live model is the one here; the splits that it knows, by picture id."""
    there = registry.open_registry(url, root=ws.config.root, mlflow_url=ws.config["mlflow.url"])
    found, live = there.champion(project), models.champion(ws, project)
    if found is not None and (live is None or found.digest != live.bundle_digest):
        raise ConflictError(
            f"The live model of {project} in the registry is {found.digest[:12]}, and another one or none here.",
            expected="the same live model on both sides.",
            do=f"Take that one over: `keepsight models fetch {project}`.",
        )
    if found is not None:
        splits = dict(found.splits)
    elif live is not None:
        splits = standalone.sides(ws, project, number, known={})
        release = Release(
            bundle=models.load_bundle(ws, live),
            decision="deploy",
            expected=None,
            report=f"Model {live.number} of {project}, which was live when the registry was begun.\n",
            splits=splits,
        )
        there.push(project, release, actor=actor, reason="the live model of the workspace")
    else:
        return {}
    return {ws.keys.name_of(bytes.fromhex(sha)): split for sha, split in splits.items() if split in SPLITS}


def fetch(ws: Workspace, project: str, *, actor: str) -> int | None:
    """Makes the live model of the registry the live one here; its number, None where the registry has none.

    Raises:
        ConflictError: ``registry.url`` is not set, or the model is of another task.
    """
    url = ws.settings(project)["registry.url"]
    if url is None:
        raise ConflictError(
            f"{project} has no registry.", expected="the setting registry.url.", do="Set it in keepsight.yaml."
        )
    there = registry.open_registry(str(url), root=ws.config.root, mlflow_url=ws.config["mlflow.url"])
    champion = there.champion(project)
    return None if champion is None else standalone.adopt(ws, project, champion, actor=actor)


def _check_settings(settings: Mapping[str, Any]) -> None:
    for name in FILES:
        if settings.get(name) is not None:
            raise _local(name, settings[name])
    if str(settings["train.backbone"]).endswith(".onnx"):
        raise _local("train.backbone", settings["train.backbone"])


def _local(name: str, value: Any) -> ConflictError:
    return ConflictError(
        f"{name} is {value}, a file of this machine.",
        expected="weights that the rented machine can get by itself.",
        do="Use a backbone of `keepsight zoo list`, or train here.",
    )


def _registry_url(wish: Wish, configured: str | None, *, mlflow_url: str | None) -> str:
    """The project's registry where a rented machine can reach it, else one in the bucket."""
    url = f"mlflow+{mlflow_url}" if configured == "mlflow" else str(configured or "")
    in_bucket = is_bucket(url) and not url.startswith(("file://", "mlflow+"))
    if not in_bucket and not url.startswith(("mlflow+http://", "mlflow+https://")):
        return f"{wish.bucket}/models"
    if "@" in urlsplit(url.removeprefix("mlflow+")).netloc:
        raise ConflictError(
            "registry.url holds a password, which the task file would show.",
            expected="an address without one.",
            do="Give credentials in the environment (env or secret of the --where file).",
        )
    return url


def _settings_text(ws: Workspace, project: str, wish: Wish, *, source: str, models_url: str) -> str:
    import yaml

    values = ws.settings(project).values
    chosen = {name: value.value for name, value in values.items() if value.origin != "default"}
    chosen = {name: value for name, value in chosen.items() if name not in ELSEWHERE}
    there = {"data.source": source, "registry.url": models_url, "train.checkpoints": f"{wish.bucket}/checkpoints"}
    tree: dict[str, Any] = {"projects": {project: {"task": values["task"].value, **chosen, **there}}}
    if wish.eur_per_hour is not None:
        tree["machine.eur_per_hour"] = wish.eur_per_hour
    return yaml.safe_dump(tree, sort_keys=True, width=120)


def _place(sample: samples.Sample) -> str:
    suffix = PurePosixPath(sample.name).suffix.lower()
    return f"{PICTURES}/{sample.picture_id}{suffix if suffix.isascii() else ''}"


def _table(chosen: Sequence[samples.Sample], places: Mapping[str, str]) -> str:
    columns = sorted(
        {key for sample in chosen for key in sample.meta if key.lower() not in _RESERVED and key == key.strip()}
    )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["path", "label", "split", "group", *columns])
    for sample in chosen:
        split = "" if sample.split == RECENT else sample.split
        meta = [value if isinstance(value := sample.meta.get(key), str | int | float) else "" for key in columns]
        writer.writerow([places[sample.picture_id], _cell(sample.value), split, sample.group or "", *meta])
    return out.getvalue()


def _cell(value: Mapping[str, Any] | None) -> str:
    """An annotation as the cell of a table: a class by its name, any other as JSON."""
    if value is None:
        return ""
    return str(value["label"]) if set(value) == {"label"} else json.dumps(dict(value))
