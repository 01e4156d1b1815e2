"""Where a model looked: a picture with its class activation map upon it, made when somebody asks."""

from __future__ import annotations

import threading
from collections import OrderedDict

from keepsight.errors import NotFoundError
from keepsight.runtime.bundle import Bundle
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.assessment import explain
from keepsight.training.models import Model

# Of one page, so that a bundle is not decrypted anew for each of its pictures.
_KEPT = 2

_bundles: OrderedDict[str, Bundle] = OrderedDict()
_lock = threading.Lock()


def overlay(ws: Workspace, model: Model, picture_id: str, *, label: str | None) -> bytes:
    """A JPEG of the picture that glows where it speaks for a class; None: for the model's answer.

    Raises:
        NotFoundError: The model has no such class, its network cannot be explained so, or the picture was erased.
    """
    bundle = _bundle(ws, model)
    data = ws.blobs.get(picture_id)
    heat = explain.class_activation_map(bundle, data, label=label)
    if heat is None:
        raise NotFoundError(
            f"Nobody can tell where model {model.number} looks.",
            expected="a network that pools its features from a map of the picture.",
            do="Look at the pictures that look most alike instead.",
        )
    return explain.overlay(data, heat, bundle.info.preprocessing)


def _bundle(ws: Workspace, model: Model) -> Bundle:
    with _lock:
        found = _bundles.get(model.bundle_digest)
    if found is None:
        found = models.load_bundle(ws, model)
    with _lock:
        _bundles[model.bundle_digest] = found
        _bundles.move_to_end(model.bundle_digest)
        while len(_bundles) > _KEPT:
            _bundles.popitem(last=False)
    return found
