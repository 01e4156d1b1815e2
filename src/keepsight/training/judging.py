"""Answers of a draft model to pictures of the material, through the code that serves it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from keepsight import tasks
from keepsight.errors import PictureError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.outputs import output_module
from keepsight.runtime.predictor import Prediction, Predictor
from keepsight.training.evaluation import EVERYTHING
from keepsight.training.processors import cores
from keepsight.training.recipes import HeldOut, Material


def judge(material: Material, bundle: Bundle, places: Sequence[int]) -> tuple[HeldOut, NDArray[np.float32]]:
    """What the bundle answers to the pictures at these places of the material, and its features (n, d).

    Rows of other places, and of pictures that cannot be read, are not judged and hold zeros. The places must be
    pictures that the bundle has not learned from.
    """
    return judged(material, bundle, answered(material, bundle, places))


def judged(
    material: Material, bundle: Bundle, answers: Sequence[tuple[int, Prediction]]
) -> tuple[HeldOut, NDArray[np.float32]]:
    """The same of answers that are there already, each with its place."""
    task = tasks.get(material.task)
    found = HeldOut.nothing(len(material.values))
    rows: list[NDArray[np.float32] | None] = [None] * len(material.values)
    names = {name: number for number, name in enumerate(output_module(material.task).summaries(bundle.info))}
    for place, prediction in answers:
        said, value = prediction.output.as_dict(), material.values[place]
        found.judged[place] = True
        found.confidence[place] = prediction.output.confidence
        found.right[place] = task.right(said, value)
        found.score[place] = task.score(said, value)
        found.predicted[place] = names.get(prediction.output.label, 0)
        rows[place] = prediction.features
    width = next((len(row) for row in rows if row is not None), 0)
    nothing = np.zeros(width, np.float32)
    features = [nothing if row is None else row for row in rows]
    return found, np.stack(features) if features else np.zeros((0, 0), np.float32)


def answered(material: Material, bundle: Bundle, places: Sequence[int]) -> list[tuple[int, Prediction]]:
    """The answers to the pictures at these places that can be read, with everything that the model considered."""
    predictor = Predictor(bundle)
    done = 0

    def answer(place: int) -> tuple[int, Prediction] | None:
        data = material.read(place)
        try:
            return None if data is None else (place, predictor.predict(data, top_k=EVERYTHING))
        except PictureError:
            return None

    found = []
    with ThreadPoolExecutor(cores()) as pool:
        for result in pool.map(answer, places):
            done += 1
            if done % 16 == 0 or done == len(places):
                material.progress({"text": "answering held-out pictures", "done": done, "total": len(places)})
            if result is not None:
                found.append(result)
    return found
