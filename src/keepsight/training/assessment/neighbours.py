"""The training pictures that look most alike to a model: why it may have answered as it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight import tasks
from keepsight.data.samples import Sample
from keepsight.runtime.bundle import Bundle
from keepsight.store.workspace import Workspace
from keepsight.training import evaluation
from keepsight.training.material import Part
from keepsight.zoo.backbone import Backbone

# Where the model's own features must be computed, so many training pictures stand for all.
MOST_COMPUTED = 2000


@dataclass(frozen=True)
class Neighbours:
    """Training pictures and where they lie for the model.

    Attributes:
        task: What the annotations are of.
        samples: The pictures.
        unit: Their features, float32 (n, d), each of length 1.
    """

    task: str
    samples: tuple[Sample, ...]
    unit: NDArray[np.float32] = field(repr=False)

    @classmethod
    def of(
        cls,
        ws: Workspace,
        bundle: Bundle,
        training: Part,
        *,
        backbone: Backbone,
        seed: int,
        progress: Callable[[Mapping[str, Any]], None],
    ) -> Neighbours:
        """All training pictures where the bundle's features are the index vectors; else up to 2,000, chosen by seed."""
        if not evaluation.shares_features(bundle, backbone) and len(training) > MOST_COMPUTED:
            chosen = np.random.default_rng(seed).permutation(len(training))[:MOST_COMPUTED]
            training = training.take(np.sort(chosen).astype(np.int64))
        if not len(training):
            return cls(training.task, (), np.zeros((0, 0), np.float32))
        found = evaluation.answers(
            ws,
            bundle,
            training,
            backbone=backbone,
            progress=lambda values: progress({**values, "text": "looking at training pictures"}),
        )
        places = np.flatnonzero(found.there)
        return cls(training.task, tuple(training.samples[place] for place in places), _unit(found.features[places]))

    def nearest(self, features: NDArray[np.float32], *, count: int = 3) -> list[list[dict[str, Any]]]:
        """For each row of ``features`` (m, d) the most similar training pictures, by cosine, most similar first."""
        if not self.samples or not len(features):
            return [[] for _ in features]
        task = tasks.get(self.task)
        cosines = _unit(features) @ self.unit.T
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        return [
            [
                {
                    "sample_id": self.samples[place].sample_id,
                    "picture_id": self.samples[place].picture_id,
                    "label": task.summary(self.samples[place].value or {}),
                    "cosine": round(float(row[place]), 4),
                }
                for place in places
            ]
            for row, places in zip(cosines, order, strict=True)
        ]


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12), np.float32)
