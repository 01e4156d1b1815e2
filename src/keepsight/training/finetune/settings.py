"""What a fine-tune is made with, as a plan that can be written down and replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from keepsight.training.finetune.course import Course


@dataclass(frozen=True)
class Plan:
    """Everything that decides a fine-tune besides pictures, labels and seed; JSON-able.

    Attributes:
        cut: Name of the tensor where the frozen part ends.
        half: Convolve in bfloat16.
        augmentations: Which changes random views may have.
        left_out: Changes that the settings allow and the pictures do not bear.
        views: Random views of a picture, beside the plain one.
        view_size: Side of the random views in pixels; windows of the plain size are cut from their maps.
        window: Side of the windows of the first part of training, as a share of the plain map's.
        batch: Pictures of a step.
        steps: Of the first phase, which never sees the held-out pictures.
        more_steps: Of the second, which sees all; 0 where it is left out.
        learning_rate: Highest, of the network's weights.
        head_learning_rate: Highest, of the classifier.
        weight_decay: Of both.
        mixup: Parameter of the beta distribution; 0 for none.
        smoothing: Of the labels.
        dropout: Before the classifier.
        averaging: Share of the steps over which weights are averaged.
        hold_out: "validation", or "groups" for a share of the groups.
        search: How a search over settings ended, in short; None where there was none.
        first, second: How the phases went, for a replay; None before.
    """

    cut: str
    half: bool
    augmentations: tuple[str, ...]
    left_out: tuple[str, ...]
    views: int
    view_size: int
    steps: int
    more_steps: int
    hold_out: str
    window: float = 0.86
    batch: int = 64
    learning_rate: float = 1e-3
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.05
    mixup: float = 0.2
    smoothing: float = 0.1
    dropout: float = 0.2
    averaging: float = 0.03
    search: Mapping[str, Any] | None = None
    first: Course | None = None
    second: Course | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the run's record."""
        courses = {"first": self.first, "second": self.second}
        told = {name: None if course is None else course.as_dict() for name, course in courses.items()}
        return {"recipe": "finetune", **asdict(self), **told}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that ``as_dict`` wrote."""
        known: dict[str, Any] = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        for name, value in known.items():
            known[name] = tuple(value) if isinstance(value, list) else value
        for name in ("first", "second"):
            if known.get(name) is not None:
                known[name] = Course.from_dict(known[name])
        if "stopped_at" in values and known.get("first") is None:
            # As runs recorded it that noted no pace.
            end, more = values["stopped_at"], known["more_steps"]
            end = known["steps"] if end is None else end
            known |= {"first": Course(known["steps"], end, end), "second": Course(more, more, more)}
        return cls(**known)

    def estimate_s(self, *, step_s: float, view_s: float, pictures: int) -> float:
        """Seconds on a machine that takes so long for a step and for a view."""
        return pictures * (self.views + 1) * view_s + (self.steps + self.more_steps) * step_s
