"""Recipes for reading documents: the published reader, fields learned from documents, a fine-tuned recogniser."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import DataError
from keepsight.runtime.outputs.ocr import engine as runtime
from keepsight.runtime.outputs.ocr import fields as finding
from keepsight.runtime.outputs.ocr.answer import OcrOutput
from keepsight.tasks import ocr as task
from keepsight.training.automatic import better_of
from keepsight.training.documents import finetuning, reader
from keepsight.training.documents.fields import learn, platt
from keepsight.training.documents.reader import Page, Reader
from keepsight.training.recipes import HeldOut, Material, Recipe, Trained

# So many documents show how far the published reader can be trusted.
_JUDGED = 60
# Seconds that learning fields, the evaluation and the gate need after the reading.
_RESERVE_S = 90.0
_EVERYTHING = 1000


def pretrained(material: Material) -> Trained:
    """The published reader as it is: lines, no fields. Annotated documents, where there are, calibrate its confidence.

    Raises:
        WeightsError: Its weights are not on this machine.
    """
    found = reader.published(material)
    places = _order(material, range(len(material.values)))[:_JUDGED]
    return _as_read(material, found, places, plan={"recipe": "pretrained", "reader": found.size})


def fields(material: Material) -> Trained:
    """The published reader, and the fields as learned from the labelled documents; seconds after the reading.

    Raises:
        DataError: No document has labelled fields that stand in its lines.
        WeightsError: The reader's weights are not on this machine.
    """
    found = reader.published(material)
    plan = {"recipe": "fields", "reader": found.size}
    return _with_fields(material, found, judged=None, plan=plan)


def finetune(material: Material) -> Trained:
    """The recogniser fine-tuned on corrected lines, then the fields learned with it where documents have some.

    Raises:
        DataError: No line can be learned from; names the characters that the recogniser does not know.
        MissingExtraError: torch or onnx2torch is not installed.
        BudgetError: The time that is left is too short.
        WeightsError: The reader's weights are not on this machine.
    """
    tuned = finetuning.finetune(material, reader.published(material))
    plan = {"recipe": "finetune", "reader": tuned.reader.size, **tuned.plan}
    labelled = any(value.get("fields") for value in material.values)
    if labelled:
        trained = _with_fields(material, tuned.reader, judged=tuned.held, plan=plan)
    else:
        places = _order(material, np.flatnonzero(tuned.held).tolist())
        trained = _as_read(material, tuned.reader, places, plan=plan)
    return replace(trained, figures={**trained.figures, "lines": tuned.figures})


def auto(material: Material) -> Trained:
    """Fields first where documents have some, or else the published reader; then fine-tuning where that can gain."""
    labelled = any(value.get("fields") for value in material.values)
    quick: tuple[str, Recipe] = ("fields", fields) if labelled else ("pretrained", pretrained)
    lines = any(value.get("lines") for value in material.values)
    if not lines and material.plan is None:
        return quick[1](material)
    if material.plan is not None and material.plan.get("recipe") != "auto":
        return RECIPES[material.plan["recipe"]](material)
    return better_of(material, {quick[0]: quick[1], "finetune": finetune})


def _order(material: Material, places: Sequence[int] | range) -> list[int]:
    """The places in an order by chance, so that the first of them are like the rest."""
    order = np.random.default_rng(material.seed).permutation(len(places))
    return [int(places[place]) for place in order]


def _as_read(material: Material, found: Reader, places: Sequence[int], *, plan: Mapping[str, Any]) -> Trained:
    """A reader without fields; the documents at ``places`` calibrate the confidence in all lines being right."""
    count = int((material.plan or {}).get("documents", len(places)))
    pages = reader.read_all(material, found, places[:count], reserve_s=_RESERVE_S)
    raw = np.array([runtime.whole(page.lines) for page in pages])
    outputs = [OcrOutput(page.lines, {}, 0.0, _EVERYTHING).as_dict() for page in pages]
    hits = np.array(
        [task.right(output, material.values[page.place]) for output, page in zip(outputs, pages, strict=True)]
    )
    clipped = np.clip(raw, 1e-9, 1 - 1e-9)
    slope, shift = platt(np.log(clipped / (1 - clipped)), hits.astype(bool)) if len(pages) else (1.0, 0.0)
    confidence = np.array([finding.calibrated(float(share), slope=slope, shift=shift) for share in raw])
    held_out, vectors = _held_out(material, pages, outputs, confidence)
    parts = {**found.parts(), runtime.CONFIDENCE: json.dumps({"slope": slope, "shift": shift}).encode()}
    return Trained(
        model=found.detector,
        held_out=held_out,
        features=vectors,
        frozen=False,
        plan={**plan, "documents": len(pages)},
        figures=_figures(held_out),
        labels=(),
        preprocessing=found.preprocessing,
        parts=parts,
        licences=found.licences,
        from_backbone=False,
    )


def _with_fields(
    material: Material, found: Reader, *, judged: NDArray[np.bool_] | None, plan: Mapping[str, Any]
) -> Trained:
    """A reader with the fields learned from what it reads; ``judged`` are the documents that it was not tuned on."""
    labelled = [place for place, value in enumerate(material.values) if value.get("fields")]
    if not labelled:
        raise DataError(
            "No document in train or val has labelled fields.",
            expected='documents with fields, as in {"fields": {"total": "9.00"}}.',
            do="Label some fields (the review page does it), or take the reader as it is with --recipe pretrained.",
        )
    order = _order(material, labelled)
    if judged is not None:
        # Those that judge come first, so that a short budget does not leave them out.
        order.sort(key=lambda place: not judged[place])
    count = int((material.plan or {}).get("documents", len(order)))
    pages = reader.read_all(material, found, order[:count], reserve_s=_RESERVE_S)
    pages.sort(key=lambda page: page.place)
    places = [page.place for page in pages]
    learned = learn(
        [page.document for page in pages],
        [material.values[place]["fields"] for place in places],
        names=material.names,
        groups=material.groups[places],
        seed=material.seed,
        on_progress=lambda share: material.progress({"text": "learning the fields", "done": share, "total": 1.0}),
    )
    outputs = [
        OcrOutput(page.lines, values, float(confidence), _EVERYTHING).as_dict()
        for page, values, confidence in zip(pages, learned.held_out, learned.confidence, strict=True)
    ]
    held_out, vectors = _held_out(material, pages, outputs, learned.confidence)
    if judged is not None:
        held_out = replace(held_out, judged=held_out.judged & judged)
    return Trained(
        model=found.detector,
        held_out=held_out,
        features=vectors,
        frozen=False,
        plan={**plan, "documents": len(pages)},
        figures={**_figures(held_out), "located": learned.located},
        labels=tuple(material.names),
        preprocessing=found.preprocessing,
        parts={**found.parts(), **learned.model.parts()},
        licences=found.licences,
        from_backbone=False,
    )


def _held_out(
    material: Material, pages: Sequence[Page], outputs: Sequence[Mapping[str, Any]], confidence: NDArray[np.float64]
) -> tuple[HeldOut, NDArray[np.float32]]:
    """Answers to documents as held-out answers of the whole material, and the detector's features."""
    found = HeldOut.nothing(len(material.values))
    judged, sure = found.judged.copy(), found.confidence.copy()
    right, score = found.right.copy(), found.score.copy()
    width = len(pages[0].features) if pages else 0
    vectors = np.zeros((len(material.values), width), np.float32)
    for page, output, share in zip(pages, outputs, confidence, strict=True):
        value = material.values[page.place]
        judged[page.place], sure[page.place] = True, share
        right[page.place], score[page.place] = task.right(output, value), task.score(output, value)
        vectors[page.place] = page.features
    return HeldOut(judged, sure, right, score, found.predicted), vectors


def _figures(held_out: HeldOut) -> dict[str, Any]:
    judged = held_out.judged
    return {
        task.HEADLINE: float(held_out.score[judged].mean()) if judged.any() else None,
        "right": float(held_out.right[judged].mean()) if judged.any() else None,
        "pictures": int(judged.sum()),
    }


RECIPES: dict[str, Recipe] = {"auto": auto, "fields": fields, "finetune": finetune, "pretrained": pretrained}
