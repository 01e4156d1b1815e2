"""Trains the tail of a network and its classifier on cached activations.

The learning rate follows progress, and progress is the larger of the steps done and the time taken: on a machine that
slows down, a phase takes fewer steps and still ends with a small learning rate, within its time. The course of each
phase is noted, and a replay follows it without a clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import StorageError, TrainingError
from keepsight.training.calibration import fit_temperature, negative_log_likelihood
from keepsight.training.finetune.cache import Cache
from keepsight.training.finetune.classifier import Classifier
from keepsight.training.finetune.course import Course, Pace
from keepsight.training.finetune.network import Tail
from keepsight.training.finetune.settings import Plan

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_EVERY_S = 30.0
_WARM_UP = 0.15
_FIRST_RATE = 0.04
# Training begins on smaller windows, which are cheaper, and ends on maps as large as in serving.
_WINDOWED = 0.7
# The second phase goes on from a trained network.
SECOND_RATE = 0.3
_EVALUATIONS = 12
_PATIENCE = 4
# Before this share of a phase the learning rate is high, and a loss that does not fall yet says nothing.
_SETTLED = 0.5
_EVALUATION_BATCH = 128
# Pictures of a batch that are worked on at once, at least, where memory is short.
_LEAST_PIECE = 4


# Step, accuracy, loss.
Point = tuple[int, float, float]
# Loss, step, averaged weights.
Best = tuple[float, int, list[Any]]


@dataclass(frozen=True)
class FitResult:
    """What came out of a phase of training.

    Attributes:
        course: How it went.
        logits: Of the held-out pictures, float32 (m, k), uncalibrated; empty without any.
        features: Of the same, float32 (m, d).
        accuracy, nll, temperature: On them; nll after calibration. None without any.
        curve: Step, accuracy and loss (calibrated) on them, during training.
    """

    course: Course
    logits: NDArray[np.float32]
    features: NDArray[np.float32]
    accuracy: float | None
    nll: float | None
    temperature: float
    curve: tuple[tuple[int, float, float], ...]


@dataclass
class _State:
    """Where a phase stands.

    Attributes:
        pace: Which share of it is done.
        step: Steps done.
        used: Seconds that they took.
        curve: What was seen on the way.
        best: The best weights until now.
    """

    pace: Pace
    step: int = 0
    used: float = 0.0
    curve: list[Point] = field(default_factory=list)
    best: Best | None = None


class Trainer:
    """Tail and classifier with their optimiser, and a phase-wise loop that can be cut off and taken up again.

    Args:
        cache: The activations.
        labels: int64 (n,).
        tail: To train.
        classifier: To train.
        plan: How.
        seed: Of shuffling, windows and mixing.
        flips: Whether maps may be mirrored.
        folder: For the checkpoint.
        clock: Seconds.
    """

    def __init__(
        self,
        cache: Cache,
        labels: NDArray[np.int64],
        tail: Tail,
        classifier: Classifier,
        plan: Plan,
        *,
        seed: int,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        import torch

        self.cache, self.labels, self.tail, self.classifier, self.plan = cache, labels, tail, classifier, plan
        self.flips = "flip" in plan.augmentations
        self.seed, self.folder, self.clock = seed, folder, clock
        head = [classifier.weight, classifier.bias]
        decayed = [value for value in tail.parameters.values() if value.ndim > 1]
        plain = [value for value in tail.parameters.values() if value.ndim <= 1]
        # Small batches are noisy, so their steps are smaller.
        calm = math.sqrt(plan.batch / Plan.batch)
        self.rates = [calm * rate for rate in (plan.learning_rate, plan.learning_rate, plan.head_learning_rate)]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": plan.weight_decay},
                {"params": plain, "weight_decay": 0.0},
                {"params": head, "weight_decay": plan.weight_decay},
            ],
            lr=plan.learning_rate,
            betas=(0.9, 0.99),
            foreach=True,
        )
        # So many pictures at once, fewer where the device has no room for them.
        self.piece, self.judged_at_once = plan.batch, _EVALUATION_BATCH
        self.all = [*tail.parameters.values(), *head]
        self.average = [value.detach().clone() for value in self.all]

    def run(
        self,
        phase: str,
        rows: NDArray[np.int64],
        held: NDArray[np.int64],
        *,
        steps: int,
        rate: float = 1.0,
        seconds: float = math.inf,
        progress: Callable[[float], None] | None = None,
        resumed: Mapping[str, Any] | None = None,
        on_evaluation: Callable[[int, float, float], bool] | None = None,
        follow: Course | None = None,
        looks: int = _EVALUATIONS,
    ) -> FitResult:
        """One phase: ``steps`` steps on the pictures ``rows``, fewer where ``seconds`` are over before.

        Args:
            phase: Its name, for the checkpoint and the random numbers.
            rows: Places to train on.
            held: Places to judge by, during training and at the end.
            steps: How many, unless time runs out or the held-out loss no longer falls.
            rate: Of the learning rates of the plan.
            seconds: For the phase, from its first start on.
            progress: Takes the share of the phase that is done; may raise to stop.
            resumed: A checkpoint of this phase.
            on_evaluation: Sees step, accuracy and loss of each evaluation; True stops the phase, as a search that
                prunes wants.
            follow: For a replay: how the phase went then, which counts whatever clock and held-out pictures say now.
            looks: How often the held-out pictures are asked during the phase.
        """
        import torch

        torch.manual_seed(self.seed)
        rng = np.random.default_rng((self.seed, *phase.encode()))
        state = self._begun(resumed, rng, pace=Pace(steps) if follow is None else Pace(follow.steps, follow.pace))
        end = steps if follow is None else follow.ended_at
        watch = _Watch(self, held, state, follow=follow, looks=looks, on_evaluation=on_evaluation)
        if resumed is None:
            watch.first()
        began = self.clock() - state.used
        saved = self.clock()
        order = _Order(rows, self.plan.batch, seed=(self.seed, *phase.encode()))
        horizon = max(5.0, self.plan.averaging * state.pace.steps)
        while state.step < end:
            if follow is None:
                share = state.pace.measured(state.step, spent=(self.clock() - began) / seconds)
                if share >= 1:
                    break
            else:
                share = state.pace.followed(state.step)
            self._step(order.batch(state.step), rng, share=share, rate=rate)
            state.step += 1
            weight = 1 / min(horizon, state.step + 1)
            with torch.no_grad():
                torch._foreach_lerp_(self.average, [value.detach() for value in self.all], weight)
            if progress:
                progress(share)
            if watch.enough(share):
                break
            if self.folder and self.clock() - saved > CHECKPOINT_EVERY_S:
                saved = self.clock()
                state.used = saved - began
                self._save(phase, rng, state)
        return self._finish(held, state)

    def _begun(self, resumed: Mapping[str, Any] | None, rng: np.random.Generator, *, pace: Pace) -> _State:
        """Where the phase goes on, or begins: with what was averaged before."""
        import torch

        if resumed is not None:
            return self._resume(resumed, rng, pace)
        with torch.no_grad():
            for value, kept in zip(self.all, self.average, strict=True):
                value.copy_(kept)
        return _State(pace)

    def look(self, held: NDArray[np.int64], state: _State) -> Best:
        """Judges the averaged weights, and tells the curve."""
        logits, _ = self.judge(held)
        accuracy, nll, _ = _figures(logits, self.labels[held])
        state.curve.append((state.step, accuracy, nll))
        return nll, state.step, self.averaged()

    def averaged(self) -> list[Any]:
        """The averaged weights as they are now."""
        return [value.clone() for value in self.average]

    def _finish(self, held: NDArray[np.int64], state: _State) -> FitResult:
        import torch

        step, curve, best = state.step, state.curve, state.best
        course = Course(state.pace.steps, step, step, tuple(state.pace.marks))
        if not len(held):
            nothing = np.zeros((0, len(self.classifier.bias)), np.float32)
            width = self.classifier.weight.shape[1]
            features = np.zeros((0, width), np.float32)
            return FitResult(course, nothing, features, None, None, 1.0, tuple(curve))
        logits, features = self.judge(held)
        accuracy, nll, temperature = _figures(logits, self.labels[held])
        curve.append((step, accuracy, nll))
        if best is not None and best[0] < nll:
            course = replace(course, kept_at=best[1])
            with torch.no_grad():
                for value, kept in zip(self.average, best[2], strict=True):
                    value.copy_(kept)
            logits, features = self.judge(held)
            accuracy, nll, temperature = _figures(logits, self.labels[held])
        return FitResult(course, logits, features, accuracy, nll, temperature, tuple(curve))

    def _step(self, rows: NDArray[np.int64], rng: np.random.Generator, *, share: float, rate: float) -> None:
        import torch
        from torch.nn import functional

        plan = self.plan
        for group, highest in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = highest * rate * one_cycle(share)
        maps = torch.from_numpy(self._maps(rows, rng, windowed=share < _WINDOWED)).permute(0, 3, 1, 2)
        maps = maps.to(self.tail.device).to(torch.bfloat16 if plan.half else torch.float32)
        targets = torch.from_numpy(self.labels[rows]).to(self.tail.device)
        wanted = functional.one_hot(targets, len(self.classifier.bias)).float()
        if plan.mixup > 0:
            kept = float(rng.beta(plan.mixup, plan.mixup))
            partner = torch.from_numpy(rng.permutation(len(rows))).to(self.tail.device)
            maps = maps * kept + maps[partner] * (1 - kept)
            wanted = wanted * kept + wanted[partner] * (1 - kept)
        loss = self._gradients(maps, wanted)
        if not math.isfinite(loss):
            raise TrainingError(
                "The loss is no longer a finite number.",
                expected="a loss that falls.",
                do="Train with the recipe `head`, or check the backbone.",
            )
        torch.nn.utils.clip_grad_norm_(self.all, 2.0, foreach=True)
        self.optimizer.step()

    def _gradients(self, maps: Any, wanted: Any) -> float:
        """The loss of a batch; its gradients add up over pieces that the memory has room for."""
        import torch
        from torch.nn import functional

        while True:
            self.optimizer.zero_grad(set_to_none=True)
            total = 0.0
            try:
                for start in range(0, len(maps), self.piece):
                    part, target = maps[start : start + self.piece], wanted[start : start + self.piece]
                    logits = self.classifier(self.tail(part), dropout=self.plan.dropout)
                    loss = functional.cross_entropy(logits, target, label_smoothing=self.plan.smoothing)
                    loss = loss * (len(part) / len(maps))
                    loss.backward()
                    total += loss.item()
            except torch.OutOfMemoryError:
                pass  # Tried again below, where the error no longer holds on to what filled the memory.
            else:
                return total
            self.piece = _smaller(self.piece)

    def _maps(self, rows: NDArray[np.int64], rng: np.random.Generator, *, windowed: bool) -> NDArray[np.float16]:
        """A random window of a random view of each picture, some mirrored; float16 (n, side, side, channels)."""
        side = self.cache.plain.shape[1]
        if windowed:
            side = max(1, round(side * self.plan.window))
        count = self.cache.views.shape[1]
        made = np.empty((len(rows), side, side, self.cache.plain.shape[3]), np.float16)
        for target, place in zip(made, rows.tolist(), strict=True):
            number = int(rng.integers(0, count + 1))
            source = self.cache.plain[place] if number == count else self.cache.views[place, number]
            spare = source.shape[0] - side
            top, left = rng.integers(0, spare + 1, 2)
            found = source[top : top + side, left : left + side]
            target[...] = found[:, ::-1] if self.flips and rng.random() < 0.5 else found
        return made

    def judge(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits and features of plain views by the averaged weights."""
        import torch

        with torch.no_grad():
            trained = [value.detach().clone() for value in self.all]
            for value, kept in zip(self.all, self.average, strict=True):
                value.copy_(kept)
            logits, features = [], []
            start = 0
            while start < len(rows):
                some = rows[start : start + self.judged_at_once]
                try:
                    maps = torch.from_numpy(self.cache.plain[some]).permute(0, 3, 1, 2)
                    found = self.tail(maps.to(self.tail.device).float(), exact=True)
                    seen = self.classifier(found).cpu().numpy(), found.float().cpu().numpy()
                except torch.OutOfMemoryError:
                    seen = None
                if seen is None:
                    self.judged_at_once = _smaller(self.judged_at_once)
                    continue
                logits.append(seen[0])
                features.append(seen[1])
                start += len(some)
            for value, kept in zip(self.all, trained, strict=True):
                value.copy_(kept)
        return np.concatenate(logits), np.concatenate(features)

    def take_average(self) -> None:
        """Puts the averaged weights into tail and classifier."""
        import torch

        with torch.no_grad():
            for value, kept in zip(self.all, self.average, strict=True):
                value.copy_(kept)

    def save(self, phase: str) -> None:
        """A checkpoint at the beginning of a phase."""
        self.take_average()
        rng = np.random.default_rng((self.seed, *phase.encode()))
        self._save(phase, rng, _State(Pace(1)))

    def _save(self, phase: str, rng: np.random.Generator, state: _State) -> None:
        import torch

        if self.folder is None:
            return
        path = self.folder / CHECKPOINT
        content = {
            "phase": phase,
            "step": state.step,
            "used": state.used,
            "curve": [list(point) for point in state.curve],
            "pace": [list(mark) for mark in state.pace.marks],
            "best": None if state.best is None else list(state.best),
            "weights": [value.detach() for value in self.all],
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "rng": _portable(rng.bit_generator.state),
            "torch": torch.get_rng_state(),
        }
        partial = path.with_suffix(".new")
        try:
            torch.save(content, partial)
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
            raise StorageError(
                f"The checkpoint {path} cannot be written: {error}.",
                expected="a folder that can be written, with enough room.",
                do="Free disk space and start the run again; it goes on from its last checkpoint.",
            ) from error

    def _resume(self, saved: Mapping[str, Any], rng: np.random.Generator, pace: Pace) -> _State:
        import torch

        with torch.no_grad():
            for value, kept in zip(self.all, saved["weights"], strict=True):
                value.copy_(kept)
            for value, kept in zip(self.average, saved["average"], strict=True):
                value.copy_(kept)
        self.optimizer.load_state_dict(saved["optimizer"])
        rng.bit_generator.state = _numbers(saved["rng"])
        torch.set_rng_state(saved["torch"])
        best = saved["best"]
        if not pace.marks:
            pace = Pace(pace.steps, [(int(step), int(parts)) for step, parts in saved.get("pace", ())])
        return _State(
            pace,
            step=saved["step"],
            used=saved["used"],
            curve=[(int(step), float(accuracy), float(nll)) for step, accuracy, nll in saved["curve"]],
            best=None if best is None else (best[0], best[1], best[2]),
        )


