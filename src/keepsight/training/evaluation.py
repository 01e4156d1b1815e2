"""What a bundle answers on a data set's pictures, through the code that serves it.

Where a bundle's features are the index vectors that are there already (its backbone and preprocessing are those of the
vectors), only the part of its graph after ``features`` runs; any other bundle looks at the pictures again. Vectors are
float16, so the two ways agree to about 1e-3 in the logits.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight import executors, tasks
from keepsight.errors import DataError, IntegrityError, KeepsightError, NotFoundError, PictureError, StorageError
from keepsight.executors import pictures
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.outputs import Output, output_module
from keepsight.runtime.predictor import Predictor
from keepsight.runtime.session import FEATURES, open_session
from keepsight.store.workspace import Workspace
from keepsight.training.material import Part
from keepsight.zoo.backbone import Backbone

BATCH = 64
LATENCY_PICTURES = 24
EVERYTHING = 1000
"""Possibilities that an answer lists where all that the model considered counts."""


@dataclass(frozen=True)
class Answers:
    """A bundle's answers on the pictures of a part, in its order; None where a picture cannot be read any more.

    ``features`` are the bundle's own, float32 (n, d); a row of zeros stands for a picture that cannot be read.
    """

    outputs: tuple[Output | None, ...]
    features: NDArray[np.float32]

    @cached_property
    def predictions(self) -> list[dict[str, Any] | None]:
        """The answers as the task reads them."""
        return [None if output is None else output.as_dict() for output in self.outputs]

    @property
    def there(self) -> NDArray[np.bool_]:
        """Which pictures were answered, bool (n,)."""
        return np.array([output is not None for output in self.outputs], np.bool_)

    def scores(self, part: Part) -> NDArray[np.float64]:
        """How right each answer is, 0 to 1, as the task says; an unreadable picture counts as wrong."""
        task = tasks.get(part.task)
        both = zip(self.predictions, part.values, strict=True)
        return np.array([0.0 if said is None else task.score(said, value) for said, value in both], np.float64)

    def right(self, part: Part) -> NDArray[np.bool_]:
        """Whether nothing of each answer needs correcting; an unreadable picture counts as wrong."""
        task = tasks.get(part.task)
        both = zip(self.predictions, part.values, strict=True)
        return np.array([said is not None and task.right(said, value) for said, value in both], np.bool_)

    def confidence(self) -> NDArray[np.float64]:
        """The confidence of each answer; 0 for an unreadable picture."""
        return np.array([0.0 if output is None else output.confidence for output in self.outputs], np.float64)

    def predicted(self, bundle: Bundle) -> NDArray[np.int64]:
        """The place of each answer among all that the bundle's answers can be; 0 where they cannot be listed."""
        names = {name: place for place, name in enumerate(output_module(bundle.info.task).summaries(bundle.info))}
        return np.array([0 if output is None else names.get(output.label, 0) for output in self.outputs], np.int64)


def answers(
    ws: Workspace,
    bundle: Bundle,
    part: Part,
    *,
    backbone: Backbone,
    progress: Callable[[Mapping[str, Any]], None],
    variant: str = "float",
) -> Answers:
    """The bundle's answers on all pictures of a part, whose vectors are those of ``backbone``."""
    if not len(part):
        return Answers((), np.zeros((0, 0), np.float32))
    # The 8-bit network has features of its own.
    if variant == "float" and shares_features(bundle, backbone):
        return Answers(tuple(_from_vectors(bundle, part)), part.features)
    return _from_pictures(ws, bundle, part, variant=variant, progress=progress)


def answerable(part: Part, labels: Sequence[str]) -> Part:
    """The pictures of which a model with these classes could answer all; all of them where it has no classes."""
    known = set(labels)
    places = [place for place, names in enumerate(part.classes) if not known or known.issuperset(names)]
    return part.take(np.array(places, np.int64))


