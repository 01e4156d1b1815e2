"""What a detector is trained with, as a plan that can be written down and replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Plan:
    """Everything that decides a training besides pictures, annotations and seed; JSON-able.

    Attributes:
        architecture: "fcos" or "ssdlite".
        why: In words, what architecture and size were chosen by.
        size: Side of the square input in pixels.
        fit: How pictures fill it: "stretch" or "pad".
        scales: Of SSDlite's default boxes, as shares of the picture's side.
        augmentations: Which changes random views may have.
        steps: How many, unless time runs out or the held-out pictures are found worse and worse.
        hold_out: "validation", "groups" for a share of the groups, or "nothing".
        batch: Pictures of a step.
        learning_rate: Highest, of new layers.
        backbone_rate: The pretrained layers' share of it.
        weight_decay: Of all weights that are no biases.
        averaging: Share of the steps over which weights are averaged.
        stopped_at: The step whose averaged weights were kept; None before training.
    """

    architecture: str
    why: str
    size: int
    fit: str
    scales: tuple[float, ...]
    augmentations: tuple[str, ...]
    steps: int
    hold_out: str
    batch: int = 8
    learning_rate: float = 1e-3
    backbone_rate: float = 0.4
    weight_decay: float = 0.02
    averaging: float = 0.04
    stopped_at: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the run's record."""
        return {"recipe": self.architecture, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that ``as_dict`` wrote."""
        known: dict[str, Any] = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        for name, value in known.items():
            known[name] = tuple(value) if isinstance(value, list) else value
        return cls(**known)
