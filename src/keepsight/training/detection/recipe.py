"""The recipes that train a detector: from boxes to a network, inside a budget, taken up again after a kill.

Held-out pictures decide which weights are kept, how scores become chances and what is shown; the network that is served
has not learned from them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight import tasks
from keepsight.data.splits import grouped_folds
from keepsight.errors import BudgetError, DataError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.outputs.detection import SHOW, decode
from keepsight.runtime.preprocess import Preprocessing
from keepsight.training.detection import choosing, deciding
from keepsight.training.detection.export import export
from keepsight.training.detection.fit import Fitted, Trainer
from keepsight.training.detection.network import Detector, build
from keepsight.training.detection.settings import Plan
from keepsight.training.detection.views import Views
from keepsight.training.evaluation import EVERYTHING
from keepsight.training.judging import answered
from keepsight.training.processors import torch_on_all_cores
from keepsight.training.recipes import HeldOut, Material, Trained
from keepsight.zoo import torch_networks

Bools = NDArray[np.bool_]

PLAN = "plan.json"
DRAFT_DATE = "1970-01-01T00:00:00+00:00"
# A val split judges from so many pictures on; else so large a share of the groups does.
LEAST_VALIDATION, _LEAST_CLASSES = 20, 0.5
_FOLDS, _LEAST_TO_HOLD_OUT = 6, 12
# Held-out pictures that are asked during training.
_ASKED = 120
_TIMED = 3
_STAYING = ("light", "blur", "noise", "jpeg", "crop", "flip")


def train(material: Material, *, architecture: str | None = None) -> Trained:
    """A detector trained on the material.

    Args:
        material: Pictures with boxes.
        architecture: "fcos" or "ssdlite"; None chooses by the boxes.

    Raises:
        MissingExtraError: torch is not installed.
        BudgetError: The time that is left is too short.
        DataError: No picture that may be learned from has a box.
        TrainingError: The network cannot be trained.
    """
    with torch_on_all_cores("detectors are", instead="pretrained"):
        return _Run(material, architecture).trained()


def held_out(material: Material) -> tuple[Bools, str]:
    """Which pictures judge, and by what rule: the val split where it shows enough, else some groups.

    Groups are divided by the rarest class of their pictures, so that it is not left to chance whether it is judged.
    """
    there = np.array([bool(value["boxes"]) for value in material.values], np.bool_)
    shown = [set(tasks.get(material.task).classes(value)) for value in material.values]
    given = material.validation
    inside = set().union(*(each for each, val in zip(shown, given, strict=True) if val))
    enough = len(inside) >= _LEAST_CLASSES * len(material.names)
    if int((given & there).sum()) >= LEAST_VALIDATION and enough and (there & ~given).any():
        return given.copy(), "validation"
    folds = min(_FOLDS, len(np.unique(material.groups)))
    if folds < 2 or len(there) < _LEAST_TO_HOLD_OUT:
        return np.zeros(len(there), np.bool_), "nothing"
    counts = {name: sum(name in each for each in shown) for name in material.names}
    rarest = [min(each, key=lambda name: (counts[name], name), default="") for each in shown]
    numbers = np.unique(rarest, return_inverse=True)[1].astype(np.int64)
    fold_of = grouped_folds(material.groups, numbers, folds=folds, seed=material.seed)
    return fold_of == 0, "groups"


class _Run:
    """One attempt; what it leaves in the material's folder lets the next one go on."""

    def __init__(self, material: Material, architecture: str | None) -> None:
        self.material, self.architecture = material, architecture
        self.folder = material.folder / "detection"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.held, self.rule = held_out(material)
        numbers = {name: number for number, name in enumerate(material.names)}
        boxes, labels = [], []
        for value, size in zip(material.values, material.sizes, strict=True):
            corners = np.array([item["box"] for item in value["boxes"]], np.float32).reshape(-1, 4)
            shares = corners / np.maximum(np.tile(size, 2), 1).astype(np.float32)
            boxes.append(np.clip(shares, 0, 1).astype(np.float32))
            labels.append(np.array([numbers[item["label"]] for item in value["boxes"]], np.int64))
        self.boxes, self.labels = tuple(boxes), tuple(labels)
        self.rows = np.flatnonzero(~self.held)
        if not any(len(self.boxes[place]) for place in self.rows):
            raise DataError(
                "No picture that may be learned from has a box.",
                expected="boxes in pictures of train; those of val only judge.",
                do="Add boxes to pictures of the split train.",
            )
        # Where the budget has no end, nothing is cut short by the clock.
        self.timed = material.plan is None and math.isfinite(material.budget.total_s)

    def trained(self) -> Trained:
        """Decides or replays, trains, exports, chooses."""
        material = self.material
        plan = self._plan()
        preprocessing = self._preprocessing(plan)
        views = self._views(plan)
        detector = self._detector(plan)
        fitted = self._fit(plan, detector, views)
        places = np.flatnonzero(self.held).tolist()
        raw, there = self._answers(detector, views, places)
        values = [material.values[place] for place in there]
        fitting = choosing.calibration(raw, values, names=material.names)
        material.progress({"text": "exporting the network"})
        model = export(detector, fitting, size=plan.size)
        resolved = replace(plan, stopped_at=fitted.kept_at)
        figures = {"curve": [list(point) for point in fitted.curve], "steps": fitted.steps}
        return served(
            material,
            model,
            places,
            labels=material.names,
            preprocessing=preprocessing,
            plan={**resolved.as_dict(), "seed": material.seed},
            figures=figures,
        )

    def _fit(self, plan: Plan, detector: Detector, views: Views) -> Fitted:
        material = self.material
        rng = np.random.default_rng((material.seed, 3))
        asked = np.flatnonzero(self.held)
        asked = np.sort(rng.permutation(asked)[:_ASKED])

        def judge() -> float:
            answers, there = self._answers(detector, views, asked.tolist())
            values = [material.values[place] for place in there]
            overall, half = choosing.precision(answers, values, material.names)
            material.progress({"text": f"held-out pictures: mAP {overall:.3f}, at half overlap {half:.3f}"})
            return overall

        trainer = Trainer(detector, views, plan, seed=material.seed, folder=self.folder, clock=material.budget.clock)
        return trainer.run(
            self.rows,
            judge if len(asked) else None,
            seconds=self._seconds() if self.timed else math.inf,
            progress=lambda share: material.progress(
                {"text": "training", "done": round(share * plan.steps), "total": plan.steps}
            ),
            stop_at=plan.stopped_at,
        )

    def _seconds(self) -> float:
        """For the whole training; what an attempt before used of it is counted by the trainer."""
        budget = self.material.budget
        return max(1.0, deciding.left_for_training(budget.left_s) + budget.used_s)

    def _answers(
        self, detector: Detector, views: Views, places: Sequence[int]
    ) -> tuple[list[dict[str, Any]], list[int]]:
        """What the detector as it is says, with scores for chances, and which pictures could be read."""
        import torch

        info = draft(self.material.names, views.preprocessing)
        answers, there = [], []
        detector.eval()
        for start in range(0, len(places), 8):
            read = [(place, views.plain(place)) for place in places[start : start + 8]]
            good = [(place, image) for place, image in read if image is not None]
            if not good:
                continue
            images = torch.from_numpy(np.stack([image for _, image in good])).to(memory_format=torch.channels_last)
            with torch.no_grad():
                boxes, scores, _ = detector.decoded(images)
            sizes = [_size(self.material, place) for place, _ in good]
            tensors = {"boxes": boxes.numpy(), "scores": scores.numpy()}
            answers += [each.as_dict() for each in decode(tensors, info=info, top_k=EVERYTHING, sizes=sizes)]
            there += [place for place, _ in good]
        return answers, there

    # What to do

    def _plan(self) -> Plan:
        """The plan to replay, the one that an attempt before this one made, or a new one."""
        if self.material.plan is not None:
            return Plan.from_dict(self.material.plan)
        path = self.folder / PLAN
        try:
            return Plan.from_dict(json.loads(path.read_text("utf-8")))
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            plan = self._decided()
        partial = path.with_suffix(".new")
        partial.write_text(json.dumps(plan.as_dict()), "utf-8")
        partial.replace(path)
        return plan

    def _decided(self) -> Plan:
        material = self.material
        seconds = deciding.left_for_training(material.budget.left_s)
        if seconds < deciding.SHORTEST_S:
            raise BudgetError(
                f"{material.budget.left_s:.0f} seconds are left for training a detector.",
                expected="at least some minutes, even for few pictures.",
                do="Give it more time (`--budget 20m`), or take the recipe `pretrained`.",
                needed_minutes=2.0,
            )
        material.progress({"text": "measuring this machine"})
        fit = deciding.fit(material.sizes[self.rows])
        sides = deciding.sides([self.boxes[place] for place in self.rows], material.sizes[self.rows], fit=fit)
        classes = np.concatenate([self.labels[place] for place in self.rows])
        choices = deciding.candidates(sides, classes, architecture=self.architecture)
        allowed = material.settings["train.augment"]
        # The cheapest is measured: larger inputs take longer by their area, and measuring them would, too.
        first = choices[-1]
        plan = Plan(
            architecture=first.architecture,
            why=first.why,
            size=first.size,
            fit=fit,
            scales=deciding.scales(sides),
            augmentations=tuple(name for name in _STAYING if name in allowed),
            steps=1,
            hold_out=self.rule,
        )
        measured = self._step_seconds(plan)
        chosen, steps = deciding.affordable(
            choices,
            pictures=len(self.rows),
            batch=plan.batch,
            seconds=deciding.left_for_training(material.budget.left_s) if self.timed else math.inf,
            step_s=lambda choice: measured * (choice.size / first.size) ** 2,
        )
        if steps < deciding.LEAST_STEPS and self.timed:
            needed = deciding.budget_for(deciding.LEAST_STEPS * measured) / 60
            raise BudgetError(
                f"There is time for {steps} steps of training, at {measured:.1f} seconds each on this machine.",
                expected=f"at least {deciding.LEAST_STEPS}.",
                do=f"Give it more time (`--budget {math.ceil(needed)}m`, better some times that), or let the machine "
                "do less beside it.",
                needed_minutes=needed,
            )
        return replace(plan, why=chosen.why, size=chosen.size, steps=steps)

    def _step_seconds(self, plan: Plan) -> float:
        """How long a step takes, making its views included."""
        clock = self.material.budget.clock
        trainer = Trainer(
            self._detector(plan), self._views(plan), plan, seed=self.material.seed, folder=self.folder, clock=clock
        )
        return trainer.step_seconds(self.rows, times=_TIMED)

    def _detector(self, plan: Plan) -> Detector:
        material = self.material
        network = torch_networks.load(material.backbone.name, weights=material.backbone.weights)
        return build(
            network,
            plan.architecture,
            classes=len(material.names),
            size=plan.size,
            scales=plan.scales,
            seed=material.seed,
        )

    def _preprocessing(self, plan: Plan) -> Preprocessing:
        return replace(self.material.backbone.preprocessing, size=plan.size, crop=1.0, fit=plan.fit)

    def _views(self, plan: Plan) -> Views:
        return Views(
            preprocessing=self._preprocessing(plan),
            augmentations=plan.augmentations,
            boxes=self.boxes,
            labels=self.labels,
            read=self.material.read,
            seed=self.material.seed,
        )


