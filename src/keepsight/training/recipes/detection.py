"""Recipes for detection: boxes around things of known classes."""

from __future__ import annotations

from functools import partial

from keepsight.training.automatic import better_of
from keepsight.training.detection import pretrained
from keepsight.training.detection.network import FCOS, SSDLITE
from keepsight.training.detection.recipe import train
from keepsight.training.recipes import PRETRAINED, Material, Recipe, Trained
from keepsight.zoo import catalogue, fetch


def auto(material: Material) -> Trained:
    """Where the pretrained detector knows the classes, the better of it and a trained one; else a trained one.

    Raises:
        MissingExtraError: torch is not installed, and the pretrained detector does not know the classes.
    """
    there = fetch.available(catalogue.entry(pretrained.MODEL))
    if pretrained.knows(material.names) and there:
        return better_of(material, {PRETRAINED: pretrained.take, "trained": train})
    return train(material)


RECIPES: dict[str, Recipe] = {
    "auto": auto,
    FCOS: partial(train, architecture=FCOS),
    SSDLITE: partial(train, architecture=SSDLITE),
    PRETRAINED: pretrained.take,
}
