"""A dataset version as arrays: which pictures train, which judge, and their index vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight import tasks
from keepsight.data import samples, splits, vectors
from keepsight.data.assignment import near_duplicate_level
from keepsight.data.samples import Sample
from keepsight.store.workspace import Workspace
from keepsight.zoo.backbone import Backbone

TRAINING = ("train", "val")
JUDGING = ("test", "recent")


def _selected_by(row: Sample) -> str | None:
    chosen: str | None = row.meta.get("selected_by")
    return chosen


# A reviewed picture that looks like one of `test` or `recent` stands there, so that it is never trained on; but it
# judges only if chance chose it: the test set stays frozen, and pictures chosen for being hard would bend the figures.
_PARTS: dict[str, Callable[[Sample], bool]] = {
    "training": lambda row: row.split in TRAINING,
    "test": lambda row: row.split == "test" and _selected_by(row) is None,
    "recent": lambda row: row.split == "recent" and _selected_by(row) == "audit",
}


@dataclass(frozen=True)
class Part:
    """Some labelled pictures of a version, in one order.

    Attributes:
        task: What the annotations are of.
        samples: The rows.
        features: Index vectors, float32 (n, d).
        quality: Blur, brightness and contrast, float32 (n, 3).
        sizes: Width and height of each picture in pixels, int64 (n, 2).
        groups: int64 (n,); the user's groups, and clusters of near-duplicates where none was given.
    """

    task: str
    samples: tuple[Sample, ...]
    features: NDArray[np.float32]
    quality: NDArray[np.float32]
    sizes: NDArray[np.int64]
    groups: NDArray[np.int64]

    @property
    def values(self) -> list[tasks.Value]:
        """The annotation of each picture."""
        return [sample.value or {} for sample in self.samples]

    @property
    def labels(self) -> list[str]:
        """The annotation of each picture in a few words."""
        task = tasks.get(self.task)
        return [task.summary(value) for value in self.values]

    @property
    def classes(self) -> list[tuple[str, ...]]:
        """The classes that the annotation of each picture names."""
        task = tasks.get(self.task)
        return [task.classes(value) for value in self.values]

    @property
    def keys(self) -> list[str]:
        """The sample ids."""
        return [sample.sample_id for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, places: NDArray[np.int64]) -> Part:
        """The pictures at these places."""
        return Part(
            task=self.task,
            samples=tuple(self.samples[place] for place in places),
            features=self.features[places],
            quality=self.quality[places],
            sizes=self.sizes[places],
            groups=self.groups[places],
        )

    @staticmethod
    def join(first: Part, second: Part) -> Part:
        """The pictures of both; a group of one is never a group of the other."""
        shift = int(first.groups.max()) + 1 if len(first) else 0
        return Part(
            task=first.task,
            samples=first.samples + second.samples,
            features=np.concatenate([first.features, second.features]),
            quality=np.concatenate([first.quality, second.quality]),
            sizes=np.concatenate([first.sizes, second.sizes]),
            groups=np.concatenate([first.groups, second.groups + shift]),
        )


def load(
    ws: Workspace,
    project: str,
    number: int,
    backbone: Backbone,
    *,
    progress: Callable[[Mapping[str, Any]], None],
    trains: bool = True,
) -> dict[str, Part]:
    """The labelled pictures of a version by split, ``training`` holding train and val together.

    Missing index vectors are computed. A picture that cannot be read is left out (``vectors.ensure`` tells).

    Args:
        ws: The workspace.
        project: The project.
        number: The version.
        backbone: Of the index vectors.
        progress: Takes dicts with ``text``, ``done`` and ``total``.
        trains: Whether there must be something to train on; a pretrained model needs nothing.

    Raises:
        DataError: There is nothing that the task could learn from, or nothing of it can be read.
    """
    task = ws.settings(project)["task"]
    rows = [row for row in samples.at_version(ws, project, number) if row.value is not None]
    wanted = [row for row in rows if row.split in (*TRAINING, *JUDGING)]
    if trains:
        check_trainable(task, project, wanted)
    vectors.ensure(
        ws,
        [row.picture_id for row in wanted],
        backbone,
        progress=lambda done, total: progress({"text": "looking at pictures", "done": done, "total": total}),
    )
    found = vectors.load(ws, [row.picture_id for row in wanted], backbone)
    usable = [(row, place) for place, row in enumerate(wanted) if found.present[place]]
    if trains:
        check_trainable(task, project, [row for row, _ in usable])
    unit = found.features / np.maximum(np.linalg.norm(found.features, axis=1, keepdims=True), 1e-12)
    level = near_duplicate_level(ws.settings(project), wanted, unit)
    parts = {}
    for name, belongs in _PARTS.items():
        chosen = [(row, place) for row, place in usable if belongs(row)]
        places = np.array([place for _, place in chosen], np.int64)
        parts[name] = Part(
            task=task,
            samples=tuple(row for row, _ in chosen),
            features=found.features[places],
            quality=found.quality[places],
            sizes=found.sizes[places],
            groups=group_numbers([row for row, _ in chosen], unit[places], threshold=level),
        )
    return parts


def group_numbers(rows: Sequence[Sample], unit: NDArray[np.float32], *, threshold: float) -> NDArray[np.int64]:
    """The group of each row as a number: the user's group, else its cluster of near-duplicates."""
    if not rows:
        return np.zeros(0, np.int64)
    clusters = splits.cluster_near_duplicates(unit, threshold=threshold)
    names = [f"group {row.group}" if row.group else f"cluster {clusters[place]}" for place, row in enumerate(rows)]
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def check_trainable(task: str, project: str, rows: Sequence[Sample]) -> None:
    """Makes sure that there is something to learn.

    Raises:
        DataError: There is not.
    """
    values = [row.value for row in rows if row.split in TRAINING and row.value is not None]
    tasks.get(task).check_trainable(project, values)
