"""Trains a detector step by step; cut off, it goes on where its checkpoint is.

The learning rate follows progress (one cycle, Smith 2018), and progress is the larger of the steps done and the time
taken: on a machine that slows down training takes fewer steps and still ends with a small learning rate, within its
time. What is judged and kept are averaged weights (Polyak and Juditsky 1992), those of the moment when the held-out
pictures were answered best.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import StorageError, TrainingError
from keepsight.training.detection.network import Detector
from keepsight.training.detection.settings import Plan
from keepsight.training.detection.views import Seen, Views

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_EVERY_S = 30.0
_WARM_UP = 0.06
_FIRST_RATE, _LAST_RATE = 0.04, 0.01
# Held-out pictures are asked at these shares of the training; before, the learning rate is too high to say anything.
LOOKS = (0.35, 0.5, 0.6, 0.7, 0.8, 0.87, 0.94, 1.0)
_PATIENCE = 3
_LARGEST_GRADIENT = 5.0

Point = tuple[int, float]


@dataclass(frozen=True)
class Fitted:
    """What came of it; the detector holds the kept weights.

    Attributes:
        steps: That were taken.
        kept_at: The step whose averaged weights are kept.
        curve: Step and figure on the held-out pictures, during training.
    """

    steps: int
    kept_at: int
    curve: tuple[Point, ...]


class Trainer:
    """A detector with its optimiser and averaged weights.

    Args:
        detector: To train.
        views: Of the pictures.
        plan: How.
        seed: Of order and views.
        folder: For the checkpoint.
        clock: Seconds.
    """

    def __init__(
        self,
        detector: Detector,
        views: Views,
        plan: Plan,
        *,
        seed: int,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        import torch

        self.detector, self.views, self.plan, self.seed = detector, views, plan, seed
        self.folder, self.clock = folder, clock
        groups = []
        for parameters, share in ((detector.slow, plan.backbone_rate), (detector.fast, 1.0)):
            for decayed in (True, False):
                chosen = [each for each in parameters if (each.ndim > 1) == decayed]
                decay = plan.weight_decay if decayed else 0.0
                groups.append({"params": chosen, "weight_decay": decay, "share": share})
        self.optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.99), foreach=True)
        self.values = dict(detector.trained())
        self.average = {name: value.detach().clone() for name, value in self.values.items()}

    def run(
        self,
        rows: NDArray[np.int64],
        judge: Callable[[], float] | None,
        *,
        seconds: float,
        progress: Callable[[float], None],
        stop_at: int | None = None,
    ) -> Fitted:
        """Trains on the pictures ``rows``.

        Args:
            rows: Places.
            judge: A figure of the detector as it then is, on held-out pictures, the more the better; None without any.
            seconds: For the whole training, earlier attempts included.
            progress: Takes the share that is done; may raise to stop.
            stop_at: For a replay: the weights after this step are kept, whatever held-out pictures say.
        """
        step, used, curve, best = self._resumed()
        began, saved = self.clock() - used, self.clock()
        steps = self.plan.steps
        looks = [] if judge is None or stop_at is not None else list(LOOKS[len(curve) :])
        share = 0.0
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self._batch, rows, step)
            while step < (steps if stop_at is None else stop_at) and share < 1:
                batch = coming.result()
                coming = pool.submit(self._batch, rows, step + 1)
                share = max(step / steps, (self.clock() - began) / seconds)
                self._step(batch, rate=one_cycle(min(1.0, share)), step=step)
                step += 1
                share = max(step / steps, (self.clock() - began) / seconds)
                progress(min(1.0, share))
                if looks and share >= looks[0]:
                    # A slow machine may pass several at once.
                    looks = [each for each in looks if each > share]
                    best = self._look(judge, step, curve, best)
                    if _falling(curve):
                        break
                if self.clock() - saved > CHECKPOINT_EVERY_S:
                    saved = self.clock()
                    self._save(step=step, used=saved - began, curve=curve, best=best)
        kept = step
        self._show(self.average)
        if best is not None:
            kept = int(best["step"])
            self._show(best["weights"])
        return Fitted(step, kept, tuple(curve))

    def step_seconds(self, rows: NDArray[np.int64], *, times: int) -> float:
        """How long a step takes here at least, making its views included; the first one, which is slow, is not counted.

        What else the machine does now may be over soon, and training that has too many steps planned hurries.
        """
        taken = []
        for number in range(times + 1):
            began = self.clock()
            self._step(self._batch(rows, number), rate=_FIRST_RATE, step=number)
            taken.append(self.clock() - began)
        return min(taken[1:])

    def _look(
        self, judge: Callable[[], float] | None, step: int, curve: list[Point], best: Mapping[str, Any] | None
    ) -> Mapping[str, Any] | None:
        """Judges the averaged weights; the better of them and the best so far."""
        import torch

        if judge is None:
            return best
        training = {name: value.detach().clone() for name, value in self.values.items()}
        self._show(self.average)
        self.detector.eval()
        with torch.no_grad():
            figure = judge()
        curve.append((step, figure))
        if best is None or figure >= max(found for _, found in curve[:-1]):
            best = {"step": step, "weights": {name: value.clone() for name, value in self.average.items()}}
        self._show(training)
        return best

    def _show(self, weights: Mapping[str, Any]) -> None:
        import torch

        with torch.no_grad():
            for name, value in self.values.items():
                value.copy_(weights[name])

    def _batch(self, rows: NDArray[np.int64], step: int) -> list[Seen]:
        size = min(self.plan.batch, len(rows))
        views = []
        for number in range(size):
            place = self._order(rows, step * size + number)
            others = np.random.default_rng((self.seed, 7, step, number)).choice(rows, 3)
            views.append(self.views.random(place, others, draw=(step, number)))
        return views

    def _order(self, rows: NDArray[np.int64], number: int) -> int:
        """Every picture once in each pass, in another order each time."""
        turn, place = divmod(number, len(rows))
        return int(np.random.default_rng((self.seed, 11, turn)).permutation(rows)[place])

    def _step(self, batch: list[Seen], *, rate: float, step: int) -> None:
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.learning_rate * group["share"] * rate
        self.detector.train()
        images = torch.from_numpy(np.stack([each.image for each in batch]))
        images = images.to(memory_format=torch.channels_last)
        targets = [{"boxes": torch.from_numpy(each.boxes), "labels": torch.from_numpy(each.labels)} for each in batch]
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.detector.loss(images, targets)
        if not math.isfinite(loss.item()):
            raise TrainingError(
                "The loss is no longer a finite number.",
                expected="a loss that falls.",
                do="Check the boxes of the training pictures, or choose another train.seed.",
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.detector.slow + self.detector.fast, _LARGEST_GRADIENT, foreach=True)
        self.optimizer.step()
        weight = 1 / min(max(5.0, self.plan.averaging * self.plan.steps), step + 2)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), [self.values[name] for name in self.average], weight)

    def _save(self, *, step: int, used: float, curve: list[Point], best: Mapping[str, Any] | None) -> None:
        import torch

        content = {
            "step": step,
            "used": used,
            "curve": [list(point) for point in curve],
            "best": None if best is None else dict(best),
            "values": {name: value.detach() for name, value in self.values.items()},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.folder / f"{CHECKPOINT}.new"
        try:
            torch.save(content, partial)
            partial.replace(self.folder / CHECKPOINT)
        except (OSError, RuntimeError) as error:
            raise StorageError(
                f"The checkpoint of the training cannot be written ({error}).",
                expected="room for some hundred megabytes beside the workspace.",
                do="Free some space, then train again; what was learned since the last checkpoint is repeated.",
            ) from error

    def _resumed(self) -> tuple[int, float, list[Point], Mapping[str, Any] | None]:
        """Step, seconds used, curve and best weights of the attempt before this one."""
        import torch

        try:
            saved = torch.load(self.folder / CHECKPOINT, weights_only=True)
            self._show(saved["values"])
            self.average = {name: saved["average"][name].clone() for name in self.values}
            self.optimizer.load_state_dict(saved["optimizer"])
            curve = [(int(step), float(figure)) for step, figure in saved["curve"]]
            return int(saved["step"]), float(saved["used"]), curve, saved["best"]
        except (OSError, RuntimeError, KeyError, ValueError, EOFError):
            return 0, 0.0, [], None  # There is none, or it was cut off.


def one_cycle(share: float) -> float:
    """The learning rate at a share of the training, as a share of the highest.

    >>> [round(one_cycle(share), 2) for share in (0.0, 0.06, 0.53, 1.0)]
    [0.04, 1.0, 0.51, 0.01]
    """
    if share < _WARM_UP:
        return _FIRST_RATE + (1 - _FIRST_RATE) * share / _WARM_UP
    along = (share - _WARM_UP) / (1 - _WARM_UP)
    return _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * along)) / 2


def _falling(curve: list[Point]) -> bool:
    """Whether the last looks were all worse than the best before them."""
    if len(curve) <= _PATIENCE:
        return False
    figures = [figure for _, figure in curve]
    return max(figures[-_PATIENCE:]) < max(figures[:-_PATIENCE])
