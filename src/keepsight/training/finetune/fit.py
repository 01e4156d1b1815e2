"""Trains the tail of a network and its classifier on cached activations.

The learning rate follows progress, and progress is the larger of the steps done and the time taken: on a machine that
slows down, a phase takes fewer steps and still ends with a small learning rate, within its time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import StorageError, TrainingError
from keepsight.training.calibration import fit_temperature, negative_log_likelihood
from keepsight.training.finetune.cache import Cache
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
        steps: Of the schedule: how many it would have had, had time not hurried it.
        kept_at: The step whose averaged weights are kept.
        logits: Of the held-out pictures, float32 (m, k), uncalibrated; empty without any.
        features: Of the same, float32 (m, d).
        accuracy, nll, temperature: On them; nll after calibration. None without any.
        curve: Step, accuracy and loss (calibrated) on them, during training.
    """

    steps: int
    kept_at: int
    logits: NDArray[np.float32]
    features: NDArray[np.float32]
    accuracy: float | None
    nll: float | None
    temperature: float
    curve: tuple[tuple[int, float, float], ...]


class Classifier:
    """A linear layer on standardised features; the standardisation is folded into it when it is exported."""

    def __init__(self, features: NDArray[np.float32], n_classes: int, *, device: str = "cpu") -> None:
        import torch

        mean, deviation = features.mean(axis=0), features.std(axis=0)
        # Channels that are nearly silent on these pictures must not become loud.
        floor = max(float(np.median(deviation)) * 0.2, 1e-6)
        self.mean = torch.from_numpy(mean.astype(np.float32)).to(device)
        self.scale = torch.from_numpy((1 / np.maximum(deviation, floor)).astype(np.float32)).to(device)
        self.weight = torch.zeros(n_classes, features.shape[1], device=device, requires_grad=True)
        self.bias = torch.zeros(n_classes, device=device, requires_grad=True)

    def __call__(self, features: Any, *, dropout: float = 0.0) -> Any:
        """Logits (n, k)."""
        from torch.nn import functional

        x = (features.float() - self.mean) * self.scale
        return functional.linear(functional.dropout(x, dropout, training=dropout > 0), self.weight, self.bias)

    def probe(self, features: NDArray[np.float32], labels: NDArray[np.int64], *, iterations: int = 40) -> None:
        """Fits the classifier alone, so that training begins where a frozen network ends (Kumar et al. 2022)."""
        import torch
        from torch.nn import functional

        x = (torch.from_numpy(features).to(self.weight.device) - self.mean) * self.scale
        y = torch.from_numpy(labels).to(self.weight.device)
        optimizer = torch.optim.LBFGS([self.weight, self.bias], max_iter=iterations, history_size=10)

        def loss() -> Any:
            optimizer.zero_grad()
            logits = functional.linear(x, self.weight, self.bias)
            found = functional.cross_entropy(logits, y, label_smoothing=0.1) + 0.02 * self.weight.pow(2).sum() / 2
            found.backward()
            return found

        optimizer.step(loss)

    def linear(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weight (k, d) and bias (k,) for features as the network gives them."""
        import torch

        with torch.no_grad():
            weight = self.weight * self.scale
            bias = self.bias - weight @ self.mean
        return weight.cpu().numpy(), bias.cpu().numpy()


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
        self.piece = plan.batch
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
        stop_at: int | None = None,
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
            stop_at: For a replay: the weights after this step are kept, whatever the held-out pictures say.
            looks: How often the held-out pictures are asked during the phase.
        """
        import torch

        torch.manual_seed(self.seed)
        rng = np.random.default_rng((self.seed, *phase.encode()))
        step, used = 0, 0.0
        best: Best | None = None
        curve: list[Point] = []
        if resumed is not None:
            step, used, curve, best = self._resume(resumed, rng)
        else:
            # What was averaged before is where this phase begins.
            with torch.no_grad():
                for value, kept in zip(self.all, self.average, strict=True):
                    value.copy_(kept)
            if len(held) and stop_at is None:
                best = self._look(held, 0, curve)
        began = self.clock() - used
        saved = self.clock()
        order = _Order(rows, self.plan.batch, seed=(self.seed, *phase.encode()))
        horizon = max(5.0, self.plan.averaging * steps)
        share = 0.0
        since = 0
        next_look = max(1, len(curve)) / looks
        while step < (steps if stop_at is None else min(steps, stop_at)):
            share = max(step / steps, (self.clock() - began) / seconds)
            if share >= 1:
                break
            self._step(order.batch(step), rng, share=share, rate=rate)
            step += 1
            weight = 1 / min(horizon, step + 1)
            with torch.no_grad():
                torch._foreach_lerp_(self.average, [value.detach() for value in self.all], weight)
            if progress:
                progress(share)
            if share >= next_look and len(held) and stop_at is None:
                next_look += 1 / looks
                seen = self._look(held, step, curve)
                if best is None or seen[0] < best[0]:
                    best, since = seen, 0
                elif share > _SETTLED:
                    since += 1
                if since >= _PATIENCE or (on_evaluation and on_evaluation(*curve[-1])):
                    break
            if self.folder and self.clock() - saved > CHECKPOINT_EVERY_S:
                saved = self.clock()
                self._save(phase, rng, step=step, used=saved - began, curve=curve, best=best)
        # As long as the schedule would have been, had steps alone counted.
        length = steps if share < step / steps + 1e-9 else max(step, round(step / share))
        return self._finish(held, step, curve, best, length=length)

    def _look(self, held: NDArray[np.int64], step: int, curve: list[Point]) -> Best:
        """Judges the averaged weights, and tells the curve."""
        logits, _ = self.judge(held)
        accuracy, nll, _ = _figures(logits, self.labels[held])
        curve.append((step, accuracy, nll))
        return nll, step, [value.clone() for value in self.average]

    def _finish(
        self,
        held: NDArray[np.int64],
        step: int,
        curve: list[Point],
        best: Best | None,
        *,
        length: int,
    ) -> FitResult:
        import torch

        kept_at = step
        if not len(held):
            nothing = np.zeros((0, len(self.classifier.bias)), np.float32)
            width = self.classifier.weight.shape[1]
            features = np.zeros((0, width), np.float32)
            return FitResult(length, step, nothing, features, None, None, 1.0, tuple(curve))
        logits, features = self.judge(held)
        accuracy, nll, temperature = _figures(logits, self.labels[held])
        curve.append((step, accuracy, nll))
        if best is not None and best[0] < nll:
            kept_at = best[1]
            with torch.no_grad():
                for value, kept in zip(self.average, best[2], strict=True):
                    value.copy_(kept)
            logits, features = self.judge(held)
            accuracy, nll, temperature = _figures(logits, self.labels[held])
        return FitResult(length, kept_at, logits, features, accuracy, nll, temperature, tuple(curve))

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
            except torch.OutOfMemoryError as error:
                self.piece //= 2
                if self.piece < _LEAST_PIECE:
                    raise TrainingError(
                        f"The memory of the device has no room for {2 * self.piece} pictures at once.",
                        expected=f"room for at least {_LEAST_PIECE}.",
                        do="Free the device for this run, or choose a smaller train.backbone.",
                    ) from error
            else:
                return total

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
            for start in range(0, len(rows), _EVALUATION_BATCH):
                maps = torch.from_numpy(self.cache.plain[rows[start : start + _EVALUATION_BATCH]]).permute(0, 3, 1, 2)
                found = self.tail(maps.to(self.tail.device).float(), exact=True)
                features.append(found.float().cpu().numpy())
                logits.append(self.classifier(found).cpu().numpy())
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
        self._save(phase, rng, step=0, used=0.0, curve=[], best=None)

    def _save(
        self,
        phase: str,
        rng: np.random.Generator,
        *,
        step: int,
        used: float,
        curve: list[Point],
        best: Best | None,
    ) -> None:
        import torch

        if self.folder is None:
            return
        path = self.folder / CHECKPOINT
        state = {
            "phase": phase,
            "step": step,
            "used": used,
            "curve": [list(point) for point in curve],
            "best": None if best is None else [best[0], best[1], best[2]],
            "weights": [value.detach() for value in self.all],
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "rng": _portable(rng.bit_generator.state),
            "torch": torch.get_rng_state(),
        }
        partial = path.with_suffix(".new")
        try:
            torch.save(state, partial)
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
            raise StorageError(
                f"The checkpoint {path} cannot be written: {error}.",
                expected="a folder that can be written, with enough room.",
                do="Free disk space and start the run again; it goes on from its last checkpoint.",
            ) from error

    def _resume(
        self, state: Mapping[str, Any], rng: np.random.Generator
    ) -> tuple[int, float, list[Point], Best | None]:
        import torch

        with torch.no_grad():
            for value, kept in zip(self.all, state["weights"], strict=True):
                value.copy_(kept)
            for value, kept in zip(self.average, state["average"], strict=True):
                value.copy_(kept)
        self.optimizer.load_state_dict(state["optimizer"])
        rng.bit_generator.state = _numbers(state["rng"])
        torch.set_rng_state(state["torch"])
        best = state["best"]
        curve = [(int(step), float(accuracy), float(nll)) for step, accuracy, nll in state["curve"]]
        return state["step"], state["used"], curve, None if best is None else (best[0], best[1], best[2])


def checkpoint(folder: Path) -> Mapping[str, Any] | None:
    """The last checkpoint of a folder, if there is one that can be read."""
    import pickle

    import torch

    try:
        state: Mapping[str, Any] = torch.load(folder / CHECKPOINT, weights_only=True, map_location="cpu")
    except (FileNotFoundError, EOFError, RuntimeError, pickle.UnpicklingError):
        return None
    return state


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
