"""Which split each pending sample gets: the same shelf never stands on both sides, and what judges never trains.

Samples are decided in units: those of one group together, and without a group those that are near-duplicates of each
other. A unit that belongs to something with a split joins it. Otherwise one half of the units with a picture that was
drawn for an audit goes to ``recent`` and one half to train, whenever they arrived; other reviewed pictures train, since
they were chosen for being hard and would bend any figure; imports are divided by ``data.val_share`` and
``data.test_share``, class by class.

A split, once committed, is never changed here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from keepsight import tasks
from keepsight.config import ProjectSettings
from keepsight.data import rows, samples, splits, vectors
from keepsight.data.rows import PENDING
from keepsight.data.samples import Sample
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.zoo.backbone import Backbone

AUDIT = "audit"
BLOCK = 1024


def decide(ws: Workspace, project: str, *, backbone: Backbone | None = None) -> dict[str, str]:
    """The split of each pending sample, by sample id; nothing is written but missing index vectors.

    Args:
        backbone: Of the index vectors, which are needed where a pending sample has no group; the project's
            ``train.backbone`` when not given.

    Raises:
        WeightsError: The backbone is needed and not there.
    """
    if not _any_pending(ws, project):
        return {}
    everything = samples.current(ws, project)
    pending = [sample for sample in everything if sample.split == PENDING]
    settled = [sample for sample in everything if sample.split != PENDING]
    settings = ws.settings(project)
    alike = _Alike.unknown(len(pending))
    if any(sample.group is None for sample in pending):
        backbone = backbone or vectors.backbone_of(ws, settings)
        vectors.ensure(ws, [sample.picture_id for sample in everything], backbone)
        alike = _compare(ws, settled, pending, backbone, settings=settings)
    homes = _homes(settled, pending, alike)
    decided: dict[str, str] = {}
    undecided: dict[str, list[Sample]] = {}
    audited: dict[str, list[Sample]] = {}
    units = _units(pending, alike)
    for key, unit in units.items():
        chosen = [sample.meta.get("selected_by") for sample in unit]
        if key in homes:
            decided.update({sample.sample_id: homes[key] for sample in unit})
        elif AUDIT in chosen:
            audited[key] = unit
        elif all(chosen):
            decided.update({sample.sample_id: "train" for sample in unit})
        else:
            undecided[key] = unit
    for key, split in halves(project, _arrivals(ws, audited)).items():
        decided.update({sample.sample_id: split for sample in audited[key]})
    shares = {"val": settings["data.val_share"], "test": settings["data.test_share"]}
    fractions = {"train": 1 - sum(shares.values()), **shares}
    return decided | _divide(undecided, fractions, task=tasks.get(settings["task"]), seed=settings["train.seed"])


def apply(connection: Connection, project: str, decided: Mapping[str, str]) -> None:
    """Gives samples that are still pending their splits, in the caller's transaction."""
    members = rows.current(connection, schema.membership, project, list(decided))
    table = schema.membership
    update = (
        sa.update(table)
        .where(table.c.seq == sa.bindparam("row"))
        .values(split=sa.bindparam("new_split"), leaf=sa.bindparam("new_leaf"))
    )
    values = [
        {
            "row": row["seq"],
            "new_split": decided[sample_id],
            "new_leaf": rows.membership_leaf({**row, "split": decided[sample_id]}),
        }
        for sample_id, row in members.items()
        if row["split"] == PENDING
    ]
    if values:
        connection.execute(update, values)


def _any_pending(ws: Workspace, project: str) -> bool:
    table = schema.membership
    query = sa.select(table.c.seq).where(
        table.c.project_id == project, table.c.removed_in.is_(None), table.c.split == PENDING
    )
    with ws.database.read() as connection:
        return connection.execute(query.limit(1)).first() is not None


@dataclass(frozen=True)
class _Alike:
    """How alike the n pending pictures are to each other and to those that have a split.

    Attributes:
        cluster: int64 (n,), pictures of one cluster have the same number.
        nearest: int64 (n,), the most similar settled picture, or -1 where none is a near-duplicate.
        cosine: float32 (n,), how similar that one is.
    """

    cluster: NDArray[np.int64]
    nearest: NDArray[np.int64]
    cosine: NDArray[np.float32]

    @classmethod
    def unknown(cls, n: int) -> _Alike:
        """Nothing is known to be alike."""
        return cls(np.arange(n), np.full(n, -1), np.zeros(n, np.float32))


def _compare(
    ws: Workspace,
    settled: Sequence[Sample],
    pending: Sequence[Sample],
    backbone: Backbone,
    *,
    settings: ProjectSettings,
) -> _Alike:
    unit, present = _unit_vectors(ws, pending, backbone)
    others, _ = _unit_vectors(ws, settled, backbone)
    threshold = near_duplicate_level(settings, [*settled, *pending], np.concatenate([others, unit]))
    alike = _Alike.unknown(len(pending))
    known = np.flatnonzero(present)
    # The cap on a cluster's size is meant for the whole data set, not for what happens to be new.
    share = min(1.0, splits.MAX_CLUSTER_SHARE * (len(settled) + len(pending)) / max(1, len(known)))
    clusters = splits.cluster_near_duplicates(unit[known], threshold=threshold, max_share=share)
    # An unreadable picture is alone: its number is beyond those of the clusters.
    alike.cluster[:] += len(known)
    alike.cluster[known] = clusters
    if settled:
        for start in range(0, len(known), BLOCK):
            block = known[start : start + BLOCK]
            similar = unit[block] @ others.T
            best = similar.argmax(axis=1)
            cosine = similar[np.arange(len(block)), best]
            alike.nearest[block] = np.where(cosine >= threshold, best, -1)
            alike.cosine[block] = cosine
    return alike


