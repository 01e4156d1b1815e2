"""One trial of a search: a short first phase with other settings, judged by the held-out pictures.

The same code computes a trial in this process and on another machine, so with as many threads it gives the same loss.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import ConflictError, TrainingError
from keepsight.training.finetune.cache import Cache
from keepsight.training.finetune.classifier import Classifier
from keepsight.training.finetune.fit import FitResult, Trainer
from keepsight.training.finetune.network import Cut, Tail
from keepsight.training.finetune.settings import Plan

if TYPE_CHECKING:
    import onnx

COMPLETE, PRUNED, FAILED, OUT_OF_TIME = "complete", "pruned", "failed", "out of time"
# How often a trial looks at the held-out pictures, and from which look on it may be given up: before the middle of the
# schedule a high learning rate looks worse than it ends.
LOOKS, FIRST_PRUNING = 6, 2
# Random views beyond this many bytes stay at home: what a trial reads travels to other machines and stays in memory.
MOST_VIEW_BYTES = 2 * 1024**3
_SPEED_STEPS = 4


@dataclass(frozen=True)
class Ask:
    """A trial to be made.

    Attributes:
        number: Its place in the search.
        settings: Values of the plan's fields that it tries.
        bars: For each look the loss above which it is given up; None for none.
        seconds: What it may take; where that is over, it has no result.
        threads: Of torch; None for those that are set.
    """

    number: int
    settings: Mapping[str, float]
    bars: tuple[float | None, ...] = ()
    seconds: float | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Attributes:
        number, settings: As asked.
        steps: That were done.
        state: "complete", "pruned" (worse than most others on its way), "failed" (the loss went beyond all numbers) or
            "out of time".
        accuracy: Of the held-out pictures; None where it did not come so far.
        nll: Their lowest calibrated loss.
        curve: The lowest loss until each look.
    """

    number: int
    settings: dict[str, float]
    steps: int
    state: str
    accuracy: float | None = None
    nll: float | None = None
    curve: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """What ``as_dict`` wrote."""
        return cls(**{**values, "curve": tuple(values["curve"])})


@dataclass(frozen=True)
class Speed:
    """Seconds for what a trial consists of, on this machine with all its threads."""

    start_s: float
    step_s: float
    look_s: float

    def trial_s(self, steps: int) -> float:
        """A whole trial of so many steps."""
        return self.start_s + steps * self.step_s + (LOOKS + 2) * self.look_s


class _OutOfTime(Exception):  # noqa: N818 - no error: it ends one trial
    pass


