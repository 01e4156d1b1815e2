"""Recipes for moderation: a head for flags of one's own, and the pretrained network for nudity."""

from __future__ import annotations

from functools import partial

from keepsight import tasks
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.label_sets import EVEN, threshold_key
from keepsight.runtime.manifest import BundleInfo
from keepsight.training import label_set_recipe, label_sets
from keepsight.training.automatic import better_of
from keepsight.training.judging import judge
from keepsight.training.recipes import PRETRAINED, Material, Recipe, Trained
from keepsight.zoo import catalogue, fetch
from keepsight.zoo import pretrained as zoo
from keepsight.zoo.entry import Entry


def head(material: Material) -> Trained:
    """A linear head on the frozen backbone's vectors; thresholds keep ``train.false_alarms`` on held-out pictures."""
    rate = float(material.settings["train.false_alarms"])
    return label_set_recipe.head(material, limit=partial(label_sets.threshold_for, rate=rate))


def pretrained(material: Material) -> Trained:
    """The zoo's network as it is, judged on the labelled pictures that are there."""
    entry = _entry()
    found = zoo.load(entry.name, task=material.task, allowed_licences=material.settings["gate.licences"])
    thresholds = {threshold_key(label): EVEN for label in entry.labels}
    info = BundleInfo(
        task=material.task,
        labels=entry.labels,
        preprocessing=entry.preprocessing,
        created_at="1970-01-01T00:00:00+00:00",
        thresholds=thresholds,
    )
    task = tasks.get(material.task)
    # Of flags that the network does not know, it cannot be asked.
    places = [place for place, value in enumerate(material.values) if set(task.classes(value)) <= set(entry.labels)]
    held_out, features = judge(material, Bundle.create(info, model=found.content), places)
    judged = held_out.judged
    return Trained(
        model=found.content,
        held_out=held_out,
        features=features,
        frozen=False,
        plan={"recipe": PRETRAINED, "weights": entry.name, "digest": found.digest, "thresholds": thresholds},
        figures={
            task.HEADLINE: None,
            "right": float(held_out.right[judged].mean()) if judged.any() else None,
            "pictures": int(judged.sum()),
        },
        labels=entry.labels,
        preprocessing=entry.preprocessing,
        thresholds=thresholds,
        licences=entry.licences,
        from_backbone=False,
    )


def auto(material: Material) -> Trained:
    """The head; where the flags are those of the pretrained network and it is on this machine, the better of both."""
    entry = _entry()
    if set(material.names) <= set(entry.labels) and fetch.available(entry):
        return better_of(material, {"head": head, PRETRAINED: pretrained})
    return head(material)


def _entry() -> Entry:
    return catalogue.entries("moderation")[0]


RECIPES: dict[str, Recipe] = {"auto": auto, "head": head, PRETRAINED: pretrained}