def draft(labels: Sequence[str], preprocessing: Preprocessing, **others: Any) -> BundleInfo:
    """The manifest of a model that is not chosen yet."""
    return BundleInfo(
        task="detection", labels=tuple(labels), preprocessing=preprocessing, created_at=DRAFT_DATE, **others
    )


def served(
    material: Material,
    model: bytes,
    places: Sequence[int],
    *,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
    plan: Mapping[str, Any],
    figures: Mapping[str, Any],
    **others: Any,
) -> Trained:
    """The network with the threshold and temperature that held-out pictures speak for, and their figures.

    Args:
        material: The pictures.
        model: The exported network.
        places: Of the pictures that it has not learned from.
        labels: What it tells apart.
        preprocessing: How pictures become its input.
        plan: How it was made.
        figures: To add to.
        others: Further fields of ``Trained``.
    """
    bundle = Bundle.create(draft(labels, preprocessing), model=model)
    predictions = answered(material, bundle, places)
    values = [material.values[place] for place, _ in predictions]
    listed = [prediction.output.as_dict() for _, prediction in predictions]
    show = choosing.threshold(listed, values)
    answers = [choosing.shown(answer, show) for answer in listed]
    temperature = choosing.temperature(answers, values)
    task = tasks.get(material.task)
    found = HeldOut.nothing(len(material.values))
    width = predictions[0][1].features.shape[0] if predictions else 0
    features = np.zeros((len(material.values), width), np.float32)
    for (place, prediction), answer, value in zip(predictions, answers, values, strict=True):
        found.judged[place] = True
        found.confidence[place] = choosing.confidence(answer, temperature=temperature)
        found.right[place] = task.right(answer, value)
        found.score[place] = task.score(answer, value)
        features[place] = prediction.features
    overall, half = choosing.precision(answers, values, labels)
    measured = bool(values) and any(value["boxes"] for value in values)
    return Trained(
        model=model,
        held_out=found,
        features=features,
        frozen=False,
        plan=dict(plan),
        figures={
            "map": overall if measured else None,
            "ap50": half if measured else None,
            "f1": float(found.score[found.judged].mean()) if values else None,
            "pictures": len(values),
            **figures,
        },
        temperature=temperature,
        labels=labels,
        preprocessing=preprocessing,
        thresholds={SHOW: show},
        **others,
    )


def _size(material: Material, place: int) -> tuple[int, int]:
    width, height = material.sizes[place]
    return int(width), int(height)