def near_duplicate_level(settings: ProjectSettings, some: Sequence[Sample], unit: NDArray[np.float32]) -> float:
    """The cosine from which two pictures count as near-duplicates: as set, else what the labelled ones show.

    ``unit`` (n, d) holds the L2-normalised vectors of the samples.
    """
    if settings["data.near_duplicate"] is not None:
        return float(settings["data.near_duplicate"])
    labelled = [place for place, sample in enumerate(some) if sample.value is not None and unit[place].any()]
    task = tasks.get(settings["task"])
    labels = [task.stratum(some[place].value or {}) for place in labelled]
    return splits.near_duplicate_threshold(unit[labelled], labels, seed=settings["train.seed"])


def _unit_vectors(
    ws: Workspace, some: Sequence[Sample], backbone: Backbone
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """L2-normalised vectors (n, d), zeros for unreadable pictures, and which are there."""
    found = vectors.load(ws, [sample.picture_id for sample in some], backbone)
    found.features[:] /= np.maximum(np.linalg.norm(found.features, axis=1, keepdims=True), 1e-12)
    return found.features, found.present


def _keys(pending: Sequence[Sample], alike: _Alike) -> list[str]:
    """The unit of each pending sample: its group; else the group that most of its cluster has; else its cluster.

    A cluster is named after its lowest sample id, which does not depend on what else is pending.
    """
    groups: dict[int, Counter[str]] = {}
    lowest: dict[int, str] = {}
    for sample, cluster in zip(pending, alike.cluster.tolist(), strict=True):
        lowest[cluster] = min(sample.sample_id, lowest.get(cluster, sample.sample_id))
        if sample.group is not None:
            groups.setdefault(cluster, Counter())[sample.group] += 1
    keys = []
    for sample, cluster in zip(pending, alike.cluster.tolist(), strict=True):
        group = sample.group or next((name for name, _ in groups.get(cluster, Counter()).most_common(1)), None)
        keys.append(f"group {group}" if group is not None else f"cluster {lowest[cluster]}")
    return keys


def _units(pending: Sequence[Sample], alike: _Alike) -> dict[str, list[Sample]]:
    units: dict[str, list[Sample]] = {}
    for sample, key in zip(pending, _keys(pending, alike), strict=True):
        units.setdefault(key, []).append(sample)
    return units


def _homes(settled: Sequence[Sample], pending: Sequence[Sample], alike: _Alike) -> dict[str, str]:
    """The split that a unit belongs to already: that of its group, or of its most similar near-duplicate."""
    votes: dict[str, Counter[str]] = {}
    for sample in settled:
        if sample.group is not None:
            votes.setdefault(f"group {sample.group}", Counter())[sample.split] += 1
    homes = {key: counter.most_common(1)[0][0] for key, counter in votes.items()}
    strongest: dict[str, tuple[float, str]] = {}
    for key, nearest, cosine in zip(_keys(pending, alike), alike.nearest.tolist(), alike.cosine.tolist(), strict=True):
        if nearest >= 0 and key.startswith("cluster "):
            strongest[key] = max(strongest.get(key, (-1.0, "")), (cosine, settled[nearest].split))
    return homes | {key: split for key, (_, split) in strongest.items()}


def halves(project: str, arrivals: Mapping[str, float]) -> dict[str, str]:
    """``recent`` or ``train`` for each audited unit, by its key.

    Units are paired in the order of their arrival, the newest first, and a hash draws which of a pair judges; an odd
    one, the oldest, is drawn alone. So every unit judges with probability one half, whatever it shows, and both sides
    have about as many of each time (random allocation in blocks of two): of three units that arrived one after the
    other at least one judges and one trains. The two draws of a pair are opposite instead of independent, so ranges
    that take units for independent are rather too wide than too narrow where neighbours in time are alike.

    Args:
        project: Part of what is hashed, with the keys: sample ids in them depend on the workspace's own key.
        arrivals: When the newest audited picture of each unit was asked about.
    """
    newest_first = sorted(arrivals, key=lambda key: (-arrivals[key], key))
    found = {}
    for start in range(0, len(newest_first), 2):
        pair = newest_first[start : start + 2]
        drawn = hashlib.sha256(" ".join([project, *pair]).encode()).digest()[0] % 2
        for place, key in enumerate(pair):
            found[key] = "recent" if place == drawn else "train"
    return found


def _arrivals(ws: Workspace, audited: Mapping[str, Sequence[Sample]]) -> dict[str, float]:
    """When the newest audited picture of each unit was asked about; 0 where nobody knows."""
    events = {
        key: [str(sample.meta.get("event_id")) for sample in unit if sample.meta.get("selected_by") == AUDIT]
        for key, unit in audited.items()
    }
    table = schema.review_item
    times: dict[str, float] = {}
    with ws.database.read() as connection:
        for part in rows.chunks([event for some in events.values() for event in some]):
            found = connection.execute(
                sa.select(table.c.event_id, table.c.created_at).where(table.c.event_id.in_(part))
            )
            times.update({row.event_id: row.created_at for row in found})
    return {key: max(times.get(event, 0.0) for event in some) for key, some in events.items()}


def _divide(
    units: Mapping[str, Sequence[Sample]], fractions: Mapping[str, float], *, task: tasks.Task, seed: int
) -> dict[str, str]:
    """New units over train, val and test, stratified by what the task says."""
    members = [(sample, key) for key, unit in units.items() for sample in unit]
    if not members:
        return {}
    names = splits.assign_splits(
        [key for _, key in members],
        ["" if sample.value is None else task.stratum(sample.value) for sample, _ in members],
        fractions=fractions,
        seed=seed,
    )
    return {sample.sample_id: name for (sample, _), name in zip(members, names, strict=True)}
