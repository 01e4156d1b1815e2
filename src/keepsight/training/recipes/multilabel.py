"""Recipes for multi-label classification."""

from __future__ import annotations

from keepsight.training import label_set_recipe, label_sets
from keepsight.training.recipes import Material, Recipe, Trained


def head(material: Material) -> Trained:
    """A linear head on the frozen backbone's vectors; the thresholds of the labels aim at the best F1."""
    return label_set_recipe.head(material, limit=label_sets.threshold_for_f1)


RECIPES: dict[str, Recipe] = {"auto": head, "head": head}