@dataclass(frozen=True)
class Bench:
    """What all trials of a search share.

    Attributes:
        model: Graph from ``image`` to ``features``.
        cut: Where the trained part begins.
        cache: Activations there.
        labels: int64 (n,).
        features: The backbone's index vectors, float32 (n, d), for the classifier to begin with.
        rows, held: Places to train on and to judge by.
        classes: How many there are.
        plan: With the steps of a trial.
        seed: Of every trial.
    """

    model: onnx.ModelProto
    cut: Cut
    cache: Cache
    labels: NDArray[np.int64]
    features: NDArray[np.float32]
    rows: NDArray[np.int64]
    held: NDArray[np.int64]
    classes: int
    plan: Plan
    seed: int

    def small(self) -> Bench:
        """With as many random views as are worth sending."""
        views = self.cache.views
        each = views.nbytes // views.shape[1] if views.size else 0
        count = min(views.shape[1], max(1, MOST_VIEW_BYTES // each)) if each else 0
        return replace(self, cache=replace(self.cache, views=views[:, :count]))

    def trainer(self, settings: Mapping[str, Any], *, clock: Callable[[], float] = time.monotonic) -> Trainer:
        """Untrained, as the first phase begins, with other settings."""
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        tail = Tail(self.model, self.cut, half=self.plan.half, device=device)
        classifier = Classifier(self.features[self.rows], self.classes, device=device)
        classifier.probe(self.features[self.rows], self.labels[self.rows])
        plan = replace(self.plan, **settings)
        return Trainer(self.cache, self.labels, tail, classifier, plan, seed=self.seed, clock=clock)

    def speed(self, *, clock: Callable[[], float]) -> Speed:
        """Measures it, which takes a few steps."""
        self.trainer({}, clock=clock)
        began = clock()
        trainer = self.trainer({}, clock=clock)
        start_s = clock() - began
        nothing = np.zeros(0, np.int64)
        trainer.run("speed", self.rows, nothing, steps=2)
        began = clock()
        trainer.run("speed", self.rows, nothing, steps=_SPEED_STEPS)
        step_s = (clock() - began) / _SPEED_STEPS
        began = clock()
        trainer.judge(self.held)
        return Speed(start_s, max(step_s, 1e-6), clock() - began)

    def run(
        self,
        ask: Ask,
        *,
        progress: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Outcome:
        """Makes a trial; ``progress`` takes the share of it that is done and may raise to stop."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(ask.threads or threads)
        try:
            return self._run(ask, progress=progress, clock=clock)
        finally:
            torch.set_num_threads(threads)

    def _run(self, ask: Ask, *, progress: Callable[[float], None] | None, clock: Callable[[], float]) -> Outcome:
        began = clock()
        trainer = self.trainer(ask.settings, clock=clock)
        steps = self.plan.steps
        curve: list[float] = []
        accuracy = 0.0
        pruned = False

        def follow(share: float) -> None:
            if ask.seconds is not None and clock() - began > ask.seconds:
                raise _OutOfTime
            if progress:
                progress(share)

        def give_up(_step: int, right: float, loss: float) -> bool:
            nonlocal accuracy, pruned
            look, accuracy = len(curve), right
            curve.append(min([loss, *curve[-1:]]))
            bar = ask.bars[look] if look < len(ask.bars) else None
            pruned = bar is not None and curve[-1] > bar
            return pruned

        try:
            found: FitResult = trainer.run(
                "first",
                self.rows,
                self.held,
                steps=steps,
                looks=LOOKS,
                progress=follow,
                on_evaluation=give_up,
            )
        except _OutOfTime:
            return Outcome(ask.number, dict(ask.settings), 0, OUT_OF_TIME, curve=tuple(curve))
        except TrainingError:
            return Outcome(ask.number, dict(ask.settings), 0, FAILED, curve=tuple(curve))
        done = found.curve[-1][0]
        if pruned:
            return Outcome(ask.number, dict(ask.settings), done, PRUNED, accuracy, curve[-1], tuple(curve))
        # Where it began is the same for all trials and tells nothing of their settings.
        _, accuracy, nll = min(found.curve[1:], key=lambda point: point[2])
        return Outcome(ask.number, dict(ask.settings), done, COMPLETE, accuracy, nll, tuple(curve))

    def shared(self) -> dict[str, bytes]:
        """All of it as bytes, for ``Trials``."""
        arrays = {
            "plain": self.cache.plain,
            "views": self.cache.views,
            "there": self.cache.there,
            "labels": self.labels,
            "features": self.features,
            "rows": self.rows,
            "held": self.held,
        }
        about = {
            "cut": asdict(self.cut),
            "classes": self.classes,
            "plan": self.plan.as_dict(),
            "seed": self.seed,
            "torch": _torch_version(),
        }
        return {
            "model": self.model.SerializeToString(deterministic=True),
            "about": json.dumps(about, sort_keys=True).encode(),
            **{name: _bytes(array) for name, array in arrays.items()},
        }

    @classmethod
    def of(cls, shared: Mapping[str, bytes]) -> Bench:
        """What ``shared`` described.

        Raises:
            ConflictError: This machine has another torch, or none.
        """
        import onnx

        about = json.loads(shared["about"])
        if _torch_version() != about["torch"]:
            raise ConflictError(
                f"A machine that should make trials has torch {_torch_version()}.",
                expected=f"torch {about['torch']}, as on the machine that trains.",
                do="Install Keepsight with the extra [train] alike on every machine of the cluster.",
            )

        def array(name: str) -> Any:
            return np.load(io.BytesIO(shared[name]), allow_pickle=False)

        cut = about["cut"]
        return cls(
            model=onnx.load_from_string(shared["model"]),
            cut=Cut(cut["name"], tuple(cut["shape"]), cut["trained"]),
            cache=Cache(array("plain"), array("views"), array("there")),
            labels=array("labels"),
            features=array("features"),
            rows=array("rows"),
            held=array("held"),
            classes=about["classes"],
            plan=Plan.from_dict(about["plan"]),
            seed=about["seed"],
        )


class Trials:
    """Makes trials on a machine of a cluster; a process makes one at a time."""

    def __init__(self, shared: Mapping[str, bytes]) -> None:
        self._bench = Bench.of(shared)

    def __call__(self, ask: Ask) -> Outcome:
        """See ``Bench.run``."""
        return self._bench.run(ask)


def _bytes(array: NDArray[Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


def _torch_version() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return "missing"