class _Watch:
    """Looks at the held-out pictures during a phase, keeps the best weights and says when to stop; where a course is
    followed, it keeps what was kept then and asks nobody.
    """

    def __init__(
        self,
        trainer: Trainer,
        held: NDArray[np.int64],
        state: _State,
        *,
        follow: Course | None,
        looks: int,
        on_evaluation: Callable[[int, float, float], bool] | None,
    ) -> None:
        self._trainer, self._held, self._state, self._course = trainer, held, state, follow
        self._looks, self._on_evaluation = looks, on_evaluation
        self._since = 0
        self._next = max(1, len(state.curve)) / looks

    def first(self) -> None:
        """Before the first step."""
        if self._course is not None:
            self._keep(self._course)
        elif len(self._held):
            self._state.best = self._trainer.look(self._held, self._state)

    def enough(self, share: float) -> bool:
        """After each step, with the share of the phase that it began at."""
        state = self._state
        if self._course is not None:
            self._keep(self._course)
            return False
        if share < self._next or not len(self._held):
            return False
        self._next += 1 / self._looks
        seen = self._trainer.look(self._held, state)
        if state.best is None or seen[0] < state.best[0]:
            state.best, self._since = seen, 0
        elif share > _SETTLED:
            self._since += 1
        return self._since >= _PATIENCE or bool(self._on_evaluation and self._on_evaluation(*state.curve[-1]))

    def _keep(self, course: Course) -> None:
        if self._state.step == course.kept_at < course.ended_at:
            self._state.best = (-math.inf, self._state.step, self._trainer.averaged())


