"""Pictures as the network's input: the view that serving sees, and random ones, from one decoding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import PictureError
from keepsight.runtime.decode import decode
from keepsight.runtime.preprocess import Preprocessing
from keepsight.training.augment import Augmenter

# Cut-outs of a third of the area still have about the network's resolution.
_SURPLUS = 1.7


@dataclass(frozen=True)
class Views:
    """What is seen of one picture.

    Attributes:
        preprocessing: Of serving.
        augmenter: For the random views.
        count: Random views of a picture.
        seed: With the picture's place and the view's number it decides a view.
        read: The stored bytes of the picture at a place; None where it cannot be read.
    """

    preprocessing: Preprocessing
    augmenter: Augmenter
    count: int
    seed: int
    read: Callable[[int], bytes | None]

    def plain(self, place: int) -> NDArray[np.float32] | None:
        """The view that serving sees, float32 (3, size, size); None where the picture cannot be read."""
        data = self.read(place)
        try:
            return None if data is None else self.preprocessing.from_bytes(data)[0]
        except PictureError:
            return None

    def of(self, place: int) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """The plain view, and the random ones (count, 3, size, size) of the augmenter's size."""
        data = self.read(place)
        if data is None:
            return None
        try:
            tensor, _ = self.preprocessing.from_bytes(data)
            if not self.count:
                side = self.augmenter.size
                return tensor, np.zeros((0, 3, side, side), np.float32)
            picture = decode(data, min_side=math.ceil(self.augmenter.size * _SURPLUS))
        except PictureError:
            return None
        square = replace(self.preprocessing, size=self.augmenter.size, crop=1.0)
        return tensor, np.stack([square.apply(self.one(picture, place, number)) for number in range(self.count)])

    def one(self, picture: NDArray[np.uint8], place: int, number: int) -> NDArray[np.uint8]:
        """The random view of that number."""
        return self.augmenter.view(picture, np.random.default_rng((self.seed, place, number)))

    def many(
        self, pool: ThreadPoolExecutor, places: Sequence[int]
    ) -> Callable[[], list[tuple[NDArray[np.float32], NDArray[np.float32]] | None]]:
        """Begins with these pictures in the pool; the call that comes back waits for them."""
        begun = [pool.submit(self.of, place) for place in places]
        return lambda: [future.result() for future in begun]