def shares_features(bundle: Bundle, backbone: Backbone) -> bool:
    """Whether the bundle's ``features`` are the backbone's index vectors."""
    info = bundle.info
    return (
        info.backbone is not None
        and info.backbone.digest == backbone.digest
        and info.preprocessing == backbone.preprocessing
        and info.extra.get("frozen_backbone") is True
    )


def median_latency_ms(ws: Workspace, bundle: Bundle, part: Part, *, variant: str = "float") -> float:
    """Median time of one picture, decoding included, one thread, on this machine now.

    Raises:
        DataError: No picture of the part can be read.
    """
    predictor = Predictor(bundle, variant=variant)
    predictor.warm()
    taken = []
    for sample in part.samples[:LATENCY_PICTURES]:
        data = stored(ws, sample.picture_id)
        if data is None:
            continue
        began = time.perf_counter()
        predictor.predict(data)
        taken.append((time.perf_counter() - began) * 1000)
    if not taken:
        raise DataError(
            "None of the pictures for measuring the latency can be read.",
            expected="stored pictures.",
            do="Check the blob store, or unset gate.max_latency_ms.",
        )
    return statistics.median(taken)


def tail(model: bytes, *, outputs: tuple[str, ...]) -> bytes:
    """The part of a bundle's graph from ``features`` to its ``outputs``, as a graph of its own."""
    import onnx
    from onnx.utils import Extractor

    part = Extractor(onnx.load_from_string(model)).extract_model([FEATURES], list(outputs))
    return bytes(part.SerializeToString())


def _from_vectors(bundle: Bundle, part: Part) -> list[Output]:
    module = output_module(bundle.info.task)
    # A task whose answers rest on more than tensors opens what it needs once, and names the tensors that it wants.
    opened = getattr(module, "open_decode", None)
    names, decode = (module.TENSORS, module.decode) if opened is None else opened(bundle)
    session = open_session(tail(bundle.model(), outputs=names))
    found: list[Output] = []
    for start in range(0, len(part), BATCH):
        tensors = session.run(list(names), {FEATURES: part.features[start : start + BATCH]})
        sizes = [(int(width), int(height)) for width, height in part.sizes[start : start + BATCH]]
        found += decode(dict(zip(names, tensors, strict=True)), info=bundle.info, top_k=EVERYTHING, sizes=sizes)
    return found


def _from_pictures(
    ws: Workspace, bundle: Bundle, part: Part, *, variant: str, progress: Callable[[Mapping[str, Any]], None]
) -> Answers:
    outputs: list[Output | None] = []
    features: list[NDArray[np.float32] | None] = []
    shared = pictures.answering(bundle, top_k=EVERYTHING, variant=variant)
    with executors.of(ws.config) as executor:
        found = executor.map(
            pictures.Answering,
            [sample.picture_id for sample in part.samples],
            shared=shared,
            load=ws.blobs.get,
            chunk=pictures.CHUNK,
        )
        for answer in found:
            if isinstance(answer, KeepsightError):
                if not _costs_one(answer):
                    raise answer
                outputs.append(None)
                features.append(None)
            else:
                outputs.append(answer.output)
                features.append(answer.features)
            if len(outputs) % BATCH == 0 or len(outputs) == len(part):
                progress({"text": "answering the held-out pictures", "done": len(outputs), "total": len(part)})
    width = next((len(row) for row in features if row is not None), 0)
    nothing = np.zeros(width, np.float32)
    return Answers(tuple(outputs), np.stack([nothing if row is None else row for row in features]))


def stored(ws: Workspace, picture_id: str) -> bytes | None:
    """The picture's bytes; None where it was erased, or its object is gone or damaged."""
    try:
        return ws.blobs.get(picture_id)
    except KeepsightError as error:
        if not _costs_one(error):
            raise
        return None


def _costs_one(error: KeepsightError) -> bool:
    """Whether the error is one picture's own: erased, damaged, unreadable; a store that is away stops the work."""
    lost = isinstance(error, StorageError) and isinstance(error.__cause__, FileNotFoundError)
    return lost or isinstance(error, (PictureError, NotFoundError, IntegrityError))