def checkpoint(folder: Path) -> Mapping[str, Any] | None:
    """The last checkpoint of a folder, if there is one that can be read."""
    import pickle

    import torch

    try:
        state: Mapping[str, Any] = torch.load(folder / CHECKPOINT, weights_only=True, map_location="cpu")
    except (FileNotFoundError, EOFError, RuntimeError, pickle.UnpicklingError):
        return None
    return state


def _smaller(piece: int) -> int:
    """Half as many pictures at once, for a device that had no room for ``piece``; what it keeps in reserve is freed.

    Raises:
        TrainingError: They would be too few.
    """
    import torch

    if piece // 2 < _LEAST_PIECE:
        raise TrainingError(
            f"The memory of the device has no room for {piece} pictures at once.",
            expected=f"room for at least {_LEAST_PIECE}.",
            do="Free the device for this run, or choose a smaller train.backbone.",
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return piece // 2


def one_cycle(share: float) -> float:
    """The learning rate's share of its highest value: a short rise, then half a cosine down (Smith 2018)."""
    if share < _WARM_UP:
        return _FIRST_RATE + (1 - _FIRST_RATE) * share / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - _WARM_UP) / (1 - _WARM_UP)))) + 1e-3


class _Order:
    """Batches of shuffled places, decided by seed and step alone, so that a killed run goes on with the same."""

    def __init__(self, rows: NDArray[np.int64], batch: int, *, seed: tuple[int, ...]) -> None:
        self.rows, self.seed = rows, seed
        self.batch_size = min(batch, len(rows))
        self.per_epoch = max(1, len(rows) // self.batch_size)
        self._epoch = -1
        self._order = rows

    def batch(self, step: int) -> NDArray[np.int64]:
        epoch, number = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng((*self.seed, epoch)).permutation(self.rows)
            self._epoch = epoch
        return self._order[number * self.batch_size : (number + 1) * self.batch_size]


def _figures(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float, float]:
    """Accuracy, loss after calibration, temperature."""
    temperature = fit_temperature(logits, labels)
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    return accuracy, negative_log_likelihood(logits, labels, temperature=temperature), temperature


def _portable(state: Mapping[str, Any]) -> dict[str, Any]:
    """A generator's state without integers beyond 64 bits, which checkpoints do not hold."""
    return {
        name: _portable(value) if isinstance(value, Mapping) else str(value) if isinstance(value, int) else value
        for name, value in state.items()
    }


def _numbers(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _numbers(value)
        if isinstance(value, Mapping)
        else int(value)
        if isinstance(value, str) and value.lstrip("-").isdigit()
        else value
        for name, value in state.items()
    }
