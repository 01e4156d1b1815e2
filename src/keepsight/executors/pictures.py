"""What is done with pictures wherever work runs: a vector, or an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from keepsight.errors import BundleError
from keepsight.runtime import decode, quality
from keepsight.runtime.preprocess import Preprocessing

if TYPE_CHECKING:
    from keepsight.runtime.bundle import Bundle
    from keepsight.runtime.predictor import Prediction

# Pictures that travel together: few enough to weigh little, enough that the way costs little.
CHUNK = 16

STORED = np.dtype("<f2")
FIGURES = np.dtype("<f4")


def embedding(onnx: bytes, preprocessing: Preprocessing) -> dict[str, bytes]:
    """What ``Embedding`` shares."""
    return {"onnx": onnx, "preprocessing": json.dumps(preprocessing.as_dict()).encode()}


class Embedding:
    """Turns a picture's file into its vector (float16) and quality figures (float32), as bytes.

    Raises:
        PictureError: The picture cannot be read.
        BundleError: The network does not run, or gives numbers beyond float16.
    """

    def __init__(self, shared: Mapping[str, bytes]) -> None:
        from keepsight.runtime.session import open_session

        self._preprocessing = Preprocessing.from_dict(json.loads(shared["preprocessing"]))
        # One picture a run, so that its vector does not depend on which others were missing with it.
        self._session = open_session(shared["onnx"], threads=1)

    def __call__(self, data: bytes) -> tuple[bytes, bytes]:
        """The vector and the figures of one picture."""
        from keepsight.runtime.predictor import embed

        image, info = decode.read(data, min_side=self._preprocessing.min_side)
        measured = quality.measure(image, info=info)
        vector = embed(self._session, self._preprocessing.apply(image)[None])[0]
        if not np.abs(vector).max(initial=0) <= np.finfo(STORED).max:
            raise BundleError(
                f"The backbone gives features up to {np.abs(vector).max():g}.",
                expected=f"finite numbers up to {np.finfo(STORED).max:g}, which float16 can hold.",
                do="Use another backbone, or scale its features down.",
            )
        figures = np.array([measured.blur, measured.brightness, measured.contrast], FIGURES)
        return vector.astype(STORED).tobytes(), figures.tobytes()


def answering(bundle: Bundle, *, top_k: int, variant: str = "float") -> dict[str, bytes]:
    """What ``Answering`` shares."""
    return {"bundle": bundle.zip_bytes(), "options": json.dumps({"top_k": top_k, "variant": variant}).encode()}


class Answering:
    """Turns a picture's file into the bundle's answer, through the code that serves it.

    Raises:
        PictureError: The picture cannot be read. BundleError: The network does not run.
    """

    def __init__(self, shared: Mapping[str, bytes]) -> None:
        from keepsight.runtime.bundle import Bundle
        from keepsight.runtime.predictor import Predictor

        options = json.loads(shared["options"])
        self._top_k = int(options["top_k"])
        self._predictor = Predictor(Bundle.from_bytes(shared["bundle"]), variant=options["variant"])

    def __call__(self, data: bytes) -> Prediction:
        """The answer to one picture."""
        return self._predictor.predict(data, top_k=self._top_k)
