"""The robustness card: the same held-out pictures darker, blurred, tilted ..., and what of the accuracy is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight import tasks
from keepsight.errors import PictureError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.decode import Picture, decode
from keepsight.runtime.predictor import Predictor
from keepsight.store.workspace import Workspace
from keepsight.tasks.intervals import wilson
from keepsight.training.corruptions import CORRUPTIONS, MOVING, Corruption
from keepsight.training.evaluation import stored
from keepsight.training.material import Part

# A large network on a slow machine looks at fewer pictures, down to the least, rather than holding up the run.
MOST_S = 30.0
LEAST_PICTURES = 60
STRENGTH = 1.0

# Each as the end of "when pictures are ...".
TEXTS: Mapping[str, str] = {
    "darker": "much darker (a third of the light)",
    "brighter": "much brighter (nearly twice the light)",
    "blurred": "blurred (out of focus)",
    "noisy": "grainy (as a phone sees at night)",
    "compressed": "strongly compressed (JPEG quality 10)",
    "rotated": "tilted (by 20 degrees)",
    "covered": "partly covered (a fifth of the picture)",
    "half_size": "half the size (detail is gone)",
}


def robustness_card(
    ws: Workspace,
    bundle: Bundle,
    part: Part,
    *,
    seed: int,
    pictures: int,
    progress: Callable[[Mapping[str, Any]], None],
    most_s: float = MOST_S,
    clock: Callable[[], float] = time.monotonic,
) -> list[dict[str, Any]]:
    """The mean score of a bundle on some pictures of a part as they are, and under each corruption at full strength.

    It is called ``accuracy``: with a class for an answer it is the share of right ones. Where annotations say where
    things are, no corruption moves them.

    At most ``pictures``, chosen by ``seed``, the same for every corruption; fewer (never below ``LEAST_PICTURES``)
    where they would take longer than ``most_s``. Pictures that cannot be read are left out. ``kept`` is the accuracy
    divided by the clean one.
    """
    threads = int(ws.config["machine.threads"] or 0) or os.cpu_count() or 1
    predictor = Predictor(bundle)
    task = tasks.get(part.task)
    corruptions = {name: each for name, each in CORRUPTIONS.items() if not (task.FIXED_PLACES and name in MOVING)}
    chosen = np.random.default_rng(seed).permutation(len(part))[:pictures]
    values = part.values
    places: list[int] = []
    scored: list[NDArray[np.float64]] = []
    began = clock()

    def judged(place: int) -> NDArray[np.float64] | None:
        data = stored(ws, part.samples[place].picture_id)
        if data is None:
            return None
        width, height = part.sizes[place].tolist()
        versions = _versions(data, predictor, corruptions, random=(seed, place))
        return (
            None
            if versions is None
            else np.array(
                [
                    task.score(output.as_dict(), values[place])
                    for output in predictor.predict_arrays(versions, size=(width, height))
                ],
                np.float64,
            )
        )

    # One picture a thread: each is decoded once and answered in all its versions as one batch.
    with ThreadPoolExecutor(threads) as pool:
        step = 4 * threads
        for start in range(0, len(chosen), step):
            if start >= LEAST_PICTURES and clock() - began > most_s:
                break
            batch = [int(place) for place in chosen[start : start + step]]
            for place, outcome in zip(batch, pool.map(judged, batch), strict=True):
                if outcome is not None:
                    places.append(place)
                    scored.append(outcome)
            progress({"text": "darker, blurred, tilted ...", "done": start + len(batch), "total": len(chosen)})
    if not places:
        return []
    table, groups = np.stack(scored), part.groups[places]
    clean = wilson(table[:, 0], groups=groups)
    card = []
    for column, name in enumerate(corruptions, 1):
        changed = wilson(table[:, column], groups=groups)
        kept = None if not clean.value or changed.value is None else changed.value / clean.value
        card.append(
            {
                "name": name,
                "text": TEXTS[name],
                "n": len(places),
                "clean": clean.as_dict(),
                "accuracy": changed.as_dict(),
                "kept": kept,
            }
        )
    return card


def _versions(
    data: bytes, predictor: Predictor, corruptions: Mapping[str, Corruption], *, random: tuple[int, int]
) -> list[Picture] | None:
    """The picture as it is and under each corruption; None where it is unreadable."""
    try:
        picture = decode(data, min_side=predictor.engine.min_side)
    except PictureError:
        return None
    versions = [picture]
    for number, corrupt in enumerate(corruptions.values()):
        versions.append(corrupt(picture, STRENGTH, np.random.default_rng([*random, number])))
    return versions
