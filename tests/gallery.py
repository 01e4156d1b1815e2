"""A tiny model with a gallery, whose vectors are the pixels."""

from __future__ import annotations

from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.outputs.recognition.calibration import Calibration
from keepsight.runtime.outputs.recognition.gallery import Gallery
from keepsight.training.recognition.network import Projection, with_embedding
from tests import tiny


def bundle_with(gallery: Gallery | None = None, *, projection: Projection | None = None) -> Bundle:
    """A bundle that knows whom the gallery knows, or nobody; a projection gives it another space."""
    network = tiny.backbone()
    width = network.features_dim if projection is None else projection.matrix.shape[1]
    gallery = gallery or Gallery(width, Calibration(false_accepts=0.01, usual=0.95))
    info = BundleInfo(
        task="recognition",
        labels=tuple(gallery.names()),
        preprocessing=network.preprocessing,
        created_at="2026-01-01T00:00:00+00:00",
    )
    model = with_embedding(network.onnx, output="embedding", projection=projection)
    return Bundle.create(info, model=model, parts={"gallery.npz": gallery.to_bytes()})
