"""The recipe ``finetune``: from pictures to a trained network, inside a budget, taken up again after a kill.

Held-out pictures judge a network that has not seen them; the temperature, the probabilities and the accuracy are of
that network. Then a second, short phase goes on with all pictures, and its end is what is served.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.data.splits import cluster_near_duplicates, grouped_folds, join_groups, near_duplicate_threshold
from keepsight.errors import BudgetError, PictureError, TrainingError
from keepsight.runtime.decode import decode
from keepsight.runtime.session import FEATURES, INPUT, open_session
from keepsight.tasks.reliability import expected_calibration_error
from keepsight.training.augment import Augmenter
from keepsight.training.finetune import deciding, export, suitability
from keepsight.training.finetune.cache import Cache, build, views_that_fit
from keepsight.training.finetune.classifier import Classifier
from keepsight.training.finetune.course import Course
from keepsight.training.finetune.fit import SECOND_RATE, FitResult, Trainer, checkpoint
from keepsight.training.finetune.network import Cut, Tail, cuts, features_only, free_size, trunk
from keepsight.training.finetune.search import search
from keepsight.training.finetune.settings import Plan
from keepsight.training.finetune.trials import Bench
from keepsight.training.finetune.views import Views
from keepsight.training.head import softmax
from keepsight.training.holdout import judge
from keepsight.training.processors import cores, torch_on_all_cores
from keepsight.training.recipes import HeldOut, Material, Trained

Bools = NDArray[np.bool_]

PLAN, FIRST, HELD = "plan.json", "first.npz", "held.npz"
FIRST_PHASE, SECOND_PHASE = "first", "second"
# Random views are this much larger than the plain one, so that windows of their maps differ.
_VIEW_SURPLUS = 8 / 7
_FOLDS, _FEW_FOLDS, _FEW = 8, 4, 160
_CHECKED = 4
_TIMED = 4


def finetune(material: Material) -> Trained:
    """The later part of the backbone and a linear head, trained on the material.

    Raises:
        MissingExtraError: torch is not installed.
        BudgetError: The time that is left is too short.
        StorageError: The activations do not fit on the disk.
        TrainingError: The network cannot be trained.
    """
    with torch_on_all_cores("networks are", instead="head") as torch:
        try:
            return _Run(material).trained()
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                "The memory of the device has no room for the network.",
                expected="room for it, its optimiser and a few pictures.",
                do="Free the device for this run, choose a smaller train.backbone, or train with the recipe `head`.",
            ) from error


def held_out(material: Material) -> tuple[Bools, str]:
    """Which pictures judge, and by what rule: the given val split where it shows enough, else some groups."""
    labels = material.labels
    given = judge(labels, material.validation)
    if given is not None:
        return given, "validation"
    norms = np.linalg.norm(material.features, axis=1, keepdims=True)
    unit = (material.features / np.maximum(norms, 1e-12)).astype(np.float32)
    level = near_duplicate_threshold(unit, labels, seed=material.seed)
    scenes = join_groups(material.groups, cluster_near_duplicates(unit, threshold=level))
    folds = _FOLDS if len(labels) >= _FEW else _FEW_FOLDS
    if len(np.unique(scenes)) < folds:
        scenes = material.groups
    folds = min(folds, len(np.unique(scenes)))
    if folds < 2:
        return np.zeros(len(labels), np.bool_), "nothing"
    fold_of = grouped_folds(scenes, labels, folds=folds, seed=material.seed)
    sizes = [int(np.isin(labels[fold_of == fold], labels[fold_of != fold]).sum()) for fold in range(folds)]
    # Every fold is much like another; the fullest judges best.
    return fold_of == int(np.argmax(sizes)), "groups"


@dataclass(frozen=True)
class _Phase:
    """Which pictures train and judge."""

    rows: NDArray[np.int64]
    held: NDArray[np.int64]


class _Run:
    """One attempt; what it leaves in the material's folder lets the next one go on."""

    def __init__(self, material: Material) -> None:
        import torch

        self.material = material
        self.folder = material.folder / "finetune"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = features_only(material.backbone.onnx)
        self.cuts = {cut.name: cut for cut in cuts(self.model)}
        if not self.cuts:
            raise TrainingError(
                "The backbone has no place where it can be divided into a frozen and a trained part.",
                expected="a network whose activations flow through one map at some place.",
                do="Train with the recipe `head`, or choose another train.backbone.",
            )
        self.scalable = free_size(self.model)
        self.held, self.hold_out = self._held_out()
        # Where the budget has no end, nothing is cut short by the clock.
        self.timed = material.plan is None and math.isfinite(material.budget.total_s)

    def trained(self) -> Trained:
        """Decides or replays, trains, exports."""
        material = self.material
        plan = self._plan()
        cut = self.cuts[plan.cut]
        cache, plan = self._cache(plan, cut)
        self.held &= cache.there
        first = _Phase(np.flatnonzero(cache.there & ~self.held), np.flatnonzero(self.held))
        both = _Phase(np.flatnonzero(cache.there), np.zeros(0, np.int64))
        plan, trials = self._searched(plan, cut, cache, first)
        trainer, found, last = self._fit(plan, cut, cache, first, both)
        model = export.export(self.model, trainer.tail.state(), trainer.classifier.linear())
        self._check(model, cache, trainer)
        # Features of the network that is served, for the drift reference.
        _, features = trainer.judge(np.flatnonzero(cache.there))
        table = np.zeros((len(material.labels), features.shape[1]), np.float32)
        table[cache.there] = features
        resolved = replace(plan, first=found.course, second=last.course)
        made = self._made(model, table, first, found, plan=resolved)
        return made if trials is None else replace(made, figures={**made.figures, "search": trials})

    def _made(
        self, model: bytes, features: NDArray[np.float32], first: _Phase, found: FitResult, plan: Plan
    ) -> Trained:
        labels = self.material.labels
        judged = self.held & np.isin(labels, labels[first.rows])
        counted = judged[first.held]
        probabilities = np.full((len(labels), len(self.material.names)), 1 / len(self.material.names))
        figures: dict[str, Any] = {"accuracy": None, "macro_recall": None, "nll": None, "ece": None, "pictures": 0}
        if len(first.held):
            probabilities[first.held] = softmax(found.logits, temperature=found.temperature)
        if counted.any():
            true, shares = labels[judged], probabilities[judged]
            right = shares.argmax(axis=1) == true
            figures = {
                "accuracy": float(right.mean()),
                "macro_recall": float(np.mean([right[true == label].mean() for label in np.unique(true)])),
                "nll": float(-np.log(np.maximum(shares[np.arange(len(true)), true], 1e-12)).mean()),
                "ece": expected_calibration_error(shares, true),
                "pictures": int(judged.sum()),
            }
        figures["of"] = (
            "the network before it went on with the held-out pictures; the one that is served has seen all pictures"
        )
        figures["curve"] = [list(point) for point in found.curve]
        return Trained(
            model=model,
            temperature=found.temperature,
            held_out=HeldOut.of_probabilities(probabilities, labels, judged),
            features=features,
            frozen=False,
            plan={**plan.as_dict(), "seed": self.material.seed, "judged": int(judged.sum())},
            figures=figures,
        )

    # What to do

    def _held_out(self) -> tuple[Bools, str]:
        """As in the attempt before: another machine, whose vectors differ in their last bits, could group otherwise."""
        path = self.folder / HELD
        try:
            with np.load(path) as kept:
                held, rule = kept["held"], str(kept["rule"])
            if held.shape == self.material.labels.shape and held.dtype == np.bool_:
                return held, rule
        except (OSError, ValueError, KeyError, EOFError):
            pass  # There is none, or it was cut off.
        held, rule = held_out(self.material)
        partial = self.folder / "held.new.npz"
        np.savez(partial, held=held, rule=np.array(rule))
        partial.replace(path)
        return held, rule

    def _plan(self) -> Plan:
        """The plan to replay, the one that an attempt before this one made, or a new one."""
        if self.material.plan is not None:
            return Plan.from_dict(self.material.plan)
        path = self.folder / PLAN
        try:
            return Plan.from_dict(json.loads(path.read_text("utf-8")))
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return self._written(self._decided())

    def _written(self, plan: Plan) -> Plan:
        """The plan, kept for an attempt after this one."""
        path = self.folder / PLAN
        partial = path.with_suffix(".new")
        partial.write_text(json.dumps(plan.as_dict()), "utf-8")
        partial.replace(path)
        return plan

    def _decided(self) -> Plan:
        material = self.material
        self._tell("measuring this machine")
        count = len(material.labels)
        left_s = deciding.left_for_training(material.budget.left_s, count)
        if left_s < deciding.SHORTEST_S:
            raise BudgetError(
                f"{material.budget.left_s:.0f} seconds are left for fine-tuning.",
                expected="at least a minute, even for few pictures.",
                do="Give it more time (`--budget 5m`), or train with the recipe `head`.",
                needed_minutes=1.0,
            )
        allowed = tuple(material.settings["train.augment"])
        out = self._unsuitable(allowed)
        size = material.backbone.preprocessing.size
        draft = Plan(
            cut="",
            half=False,
            augmentations=tuple(name for name in allowed if name not in out),
            left_out=out,
            views=1,
            view_size=round(size * _VIEW_SURPLUS / 32) * 32 if self.scalable else size,
            window=Plan.window if self.scalable else 1.0,
            steps=0,
            more_steps=0,
            hold_out=self.hold_out,
        )
        view_s = self._view_seconds(draft)
        speeds = []
        chosen = deciding.candidates(list(self.cuts.values()))
        half = deciding.quicker_in_half(
            self.model, chosen[-1], window=draft.window, device=self.device, clock=material.budget.clock
        )
        for cut in chosen:
            row_s, window_row_s = deciding.step_seconds(
                self.model, cut, half=half, window=draft.window, device=self.device, clock=material.budget.clock
            )
            speeds.append(deciding.Speed(cut, half, row_s, window_row_s, view_s))
        left_s = deciding.left_for_training(material.budget.left_s, count)
        training = int((~self.held).sum())
        return deciding.decide(draft, speeds, pictures=count, training=training, left_s=left_s)

    def _unsuitable(self, allowed: tuple[str, ...]) -> tuple[str, ...]:
        """Changes that the pictures do not bear."""
        material, labels = self.material, self.material.labels
        rows = np.flatnonzero(~self.held)
        judges = np.flatnonzero(self.held & np.isin(labels, labels[rows]))
        rng = np.random.default_rng((material.seed, 1))
        judges = np.sort(rng.permutation(judges)[: suitability.MOST_PICTURES])
        places, pictures = [], []
        for place in judges.tolist():
            picture = self._picture(place)
            if picture is not None:
                places.append(place)
                pictures.append(picture)
        head = Classifier(material.features[rows], len(material.names))
        head.probe(material.features[rows], labels[rows])
        weight, bias = head.linear()
        session: Any = open_session(material.backbone.onnx, threads=cores())
        preprocessing = material.backbone.preprocessing

        def answer(given: list[Any]) -> NDArray[np.int64]:
            found = [
                session.run([FEATURES], {INPUT: np.stack([preprocessing.apply(each) for each in given[at : at + 16]])})[
                    0
                ]
                for at in range(0, len(given), 16)
            ]
            return np.asarray((np.concatenate(found) @ weight.T + bias).argmax(axis=1), np.int64)

        return suitability.unsuitable(allowed, pictures, labels[places], answer, seed=material.seed)

    def _picture(self, place: int) -> NDArray[np.uint8] | None:
        data = self.material.read(place)
        try:
            return None if data is None else decode(data, min_side=self.material.backbone.preprocessing.min_side)
        except PictureError:
            return None

    def _view_seconds(self, plan: Plan) -> float:
        """Seconds for a random view and the whole network on it: more than the trunk takes, so a safe figure."""
        material = self.material
        cut = self.cuts[deciding.candidates(list(self.cuts.values()))[-1].name]
        session = self._session(cut)
        views = self._views(replace(plan, views=1))
        clock = material.budget.clock
        size = min(_TIMED * cores(), len(material.labels))
        taken = []
        with ThreadPoolExecutor(cores()) as pool:
            for _ in range(3):
                began = clock()
                found = [each for each in views.many(pool, range(size))() if each is not None]
                if found and session is not None:
                    session.run(None, {INPUT: np.concatenate([each[1] for each in found])})
                taken.append((clock() - began) / size)
        # Decoding is in this figure, for each view.
        return max(min(taken[1:]), 1e-4)

    # What was seen

    def _views(self, plan: Plan) -> Views:
        preprocessing = self.material.backbone.preprocessing
        augmenter = Augmenter(plan.augmentations, plan.view_size, preprocessing.crop)
        return Views(preprocessing, augmenter, plan.views, self.material.seed, self.material.read)

    def _session(self, cut: Cut) -> Any:
        part = trunk(self.model, cut, any_size=self.scalable)
        return open_session(part, threads=cores()) if part else None

    def _cache(self, plan: Plan, cut: Cut) -> tuple[Cache, Plan]:
        channels, height, width = cut.shape
        size = self.material.backbone.preprocessing.size
        view = (channels, height * plan.view_size // size, width * plan.view_size // size)
        count = len(self.material.labels)
        if not (self.folder / "activations.json").exists():
            fits = views_that_fit(self.folder, count, plain=cut.values, view=int(np.prod(view)), wanted=plan.views)
            plan = self._written(replace(plan, views=fits))
        key = {
            "cut": cut.name,
            "backbone": self.material.backbone.digest,
            "augmentations": plan.augmentations,
            "size": plan.view_size,
            "seed": self.material.seed,
        }
        cache = build(
            self.folder,
            self._views(plan),
            self._session(cut),
            pictures=count,
            plain=cut.shape,
            view=view,
            key=key,
            threads=cores(),
            progress=lambda done: self._tell("looking at views of pictures", done, count),
        )
        return cache, plan

    # Training

    def _searched(self, plan: Plan, cut: Cut, cache: Cache, first: _Phase) -> tuple[Plan, list[dict[str, Any]] | None]:
        """The plan with the settings that a search found, and its trials; None where there is none."""
        material = self.material
        wanted = material.settings["train.search_trials"]
        if material.plan is not None or not wanted:
            return plan, None
        found = search(
            Bench(
                model=self.model,
                cut=cut,
                cache=cache,
                labels=material.labels,
                features=material.features,
                rows=first.rows,
                held=first.held,
                classes=len(material.names),
                plan=plan,
                seed=material.seed,
            ),
            trials=wanted,
            folder=self.folder,
            left_s=self._left_s if self.timed else lambda: math.inf,
            progress=lambda done, total: self._tell("searching settings", done, total),
            place=material.executor,
            clock=material.budget.clock,
        )
        self._tell(str((found.plan.search or {}).get("text", "")))
        return found.plan, found.trials

    def _fit(
        self, plan: Plan, cut: Cut, cache: Cache, first: _Phase, both: _Phase
    ) -> tuple[Trainer, FitResult, FitResult]:
        """The trained tail and head, and what came of both phases."""
        saved = checkpoint(self.folder)
        trainer = self._trainer(plan, cut, cache, first)
        found = self._first(saved) if saved is not None and saved["phase"] == SECOND_PHASE else None
        if found is None:
            resumed = saved if saved is not None and saved["phase"] == FIRST_PHASE else None
            seconds = self._left_s() / (1 + deciding.SECOND_SHARE) if self.timed else math.inf
            if resumed is not None:
                seconds += resumed["used"]
            found = trainer.run(
                FIRST_PHASE,
                first.rows,
                first.held,
                steps=plan.steps,
                seconds=seconds,
                resumed=resumed,
                follow=plan.first,
                progress=self._follow("training", plan.steps),
            )
            self._keep(found)
            saved = None
            trainer.save(SECOND_PHASE)
        # So many that each picture that was held out weighs as much as the others.
        more = min(plan.more_steps, math.ceil(deciding.SECOND_SHARE * max(found.course.kept_at, 1)))
        spent_s = 0.0 if saved is None else float(saved["used"])
        last = trainer.run(
            SECOND_PHASE,
            both.rows,
            both.held,
            steps=more if len(first.held) else 0,
            follow=plan.second,
            rate=SECOND_RATE,
            seconds=max(1.0, spent_s + self._left_s()) if self.timed else math.inf,
            resumed=saved,
            progress=self._follow("training with all pictures", more),
        )
        trainer.take_average()
        return trainer, found, last

    def _trainer(self, plan: Plan, cut: Cut, cache: Cache, first: _Phase) -> Trainer:
        tail = Tail(self.model, cut, half=plan.half, device=self.device)
        labels = self.material.labels
        classifier = Classifier(self.material.features[first.rows], len(self.material.names), device=self.device)
        classifier.probe(self.material.features[first.rows], labels[first.rows])
        clock = self.material.budget.clock
        return Trainer(cache, labels, tail, classifier, plan, seed=self.material.seed, folder=self.folder, clock=clock)

    def _left_s(self) -> float:
        return deciding.left_for_training(self.material.budget.left_s, len(self.material.labels))

    def _follow(self, text: str, total: int) -> Callable[[float], None]:
        return lambda share: self._tell(text, round(share * total), total)

    def _tell(self, text: str, done: int | None = None, total: int | None = None) -> None:
        values: dict[str, Any] = {"text": text}
        if done is not None and total is not None:
            values |= {"done": done, "total": total}
        self.material.progress(values)

    def _keep(self, found: FitResult) -> None:
        partial = self.folder / "first.new.npz"
        np.savez(
            partial,
            logits=found.logits,
            features=found.features,
            numbers=np.array([found.course.steps, found.course.ended_at, found.course.kept_at]),
            pace=np.array(found.course.pace, np.int64).reshape(-1, 2),
            temperature=np.array(found.temperature),
            figures=np.array([np.nan if each is None else each for each in (found.accuracy, found.nll)]),
            curve=np.array(found.curve).reshape(-1, 3),
        )
        partial.replace(self.folder / FIRST)

    def _first(self, _saved: Mapping[str, Any]) -> FitResult | None:
        try:
            with np.load(self.folder / FIRST) as kept:
                accuracy, nll = (None if math.isnan(each) else float(each) for each in kept["figures"])
                steps, ended_at, kept_at = (int(each) for each in kept["numbers"])
                return FitResult(
                    course=Course(steps, ended_at, kept_at, tuple((int(at), int(n)) for at, n in kept["pace"])),
                    logits=kept["logits"],
                    features=kept["features"],
                    accuracy=accuracy,
                    nll=nll,
                    temperature=float(kept["temperature"]),
                    curve=tuple((int(step), float(right), float(loss)) for step, right, loss in kept["curve"]),
                )
        except (FileNotFoundError, KeyError, ValueError):
            return None  # There is none, or a version before this one wrote it.

    def _check(self, model: bytes, cache: Cache, trainer: Trainer) -> None:
        """The exported graph from the picture on against the trained tail on the trunk's activations."""
        import torch

        views = self._views(trainer.plan)
        images = []
        for place in np.flatnonzero(cache.there)[:_CHECKED].tolist():
            image = views.plain(place)
            if image is not None:
                images.append(image)
        if not images:
            return
        stacked = np.stack(images)
        session = self._session(trainer.tail.cut)
        maps = stacked if session is None else session.run(None, {INPUT: stacked})[0]
        with torch.no_grad():
            found = trainer.tail(torch.from_numpy(maps).to(self.device), exact=True).cpu().numpy()
        export.check(model, stacked, found)
