"""Runs recognition: one vector for the whole picture, or one for each face in it, looked up in the gallery.

A bundle with a part ``embedder.onnx`` looks for faces: its ``model.onnx`` is the detector. Any other one sees the whole
picture: its ``model.onnx`` gives ``embedding`` besides ``features``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import PictureError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.decode import Picture
from keepsight.runtime.outputs.recognition import faces
from keepsight.runtime.outputs.recognition.answers import RecognitionOutput, output_of, subject_of
from keepsight.runtime.outputs.recognition.gallery import PART, Gallery
from keepsight.runtime.session import FEATURES, check_contract, open_session, run

EMBEDDER = "embedder.onnx"
EMBEDDING = "embedding"
CELLS = "faces"
# Names what a vector means; counts up when the same picture would give another one.
CODE_VERSION = 1
# Decoded no smaller than this, so that the faces of a group keep their pixels.
FACES_MIN_SIDE = 1080
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class View:
    """Something in a picture that can be looked up: its vector (d,), and its box where it is a part of the picture."""

    vector: NDArray[np.float32]
    box: Box | None


@dataclass(frozen=True)
class Seen:
    """What one picture shows: its views, the features of the network, and the best score of what may be a face."""

    views: tuple[View, ...]
    features: NDArray[np.float32]
    best_score: float = 1.0


class RecognitionEngine:
    """Answers pictures with a bundle; may be used from several threads at once.

    Args:
        bundle: The model.
        variant: "float" or "int8", of ``model.onnx``.
        threads: Threads that one run of a network uses.

    Raises:
        BundleError: The networks do not keep the contract, or there is no gallery.
    """

    def __init__(self, bundle: Bundle, *, variant: str = "float", threads: int = 1) -> None:
        self._info = bundle.info
        self.gallery = Gallery.read(bundle.part(PART))
        self.finds_faces = EMBEDDER in bundle.parts
        size = self._info.preprocessing.size
        self._names = (FEATURES, CELLS if self.finds_faces else EMBEDDING)
        self._session = open_session(bundle.model(variant), threads=threads)
        check_contract(self._session, size=size, outputs=self._names)
        self._embedder = None
        if self.finds_faces:
            self._embedder = open_session(bundle.part(EMBEDDER), threads=threads)
            check_contract(self._embedder, size=faces.FACE_SIZE, outputs=(FEATURES,))
            # Once, so that the first face is answered as fast as the others: an empty picture shows none.
            run(self._embedder, np.zeros((1, 3, faces.FACE_SIZE, faces.FACE_SIZE), np.float32), outputs=(FEATURES,))
        self.space = space_of(bundle, variant=variant)

    @property
    def min_side(self) -> int:
        """The shorter side, in pixels, below which decoding would lose what the networks see."""
        own = self._info.preprocessing.min_side
        return max(own, FACES_MIN_SIDE) if self.finds_faces else own

    def prepare(self, image: Picture, size: tuple[int, int]) -> Any:
        """What `answer` takes for a decoded picture whose original has ``size`` (width, height)."""
        return _Prepared(self._info.preprocessing.apply(image), image if self.finds_faces else None, size)

    def answer(self, prepared: Sequence[Any], *, top_k: int) -> tuple[Sequence[RecognitionOutput], NDArray[np.float32]]:
        """The answers, and the features (n, d) that drift is measured on."""
        seen = self.see(prepared)
        outputs = [
            output_of(
                [subject_of(self.gallery, view.vector, box=view.box, top_k=top_k) for view in item.views],
                sure_of_none=1 - item.best_score,
            )
            for item in seen
        ]
        return outputs, np.stack([item.features for item in seen])

    def see(self, prepared: Sequence[Any]) -> list[Seen]:
        """The views in each picture, not yet looked up."""
        tensors = run(self._session, np.stack([item.tensor for item in prepared]), outputs=self._names)
        if not self.finds_faces:
            return [
                Seen((View(vector, None),), features)
                for vector, features in zip(tensors[EMBEDDING], tensors[FEATURES], strict=True)
            ]
        return [
            self._faces(item, cells, features)
            for item, cells, features in zip(prepared, tensors[CELLS], tensors[FEATURES], strict=True)
        ]

    def view_to_enrol(self, image: Picture, size: tuple[int, int]) -> View:
        """The one view in a picture of somebody, or something, that is to be enrolled.

        Raises:
            PictureError: There is no face in it, or more than one.
        """
        views = self.see([self.prepare(image, size)])[0].views
        if not views:
            raise PictureError(
                "There is no face in the picture.",
                expected="one face, turned to the camera and at least 40 pixels wide.",
                do="Take the picture again with the face well lit and in full view.",
                faces=0,
            )
        if len(views) > 1:
            raise PictureError(
                f"There are {len(views)} faces in the picture.",
                expected="one face, that of the person who is enrolled.",
                do="Cut the picture to the one person, or take another one.",
                faces=len(views),
            )
        return views[0]

    def _faces(self, prepared: _Prepared, cells: NDArray[np.float32], features: NDArray[np.float32]) -> Seen:
        found, best = faces.found_in(cells, size=self._info.preprocessing.size)
        if not found or prepared.image is None or self._embedder is None:
            return Seen((), features, best)
        height, width = prepared.image.shape[:2]
        scale_x, scale_y, left, top = self._info.preprocessing.place((width, height))
        # From the detector's input to the decoded picture, and from there to the original one.
        per_input = np.array([scale_x, scale_y])
        shift = np.array([left, top])
        cut = [faces.aligned(prepared.image, (face.landmarks - shift) / per_input) for face in found]
        vectors = run(self._embedder, np.stack(cut), outputs=(FEATURES,))[FEATURES]
        grow = np.array([prepared.size[0] / width, prepared.size[1] / height])
        views = []
        for face, vector in zip(found, vectors, strict=True):
            corners = (face.box.reshape(2, 2) - shift) / per_input * grow
            corners = np.clip(corners, 0, prepared.size)
            x1, y1, x2, y2 = (round(float(value), 1) for value in corners.ravel())
            views.append(View(vector, (x1, y1, x2, y2)))
        return Seen(tuple(views), features, best)


@dataclass(frozen=True)
class _Prepared:
    tensor: NDArray[np.float32]
    image: Picture | None
    size: tuple[int, int]


def space_of(bundle: Bundle, *, variant: str = "float") -> str:
    """The name (64 hex digits) of what the bundle's networks compute: vectors of two spaces must not be compared."""
    whole = hashlib.sha256(f"recognition {CODE_VERSION} {bundle.info.preprocessing.digest}".encode())
    whole.update(bundle.model(variant))
    if EMBEDDER in bundle.parts:
        whole.update(bundle.part(EMBEDDER))
    return whole.hexdigest()
