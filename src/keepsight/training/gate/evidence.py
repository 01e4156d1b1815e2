"""All that the checks look at, gathered before they look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keepsight.training.slices import Slice

Scores = NDArray[Any]
"""How right answers are, (n,): 0 to 1, or bool where they are right or wrong."""


class Settings(Protocol):
    """Settings of a project by name, such as ``gate.margin``."""

    def __getitem__(self, name: str, /) -> Any:
        """The value."""


RIGHT_OR_WRONG = "is right on"


def verb_of(scores: Scores) -> str:
    """How the mean of scores is told: answers that are right or wrong, or more or less right."""
    return "scores" if bool(((scores > 0) & (scores < 1)).any()) else RIGHT_OR_WRONG


@dataclass(frozen=True)
class Judged:
    """What both models answered to the pictures of one part, in one order.

    Attributes:
        classes: The classes that the annotation of each picture names.
        challenger: (n,), how right the new model was, 0 to 1.
        champion: (n,), how right the live one was; None where none is live.
        groups: (n,) groups of pictures that are not independent; None where all are.
        slices: Slices of the part.
    """

    classes: Sequence[Sequence[str]] = ()
    challenger: Scores = field(default_factory=lambda: np.zeros(0))
    champion: Scores | None = None
    groups: NDArray[np.int64] | None = None
    slices: Sequence[Slice] = ()

    def __len__(self) -> int:
        return len(self.challenger)

    def groups_of(self, rows: NDArray[np.bool_]) -> NDArray[np.int64] | None:
        """The groups of some of the pictures."""
        return None if self.groups is None else self.groups[rows]

    def rows_of(self, label: str) -> NDArray[np.bool_]:
        """On which pictures a class is."""
        return np.array([label in names for names in self.classes], np.bool_)

    @property
    def names(self) -> list[str]:
        """The classes that are on the pictures."""
        return sorted({name for names in self.classes for name in names})

    @property
    def verb(self) -> str:
        """How a mean score is told: answers are right or wrong, or more or less right."""
        return verb_of(self.challenger)


@dataclass(frozen=True)
class Int8Answers:
    """How right the new model was on the test pictures: as a float network, and as an 8-bit one; (n,)."""

    float_scores: Scores
    int8_scores: Scores


@dataclass(frozen=True)
class Evidence:
    """What is known of a challenger, and of the champion beside it.

    Attributes:
        trigger: What started the run; "drift" changes what must be shown.
        test, recent: Answers to the frozen test split, and to the newest checked pictures.
        metrics: The task's figures of the challenger on test, each ``{"value", "low", "high", "n"}`` with 95 % bounds.
        evaluation: What the evaluation of the challenger found, as it is stored; None where there is none.
        latency_ms, champion_latency_ms: Median time for a picture on this machine; None where nobody measured.
        size_bytes, champion_size_bytes: Of the network file that is served.
        licences: SPDX identifiers of the challenger's weights.
        known_licences: Those of the weights that the program itself offers.
        variant: The network that is to be served: ``float`` or ``int8``.
        champion_variant: The network that answers now.
        int8: Answers of the 8-bit network beside the float one; None where the model has none.
        without_consent: Pictures of the training data whose consent cannot be shown; None where no ledger is kept.
    """

    trigger: str
    test: Judged = field(default_factory=Judged)
    recent: Judged = field(default_factory=Judged)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None
    latency_ms: float | None = None
    champion_latency_ms: float | None = None
    size_bytes: int | None = None
    champion_size_bytes: int | None = None
    licences: Sequence[str] = ()
    known_licences: Sequence[str] = ()
    variant: str = "float"
    champion_variant: str | None = None
    int8: Int8Answers | None = None
    without_consent: int | None = None
