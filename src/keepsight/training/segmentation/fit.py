"""Trains a network that gives a matte, in its own graph: what comes out is the same graph with other weights.

A few hundred steps of AdamW from pretrained weights, with a cosine of the learning rate over what is done (of the steps
or of the time, whichever is more), and an average of the weights of the last steps, which is what is judged and kept.
The loss is cross entropy and one minus the soft overlap (Rahman and Wang 2016), so that a small foreground weighs as
much as a large one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from keepsight.errors import BudgetError, TrainingError
from keepsight.runtime.session import INPUT, open_session
from keepsight.tasks.segmentation.figures import intersection_over_union
from keepsight.training.budget import Budget
from keepsight.training.finetune.course import Course, Pace
from keepsight.training.finetune.network import Cut, Tail, with_weights
from keepsight.training.processors import cores
from keepsight.training.segmentation.views import Floats, Views
from keepsight.zoo.u2net import ALPHA, LOGITS

CHECKPOINT = "segmentation.pt"
CHECKPOINT_EVERY_S = 60.0
BATCH = 2
# A larger one first spoils what a well-trained network knows, and needs many steps to make up for it.
RATE = 4e-5
WANTED_EPOCHS = 15
MOST_STEPS, LEAST_STEPS = 3000, 8
EVALUATIONS = 6
# Held-out pictures that are looked at during training; all of them count afterwards.
_JUDGES = 48
_WARM_UP = 0.1
# The average of weights forgets within about so many steps, or a quarter of the training where that is shorter.
_AVERAGED = 40
# Of the time that is left: for judging and exporting what came out.
_RESERVE = 0.15
_JUDGE_SHARE = 0.5
# Sums in another order differ by about 1e-5 of the largest logit.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Plan:
    """How a network was trained; with the seed it replays the training.

    Attributes:
        course: Its steps and pace; ``kept_at`` is 0 where the pretrained weights were the best.
        batch, rate: Pictures and learning rate of a step.
    """

    course: Course
    batch: int = BATCH
    rate: float = RATE

    def as_dict(self) -> dict[str, Any]:
        """For a run's record."""
        return {"course": self.course.as_dict(), "batch": self.batch, "rate": self.rate}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that ``as_dict`` wrote."""
        return cls(**{**values, "course": Course.from_dict(values["course"])})


@dataclass(frozen=True)
class Fitted:
    """What came of it: the graph with its trained weights, and the overlap on held-out pictures by step."""

    model: bytes
    plan: Plan
    curve: tuple[tuple[int, float], ...]


@dataclass
class _State:
    step: int = 0
    used_s: float = 0.0
    judged: float = 0.0
    seconds: float = math.inf
    marks: list[tuple[int, int]] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)
    best: tuple[float, int] = (-1.0, 0)


class Trainer:
    """One training, which can be cut off and taken up again.

    Args:
        model: The graph with the outputs ``alpha`` and ``alpha_logits``.
        views: Of pictures and masks.
        rows: Places to train on.
        held: Places that decide which weights are kept; empty: those of the last step.
        seed: Of the order of pictures.
        folder: For checkpoints.
        budget: Asked before each step.
        plan: What an earlier training resolved, to be repeated without a clock.
        progress: Told what happens.
    """

    def __init__(
        self,
        model: bytes,
        views: Views,
        *,
        rows: Sequence[int],
        held: Sequence[int],
        seed: int,
        folder: Path,
        budget: Budget,
        plan: Plan | None,
        progress: Callable[[Mapping[str, Any]], None],
    ) -> None:
        import onnx
        from onnx.utils import Extractor

        self._whole = onnx.load_from_string(model)
        self._part = Extractor(self._whole).extract_model([INPUT], [LOGITS])
        self._views, self._rows, self._seed = views, np.array(rows, np.int64), seed
        self._folder, self._budget, self._given, self._progress = folder, budget, plan, progress
        self._judges = self._plain(held)
        self._shape = tuple(side.dim_value for side in self._part.graph.input[0].type.tensor_type.shape.dim[1:])

    def run(self) -> Fitted:
        """Trains, and gives the best of what was seen on the held-out pictures, the pretrained weights among it.

        Raises:
            BudgetError: The time that is left allows no training worth the name.
            TrainingError: The trained graph does not give in onnxruntime what it gave in training.
        """
        import torch

        saved = self._saved()
        # Deciding costs time, and an attempt that goes on must follow the same course.
        plan = self._given or (Plan.from_dict(saved["plan"]) if saved else self._decided())
        state, steps = _State(seconds=self._seconds()), plan.course.steps
        tail = self._tail()
        parameters = list(tail.parameters.values())
        optimiser = torch.optim.AdamW(parameters, lr=plan.rate, betas=(0.9, 0.99), weight_decay=0.0)
        average = [value.detach().clone() for value in parameters]
        best = [value.detach().clone() for value in parameters]
        if saved:
            _restore(parameters, saved["parameters"])
            average, best = list(saved["average"]), list(saved["best"])
            optimiser.load_state_dict(saved["optimiser"])
            state = _State(**saved["state"])
            state.marks = [(int(step), int(parts)) for step, parts in state.marks]
        elif self._judges:
            self._judge(tail, average, state)
        pace = Pace(steps, plan.course.pace if self._given else state.marks)
        keep = 1 - 1 / max(2, min(_AVERAGED, steps // 4))
        kept_s = self._budget.spent_s
        began_s = kept_s - state.used_s
        while state.step < steps and not (self._given and state.step >= plan.course.ended_at):
            state.used_s = self._budget.spent_s - began_s
            spent = state.used_s / state.seconds
            share = pace.followed(state.step) if self._given else pace.measured(state.step, spent=spent)
            if share >= 1 and state.step and not self._given:
                break
            self._step(tail, optimiser, state.step, plan=plan, share=share)
            state.step += 1
            with torch.no_grad():
                for mean, value in zip(average, parameters, strict=True):
                    mean.lerp_(value, 1 - min(keep, state.step / (state.step + 1)))
            self._progress({"text": "training masks", "done": round(share * steps), "total": steps})
            if self._judges and share - state.judged >= 1 / EVALUATIONS:
                state.judged = share
                if self._judge(tail, average, state):
                    best = [value.clone() for value in average]
            if self._budget.spent_s - kept_s > CHECKPOINT_EVERY_S:
                kept_s = self._budget.spent_s
                state.marks = pace.marks
                self._save(plan, state, parameters, average=average, best=best, optimiser=optimiser)
        if not state.curve or (self._judges and state.curve[-1][0] != state.step and self._judge(tail, average, state)):
            best = [value.clone() for value in average]
        kept_at = state.best[1] if self._judges else state.step
        done = replace(plan, course=Course(steps, state.step, kept_at, tuple(pace.marks)))
        return self._made(tail, best, done, state)

    def _step(self, tail: Tail, optimiser: Any, step: int, *, plan: Plan, share: float) -> None:
        """One step of training, at this share of its course."""
        import torch

        images, targets = self._batch(step, plan.batch)
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * rate_at(min(1.0, share + 1 / plan.course.steps))
        loss = _loss(tail(images), targets)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(tail.parameters.values()), 1.0)
        optimiser.step()

    def _made(self, tail: Tail, weights: list[Any], plan: Plan, state: _State) -> Fitted:
        _restore(list(tail.parameters.values()), weights)
        model = with_weights(self._whole, tail.state())
        self._check(model, tail)
        return Fitted(model, plan, tuple(state.curve))

    def _check(self, model: bytes, tail: Tail) -> None:
        """The exported graph against the trained one, on pictures of the training."""
        import torch

        seen = self._plain(self._rows[:2].tolist())
        if not seen:
            return
        images = np.stack([image for image, _ in seen])
        found: Any = open_session(model).run([LOGITS], {INPUT: images})[0]
        with torch.no_grad():
            expected = tail(torch.from_numpy(images), exact=True).numpy()
        difference = float(np.abs(found - expected).max())
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise TrainingError(
                f"The exported network differs from the trained one by {difference:.3g}.",
                expected=f"at most {_TOLERANCE} of the largest logit.",
                do="Report this; train with the recipe `pretrained` until it is solved.",
                difference=difference,
            )

    # What to do

    def _decided(self) -> Plan:
        """So many steps as fit, and as many as make sense for so many pictures."""
        wanted = min(MOST_STEPS, math.ceil(WANTED_EPOCHS * len(self._rows) / BATCH))
        step_s = self._step_seconds()
        if math.isfinite(self._budget.total_s):
            judging_s = EVALUATIONS * len(self._judges) * step_s / BATCH * _JUDGE_SHARE
            fits = int((self._budget.left_s * (1 - _RESERVE) - judging_s) / step_s)
            least = min(wanted, LEAST_STEPS)
            if fits < least:
                needed = (judging_s + least * step_s) / (1 - _RESERVE) / 60
                raise BudgetError(
                    f"{self._budget.left_s / 60:.1f} minutes are left to train masks.",
                    expected=f"about {needed:.1f} minutes on this machine for the shortest useful training.",
                    do=f"Give it more time (`--budget {math.ceil(needed)}m`), or train with the recipe `pretrained`.",
                    needed_minutes=needed,
                )
            wanted = min(wanted, fits)
        return Plan(Course(steps=wanted, ended_at=wanted, kept_at=wanted))

    def _step_seconds(self) -> float:
        """Seconds for a step on this machine, now."""
        import torch

        self._progress({"text": "measuring this machine"})
        tail = self._tail()
        taken = []
        for _ in range(3):
            began = self._budget.spent_s
            images = torch.rand((1, *self._shape)).contiguous(memory_format=torch.channels_last)
            tail(images).square().mean().backward()
            taken.append(self._budget.spent_s - began)
        return BATCH * min(taken)

    def _seconds(self) -> float:
        """How long training may take, judging included."""
        return max(1.0, self._budget.left_s * (1 - _RESERVE))

    # Pictures

    def _plain(self, places: Sequence[int]) -> list[tuple[Floats, Floats]]:
        chosen = list(places)
        if len(chosen) > _JUDGES:
            chosen = sorted(np.random.default_rng(self._seed).permutation(chosen)[:_JUDGES].tolist())
        return [found for place in chosen if (found := self._views.plain(place)) is not None]

    def _batch(self, step: int, size: int) -> tuple[Any, Any]:
        """Images and targets of a step; epochs take all pictures in a new order each."""
        import torch

        images, targets = [], []
        place = step * size
        # A picture that cannot be read gives its turn to the next; where none can, there is nothing to train on.
        for _ in range(size + len(self._rows)):
            epoch, turn = divmod(place, len(self._rows))
            order = np.random.default_rng((self._seed, epoch)).permutation(len(self._rows))
            found = self._views.random(int(self._rows[order[turn]]), epoch)
            place += 1
            if found is not None:
                images.append(found[0])
                targets.append(found[1])
            if len(images) == size:
                break
        if not images:
            raise TrainingError(
                "None of the training pictures can be read.",
                expected="readable pictures.",
                do="Check the blob store (`keepsight data verify`).",
            )
        stacked = torch.from_numpy(np.stack(images)).contiguous(memory_format=torch.channels_last)
        return stacked, torch.from_numpy(np.stack(targets))[:, None]

    def _judge(self, tail: Tail, average: list[Any], state: _State) -> bool:
        """Notes the overlap of the averaged weights on held-out pictures; whether it is the best until now."""
        weights = dict(zip(tail.parameters, average, strict=True))
        session: Any = open_session(with_weights(self._whole, tail.state(weights)), threads=cores())
        found = [
            intersection_over_union(session.run([ALPHA], {INPUT: image[None]})[0][0] >= 0.5, target >= 0.5)
            for image, target in self._judges
        ]
        value = float(np.mean(found))
        state.curve.append((state.step, value))
        better = value > state.best[0]
        if better:
            state.best = (value, state.step)
        return better

    # Keeping

    def _tail(self) -> Tail:
        return Tail(self._part, Cut(INPUT, self._shape, 1.0), output=LOGITS)

    def _save(
        self, plan: Plan, state: _State, parameters: list[Any], *, average: list[Any], best: list[Any], optimiser: Any
    ) -> None:
        import torch

        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / (CHECKPOINT + ".new")
        torch.save(
            {
                "key": self._key(),
                "plan": plan.as_dict(),
                "state": asdict(state),
                "parameters": [value.detach() for value in parameters],
                "average": average,
                "best": best,
                "optimiser": optimiser.state_dict(),
            },
            partial,
        )
        partial.replace(self._folder / CHECKPOINT)

    def _saved(self) -> dict[str, Any] | None:
        import torch

        try:
            found: dict[str, Any] = torch.load(self._folder / CHECKPOINT, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError):
            return None
        return found if found.get("key") == self._key() else None

    def _key(self) -> str:
        return json.dumps([self._rows.tolist(), self._seed, self._given is not None])


def rate_at(progress: float) -> float:
    """The learning rate's share of its largest, by how much of the training is done: a short rise, then a cosine."""
    if progress < _WARM_UP:
        return progress / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - _WARM_UP) / (1 - _WARM_UP))))


def _loss(logits: Any, targets: Any) -> Any:
    """Cross entropy of each pixel, and one minus the soft overlap of each picture, averaged."""
    import torch
    from torch.nn import functional

    logits = logits.float()
    shares = torch.sigmoid(logits)
    both = (shares * targets).sum(dim=(1, 2, 3))
    either = (shares + targets - shares * targets).sum(dim=(1, 2, 3))
    return functional.binary_cross_entropy_with_logits(logits, targets) + (1 - (both + 1) / (either + 1)).mean()


def _restore(parameters: list[Any], values: Sequence[Any]) -> None:
    import torch

    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
