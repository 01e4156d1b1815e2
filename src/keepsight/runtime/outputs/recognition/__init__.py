"""Who or what a picture shows, among those who were enrolled: faces, logos, labels, spare parts.

Nothing is trained to add somebody: a picture's vector is compared with the vectors of a gallery, which is a part of the
bundle (``gallery.npz``) and grows while it is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import BundleError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.outputs.recognition.answers import RecognitionOutput, output_of, subject_of
from keepsight.runtime.outputs.recognition.engine import EMBEDDING, RecognitionEngine
from keepsight.runtime.outputs.recognition.gallery import PART, Gallery

TENSORS: tuple[str, ...] = ()


def decode(
    tensors: Mapping[str, NDArray[np.float32]],  # noqa: ARG001 - the protocol's parameters
    *,
    info: BundleInfo,
    top_k: int = 5,  # noqa: ARG001
    sizes: Sequence[tuple[int, int]] = (),  # noqa: ARG001
) -> Sequence[RecognitionOutput]:
    """Tensors alone do not tell who is known; `open_engine` looks into the gallery.

    Raises:
        BundleError: Always.
    """
    raise BundleError(
        f"A bundle of the task {info.task} was asked without its gallery.",
        expected="the engine of the bundle.",
        do="Answer pictures with keepsight.runtime.predictor.Predictor.",
    )


def summaries(info: BundleInfo) -> tuple[str, ...]:  # noqa: ARG001 - new names come every week
    """No list: whoever is enrolled tomorrow is an answer, too."""
    return ()


def open_decode(bundle: Bundle) -> tuple[tuple[str, ...], Callable[..., list[RecognitionOutput]]]:
    """The tensors of whole pictures, and what decodes them as `decode` is called, with the gallery of this bundle.

    Raises:
        BundleError: The gallery cannot be read.
    """
    gallery = Gallery.read(bundle.part(PART))

    def decode_with(tensors: Mapping[str, NDArray[np.float32]], *, top_k: int, **_: object) -> list[RecognitionOutput]:
        return [output_of([subject_of(gallery, row, box=None, top_k=top_k)]) for row in tensors[EMBEDDING]]

    return (EMBEDDING,), decode_with


def open_engine(bundle: Bundle, *, variant: str = "float", threads: int = 1) -> RecognitionEngine:
    """What answers pictures with this bundle.

    Raises:
        BundleError: A network or the gallery is missing or does not fit.
    """
    return RecognitionEngine(bundle, variant=variant, threads=threads)
