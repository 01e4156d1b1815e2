"""A run without a server: the live model comes from the registry, and what passes the gate goes back into it.

The registry also says which picture was on which side of the split. A machine that starts empty would deal the pictures
anew, and then test the live model on pictures that it was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keepsight.data import assignment, rows, samples
from keepsight.data.rows import PENDING, SPLITS
from keepsight.delivery import deployments, registry
from keepsight.delivery.registry import RegisteredBundle, Registry, Release
from keepsight.errors import ConflictError, NotFoundError
from keepsight.loop.ci import source
from keepsight.loop.runs import RunRow
from keepsight.store.workspace import Workspace
from keepsight.training import models

OUTCOMES = ("deployed", "ask", "rejected")


@dataclass(frozen=True)
class Prepared:
    """What a run starts from.

    Attributes:
        registry: Of the project; None where ``registry.url`` is not set.
        expected: Digest of its champion when the run began.
        splits: What it knows of pictures' splits, by sha256.
        facts: For the run's record and report: what was imported and what the champion is.
    """

    registry: Registry | None
    expected: str | None
    splits: Mapping[str, str]
    facts: dict[str, Any]


def prepare(
    ws: Workspace, project: str, *, actor: str, progress: Callable[[str, int, int], None] = lambda *_: None
) -> Prepared:
    """Takes the live model from the registry and the pictures from their source; nothing is committed yet.

    Raises:
        ConflictError: The registry's model is of another task.
        NotFoundError, DataError, SettingsError, StorageError, IntegrityError: Registry or source cannot be used.
    """
    ws.check_project(project)
    url = ws.settings(project)["registry.url"]
    found = (
        None
        if url is None
        else registry.open_registry(str(url), root=ws.config.root, mlflow_url=ws.config["mlflow.url"])
    )
    champion = None if found is None else found.champion(project)
    if champion is not None:
        adopt(ws, project, champion, actor=actor)
    splits = {} if champion is None else champion.splits
    imported = source.take_in(ws, project, author=actor, progress=progress)
    facts: dict[str, Any] = {"pictures": keep_sides(ws, project, splits), "registry": found is not None}
    if imported is not None:
        facts["imported"] = {
            "from": str(ws.settings(project)[source.SETTING]),
            "added": imported.added,
            "updated": imported.updated,
            "unchanged": imported.unchanged,
            "rejected": len(imported.rejected),
            "warnings": list(imported.warnings),
        }
    if champion is not None:
        facts["champion"] = {
            "release": champion.number,
            "bundle": champion.digest,
            "released_at": champion.released_at,
            "dataset": champion.bundle.info.dataset_version,
            "dataset_digest": champion.bundle.info.dataset_digest,
        }
    return Prepared(found, None if champion is None else champion.digest, splits, facts)


def adopt(ws: Workspace, project: str, champion: RegisteredBundle, *, actor: str) -> int:
    """Makes the registry's model the live one here, audited; its number here.

    Raises:
        ConflictError: It is of another task.
    """
    task = ws.settings(project)["task"]
    if champion.bundle.info.task != task:
        raise ConflictError(
            f"The live model of {project} in the registry is for {champion.bundle.info.task}.",
            expected=f"one for {task}.",
            do="Correct registry.url, or give the project another name.",
        )
    live = models.champion(ws, project)
    if live is not None and live.bundle_digest == champion.digest:
        return live.number
    model = next((each for each in models.list_models(ws, project) if each.bundle_digest == champion.digest), None)
    if model is None:
        model = models.register(
            ws,
            project,
            champion.bundle,
            run_id=None,
            dataset_version=None,
            metrics=dict(champion.bundle.info.metrics),
            actor=actor,
        )
    reason = f"release {champion.number} of the registry, by {champion.actor}: {champion.reason}"
    deployments.promote(ws, project, model.number, actor=actor, reason=reason, kind=deployments.REGISTRY)
    return model.number


def keep_sides(ws: Workspace, project: str, splits: Mapping[str, str]) -> dict[str, int]:
    """Gives pictures that wait for a split the one that they had in earlier runs.

    Returns:
        How many pictures the registry ``knew``, how many are ``new`` to it, and how many it knows are ``gone``.
    """
    known = {ws.keys.name_of(bytes.fromhex(sha)): split for sha, split in splits.items() if split in SPLITS}
    current = samples.current(ws, project)
    decided = {
        rows.sample_id(project, sample.picture_id): known[sample.picture_id]
        for sample in current
        if sample.split == PENDING and sample.picture_id in known
    }
    if decided:
        with ws.database.write() as connection:
            assignment.apply(connection, project, decided)
    present = {sample.picture_id for sample in current}
    return {
        "knew": len(present & known.keys()),
        "new": len(present - known.keys()),
        "gone": len(known.keys() - present),
    }


def sides(ws: Workspace, project: str, version: int, *, known: Mapping[str, str]) -> dict[str, str]:
    """The splits of a version's pictures by the sha256 of their bytes, beside what was ``known`` of others."""
    names = {ws.keys.name_of(bytes.fromhex(sha)): sha for sha in known}
    found = dict(known)
    for sample in samples.at_version(ws, project, version):
        sha = names.get(sample.picture_id)
        if sha is None:
            try:
                sha = hashlib.sha256(ws.blobs.get(sample.picture_id)).hexdigest()
            except NotFoundError:
                continue  # It was erased meanwhile: nothing of it goes anywhere.
        found[sha] = sample.split
    return found


def publish(
    ws: Workspace, row: RunRow, prepared: Prepared, *, report: str, revision: str | None = None
) -> dict[str, Any] | None:
    """Puts the model of a run into the registry: as champion where its gate let it pass, else for a person to decide.

    Returns:
        ``bundle`` (its digest), ``decision``, and ``release`` (its number where it is the champion now); None where
        nothing is to be stored.

    Raises:
        ConflictError: Another model went live in the registry since the run began; this one is stored as a candidate.
    """
    if prepared.registry is None or row.outcome not in OUTCOMES or row.model_number is None or row.gate is None:
        return None
    bundle = models.load_bundle(ws, models.get(ws, row.project, row.model_number))
    record = row.record or {}
    release = Release(
        bundle=bundle,
        decision=row.gate["decision"],
        expected=prepared.expected,
        report=report,
        splits=sides(ws, row.project, row.dataset_version or 0, known=prepared.splits),
        facts={
            "run": row.id,
            "revision": revision,
            "gate": row.gate,
            **{name: record.get(name) for name in ("dataset", "pictures", "recipe", "metrics", "environment")},
        },
    )
    number = prepared.registry.push(row.project, release, actor=row.actor, reason=row.reason)
    return {"bundle": bundle.digest, "decision": release.decision, "release": number}
