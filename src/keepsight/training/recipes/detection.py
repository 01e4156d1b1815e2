"""Recipes for detection: boxes around things of known classes."""

from __future__ import annotations

from functools import partial

from keepsight.training.detection.network import FCOS, SSDLITE
from keepsight.training.detection.recipe import train
from keepsight.training.recipes import Recipe

RECIPES: dict[str, Recipe] = {
    "auto": train,
    FCOS: partial(train, architecture=FCOS),
    SSDLITE: partial(train, architecture=SSDLITE),
}
