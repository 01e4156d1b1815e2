"""Recipes for recognition: nobody is learned, everybody who has a name is enrolled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keepsight.runtime.outputs.recognition.engine import EMBEDDER, EMBEDDING
from keepsight.runtime.outputs.recognition.gallery import PART, Entry, Gallery
from keepsight.runtime.preprocess import Preprocessing
from keepsight.runtime.session import FEATURES
from keepsight.training.automatic import better_of
from keepsight.training.recipes import PRETRAINED, HeldOut, Material, Recipe, Trained
from keepsight.training.recognition import metric as heads
from keepsight.training.recognition import trials as trying
from keepsight.training.recognition.network import Projection, unit, with_embedding
from keepsight.training.recognition.trials import Trials
from keepsight.training.recognition.views import Views, face_networks, of_faces, of_pictures

# Where there are too few pictures to calibrate: SFace's pairs of strangers in the photos at hand stayed below 0.47, and
# one in a hundred pictures of grocery-store's shelves was nearer than 0.85 to the centre of another product.
USUAL = {"face": 0.45, "whole": 0.85}
METRIC_USUAL = 0.5


@dataclass(frozen=True)
class _Network:
    """What is served: the network, what else it needs, and the facts about it."""

    model: bytes
    parts: dict[str, bytes]
    preprocessing: Preprocessing
    licences: tuple[str, ...]


def gallery(material: Material) -> Trained:
    """The pretrained network as it is; the threshold and the confidence are calibrated on held-out pictures."""
    return _as_it_is(material, recipe="gallery")


def pretrained(material: Material) -> Trained:
    """The same without a need for pictures: a gallery of nobody, to enrol into while it is served."""
    return _as_it_is(material, recipe=PRETRAINED)


def metric(material: Material) -> Trained:
    """A metric head on the pretrained vectors, judged on names that it has not seen.

    Raises:
        TrainingError: There are too few names with several views.
    """
    subject = material.settings["gallery.subject"]
    seen = _views(material, subject)
    made = heads.fit(
        seen.vectors,
        seen.of,
        material.groups[seen.pictures],
        seed=material.seed,
        tell=lambda share: material.progress({"text": "comparing metric heads", "done": share, "total": 1.0}),
    )
    plan = {"shrinkage": made.shrinkage, "compared": made.compared}
    return _trained(material, subject, seen, made.trials, recipe="metric", projection=made.projection, plan=plan)


def auto(material: Material) -> Trained:
    """The gallery, and a metric head where there is enough to learn one from; the better of both."""
    return better_of(material, {"gallery": gallery, "metric": metric})


def _as_it_is(material: Material, *, recipe: str) -> Trained:
    subject = material.settings["gallery.subject"]
    seen = _views(material, subject)
    found = trying.run(seen.vectors, seen.of, material.groups[seen.pictures])
    return _trained(material, subject, seen, found, recipe=recipe, projection=None, plan={})


def _views(material: Material, subject: str) -> Views:
    return of_faces(material) if subject == "face" else of_pictures(material)


def _trained(
    material: Material,
    subject: str,
    seen: Views,
    found: Trials,
    *,
    recipe: str,
    projection: Projection | None,
    plan: dict[str, Any],
) -> Trained:
    people = len(np.unique(seen.of[seen.of >= 0]))
    calibration = trying.calibrated(
        found,
        false_accepts=material.settings["gallery.false_accepts"],
        usual=USUAL[subject] if projection is None else METRIC_USUAL,
        people=people,
    )
    vectors = unit(seen.vectors) if projection is None else projection.apply(seen.vectors)
    made = Gallery(vectors.shape[1] if len(vectors) else _width(material, subject), calibration)
    made.put(
        [
            Entry(material.names[number], material.keys[place], vector)
            for number, place, vector in zip(seen.of, seen.pictures, vectors, strict=True)
            if number >= 0
        ]
    )
    held_out = _held_out(len(material.values), seen.pictures, found, calibration, people=people)
    network = _network(material, subject, projection)
    threshold = calibration.threshold(people)
    return Trained(
        model=network.model,
        held_out=held_out,
        features=np.zeros((len(material.values), 0), np.float32) if seen.features is None else seen.features,
        frozen=subject != "face",
        plan={
            "recipe": recipe,
            "subject": subject,
            "views": len(seen.of),
            "people": people,
            "left_out": seen.left_out,
            "threshold": threshold,
            "false_accepts": calibration.false_accepts,
            "strangers": len(calibration.strangers),
            **plan,
        },
        figures=_figures(found, held_out, threshold=threshold),
        labels=tuple(made.names()),
        preprocessing=network.preprocessing,
        thresholds={"accept": threshold},
        parts={**network.parts, PART: made.to_bytes()},
        extra={"subject": subject},
        licences=network.licences,
        from_backbone=subject != "face",
    )


def _network(material: Material, subject: str, projection: Projection | None) -> _Network:
    if subject != "face":
        model = with_embedding(material.backbone.onnx, output=EMBEDDING, projection=projection)
        return _Network(model, {}, material.backbone.preprocessing, material.backbone.licences)
    detector, embedder = face_networks()
    content = embedder.content
    if projection is not None:
        content = with_embedding(content, output=FEATURES, projection=projection)
    licences = tuple(dict.fromkeys((*detector.entry.licences, *embedder.entry.licences)))
    return _Network(detector.content, {EMBEDDER: content}, detector.entry.preprocessing, licences)


def _width(material: Material, subject: str) -> int:
    return face_networks()[1].entry.features_dim if subject == "face" else material.backbone.features_dim


def _held_out(count: int, pictures: Sequence[int] | Any, found: Trials, calibration: Any, *, people: int) -> HeldOut:
    """The trials by picture: right where all its subjects are, as sure as all of them together.

    The score, by which recipes are chosen, is that the right name came first, whatever the threshold: how many
    strangers may pass is the user's to say, and it must not decide which vectors are the better ones.
    """
    confidence, right = trying.answered(found, calibration, people=people)
    held_out = HeldOut.nothing(count)
    for place in np.unique(pictures):
        mine = np.flatnonzero(pictures == place)
        held_out.judged[place] = bool(found.judged[mine].all())
        held_out.confidence[place] = float(np.prod(confidence[mine]))
        held_out.right[place] = bool(right[mine].all())
        held_out.score[place] = float(found.first[mine].mean())
    return held_out


def _figures(found: Trials, held_out: HeldOut, *, threshold: float) -> dict[str, Any]:
    """What the trials say, for people and for choosing between recipes."""
    judged = found.judged
    there = found.best > -1.0
    return {
        "identification": float(held_out.right[held_out.judged].mean()) if held_out.judged.any() else None,
        "rank1": float(found.first[judged].mean()) if judged.any() else None,
        "rejection": float((found.best[there] < threshold).mean()) if there.any() else None,
        "pictures": int(held_out.judged.sum()),
    }


RECIPES: dict[str, Recipe] = {"auto": auto, "gallery": gallery, "metric": metric, PRETRAINED: pretrained}
