"""The text of documents: lines with their places, and the fields that were learned.

A bundle of this task holds the detector as its network (output ``features``, the mean of its last map; ``probability``
of text for each pixel) and as parts ``recogniser.onnx``, ``characters.txt`` (one character a line; the space is not
listed), ``reading.json``, and where there are: ``orientation.onnx`` (which lines stand on their heads), ``fields.json``
with ``fields.npz``, and ``confidence.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from keepsight.errors import BundleError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.outputs.ocr.answer import Line, OcrOutput
from keepsight.runtime.outputs.ocr.engine import OcrEngine

__all__ = ["TENSORS", "Line", "OcrEngine", "OcrOutput", "decode", "open_engine", "summaries"]

TENSORS: tuple[str, ...] = ("probability",)


def open_engine(bundle: Bundle, *, variant: str = "float", threads: int = 1) -> OcrEngine:
    """The reader of a bundle: detector, recogniser and learned fields."""
    return OcrEngine(bundle, variant=variant, threads=threads)


def summaries(info: BundleInfo) -> tuple[str, ...]:  # noqa: ARG001 - the protocol of all tasks
    """Nothing: what a document says is free."""
    return ()


def decode(
    tensors: Mapping[str, NDArray[Any]], *, info: BundleInfo, top_k: int, sizes: Sequence[tuple[int, int]]
) -> Sequence[OcrOutput]:
    """Refused: a line is read by a second network.

    Raises:
        BundleError: Always.
    """
    raise BundleError(
        f"The detector's tensors ({', '.join(tensors)}) of {len(sizes)} pictures say where text is, not what it says.",
        expected=f'a reader of the whole bundle of the task "{info.task}" (top {top_k}).',
        do="Answer pictures with keepsight.runtime.predictor.Predictor.",
    )
