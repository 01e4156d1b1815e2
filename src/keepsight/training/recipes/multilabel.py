"""Recipes for multi-label classification."""

from __future__ import annotations

from keepsight.runtime.label_sets import EVEN
from keepsight.training import label_set_recipe
from keepsight.training.recipes import Material, Recipe, Trained


def head(material: Material) -> Trained:
    """A linear head on the frozen backbone's vectors; a label is given where it is more probable than not."""
    return label_set_recipe.head(material, limit=lambda _chances, _present: EVEN)


RECIPES: dict[str, Recipe] = {"auto": head, "head": head}
