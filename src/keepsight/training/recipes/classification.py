"""Recipes for classification."""

from __future__ import annotations

from keepsight.training.automatic import better_of
from keepsight.training.finetune.recipe import finetune
from keepsight.training.head import fit_head, softmax
from keepsight.training.holdout import judge
from keepsight.training.onnxhead import merge
from keepsight.training.recipes import HeldOut, Material, Recipe, Trained


def head(material: Material) -> Trained:
    """A linear head on the frozen backbone's vectors: seconds on a CPU, whatever the pictures' size."""
    fitted = fit_head(
        material.features,
        material.labels,
        material.groups,
        n_classes=len(material.names),
        seed=material.seed,
        validation=judge(material.labels, material.validation),
        on_progress=lambda share: material.progress({"text": "training", "done": share, "total": 1.0}),
    )
    held_out = fitted.oof
    return Trained(
        model=merge(material.backbone.onnx, fitted),
        temperature=fitted.temperature,
        held_out=HeldOut.of_probabilities(
            softmax(held_out.logits, temperature=fitted.temperature), material.labels, held_out.judged
        ),
        features=material.features,
        frozen=True,
        plan=dict(fitted.plan),
        figures={
            "accuracy": held_out.accuracy,
            "macro_recall": held_out.macro_recall,
            "nll": held_out.nll,
            "ece": held_out.ece,
            "pictures": int(held_out.judged.sum()),
        },
    )


def auto(material: Material) -> Trained:
    """The head first, then fine-tuning where that can gain; the better of both."""
    return better_of(material, {"head": head, "finetune": finetune})


RECIPES: dict[str, Recipe] = {"auto": auto, "finetune": finetune, "head": head}
