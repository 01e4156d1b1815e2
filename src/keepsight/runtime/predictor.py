"""A bundle answering pictures: decode, judge the quality, run the network, decide between "auto" and "review"."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from keepsight.errors import PictureError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.decode import DEFAULT_LIMITS, Limits, Picture, PictureInfo, read
from keepsight.runtime.engine import open_engine
from keepsight.runtime.outputs import Output
from keepsight.runtime.quality import Quality, measure, reasons
from keepsight.runtime.session import FEATURES, run

Decision = Literal["auto", "review"]

# Pictures per run of the network in the methods that take many. Larger batches are not faster on a CPU.
_BATCH = 16


@dataclass(frozen=True)
class Prediction:
    """A model's answer to one picture, and what else was learnt about the picture on the way.

    Attributes:
        output: The answer, of the task's type.
        features: float32 (d,), the network's view of the picture; drift and novelty are measured on it.
        quality: Sharpness, brightness, contrast and size.
        quality_reasons: Codes of `keepsight.runtime.quality.REASON_TEXTS`; empty where the quality is fine.
        info: Format and size of the picture.
        timings_ms: "decode" (decoding, quality, preprocessing) and "model"; in a batch the picture's share.
        decision: "auto" where the answer may be used as it is, "review" where a person should look.
    """

    output: Output
    features: NDArray[np.float32]
    quality: Quality
    quality_reasons: tuple[str, ...]
    info: PictureInfo
    timings_ms: dict[str, float]
    decision: Decision

    def as_dict(self) -> dict[str, Any]:
        """All but the features as JSON takes it; the answer's own entries stand at the top level."""
        return {
            **self.output.as_dict(),
            "decision": self.decision,
            "quality": self.quality.as_dict(),
            "quality_reasons": list(self.quality_reasons),
            "timings_ms": {name: round(value, 3) for name, value in self.timings_ms.items()},
        }


@dataclass(frozen=True)
class _Prepared:
    item: Any
    quality: Quality
    info: PictureInfo
    decode_ms: float


class Predictor:
    """Answers pictures with one bundle; every method may be called from several threads at once.

    Args:
        bundle: The model.
        threads: Threads that one run of the network uses.
        pool: How many calls work at once; further ones wait. None leaves that to the caller's own pool of threads.
        variant: "float" or "int8". Their features must not be compared with each other.
        limits: The largest picture taken.

    Raises:
        BundleError: The network does not keep the contract of `keepsight.runtime.bundle`.
        NotFoundError: The bundle's task or the variant does not exist here.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 1,
        pool: int | None = None,
        variant: str = "float",
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.bundle = bundle
        self.info = bundle.info
        self.variant = variant
        self._limits = limits
        self.engine = open_engine(bundle, variant=variant, threads=threads)
        self._slots: AbstractContextManager[Any] = threading.BoundedSemaphore(pool) if pool else nullcontext()

    def predict(self, data: bytes, *, top_k: int = 5) -> Prediction:
        """The answer to the picture in the file `data`, with up to `top_k` possibilities.

        Raises:
            PictureError: The picture cannot be read.
        """
        with self._slots:
            return self._answer([self._prepare(data)], top_k=top_k)[0]

    def predict_many(self, pictures: Sequence[bytes], *, top_k: int = 5) -> list[Prediction | PictureError]:
        """The answers to many pictures in their order; where one cannot be read, its error stands in its place."""
        results: list[Prediction | PictureError] = []
        for prepared in self._batches(pictures):
            good = [item for item in prepared if isinstance(item, _Prepared)]
            with self._slots:
                answers = iter(self._answer(good, top_k=top_k) if good else [])
            results += [item if isinstance(item, PictureError) else next(answers) for item in prepared]
        return results

    def features(self, pictures: Sequence[bytes]) -> list[NDArray[np.float32] | PictureError]:
        """The feature vector float32 (d,) of each picture, or its error where it cannot be read."""
        return [
            answer if isinstance(answer, PictureError) else answer.features
            for answer in self.predict_many(pictures, top_k=1)
        ]

    def predict_arrays(
        self, pictures: Sequence[Picture], *, top_k: int = 5, size: tuple[int, int] | None = None
    ) -> list[Output]:
        """The answers to decoded RGB pictures, uint8 (height, width, 3), of any size, in their order.

        A picture decoded with the engine's ``min_side`` gets the answer that its file gets.

        Args:
            pictures: The pictures.
            top_k: How many possibilities an answer lists.
            size: Width and height in whose pixels places are answered; those of each array when not given.
        """
        results: list[Output] = []
        for start in range(0, len(pictures), _BATCH):
            with self._slots:
                batch = [
                    self.engine.prepare(image, size or (image.shape[1], image.shape[0]))
                    for image in pictures[start : start + _BATCH]
                ]
                results += self.engine.answer(batch, top_k=top_k)[0]
        return results

    def warm(self) -> None:
        """Answers an empty picture, so that the first real one is answered as fast as the others."""
        side = max(1, self.engine.min_side)
        self.predict_arrays([np.zeros((side, side, 3), np.uint8)], top_k=1)

    def _batches(self, pictures: Sequence[bytes]) -> Iterator[list[_Prepared | PictureError]]:
        for start in range(0, len(pictures), _BATCH):
            prepared: list[_Prepared | PictureError] = []
            for data in pictures[start : start + _BATCH]:
                try:
                    with self._slots:
                        prepared.append(self._prepare(data))
                except PictureError as error:
                    prepared.append(error)
            yield prepared

    def _prepare(self, data: bytes) -> _Prepared:
        start = time.perf_counter()
        image, info = read(data, min_side=self.engine.min_side, limits=self._limits)
        quality = measure(image, info=info)
        item = self.engine.prepare(image, (info.width, info.height))
        return _Prepared(item, quality, info, (time.perf_counter() - start) * 1000)

    def _answer(self, prepared: Sequence[_Prepared], *, top_k: int) -> list[Prediction]:
        start = time.perf_counter()
        outputs, features = self.engine.answer([each.item for each in prepared], top_k=top_k)
        model_ms = (time.perf_counter() - start) * 1000 / len(prepared)
        return [
            self._judge(each, output, features=row, model_ms=model_ms)
            for each, output, row in zip(prepared, outputs, features, strict=True)
        ]

    def _judge(
        self, prepared: _Prepared, output: Output, *, features: NDArray[np.float32], model_ms: float
    ) -> Prediction:
        broken = reasons(prepared.quality, limits=self.info.quality_limits)
        sure = output.confidence >= self.info.auto_threshold
        return Prediction(
            output=output,
            features=features,
            quality=prepared.quality,
            quality_reasons=broken,
            info=prepared.info,
            timings_ms={"decode": prepared.decode_ms, "model": model_ms},
            decision="auto" if sure and not broken else "review",
        )


def embed(session: ort.InferenceSession, tensors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Feature vectors float32 (n, d) for input `tensors` (n, 3, size, size).

    The vectors do not depend on what else is in the batch, except for the rounding of float32 (below 1e-4).
    """
    features: NDArray[np.float32] = run(session, tensors, outputs=(FEATURES,))[FEATURES]
    return features
