"""From decoded pictures to answers: what runs the networks of a bundle.

Most tasks look at a square view of the picture with one network (`NetworkEngine`). A task that needs more, such as
finding lines and then reading each, has an ``open_engine`` in its output module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keepsight.runtime.bundle import Bundle
from keepsight.runtime.decode import Picture
from keepsight.runtime.outputs import Output, output_module
from keepsight.runtime.session import FEATURES, check_contract, open_session, run


class Engine(Protocol):
    """Answers decoded pictures; every method may be called from several threads at once."""

    @property
    def min_side(self) -> int:
        """The shorter side, in pixels, below which decoding would lose what the networks see."""

    def prepare(self, image: Picture, size: tuple[int, int]) -> Any:
        """What `answer` takes of a picture.

        Args:
            image: RGB, uint8 (height, width, 3), perhaps reduced while it was decoded.
            size: Width and height of the picture in its file, upright; answers are in these pixels.
        """

    def answer(self, prepared: Sequence[Any], *, top_k: int) -> tuple[Sequence[Output], NDArray[np.float32]]:
        """One answer for each prepared picture, and its features (n, d), which drift is measured on.

        Args:
            prepared: At least one, as `prepare` gave them.
            top_k: How many possibilities an answer lists.

        Raises:
            BundleError: A network fails, or what it gives does not fit the bundle.
        """


def open_engine(bundle: Bundle, *, variant: str = "float", threads: int = 1) -> Engine:
    """The engine of a bundle's task.

    Raises:
        BundleError: A network does not keep the contract of `keepsight.runtime.bundle`.
        NotFoundError: The bundle's task, the variant or a part does not exist here.
    """
    own: Callable[..., Engine] | None = getattr(output_module(bundle.info.task), "open_engine", None)
    return (own or NetworkEngine)(bundle, variant=variant, threads=threads)


class NetworkEngine:
    """One network that sees one square view of each picture.

    Args:
        bundle: The model.
        variant: "float" or "int8".
        threads: Threads that one run of the network uses.
    """

    def __init__(self, bundle: Bundle, *, variant: str = "float", threads: int = 1) -> None:
        self.info = bundle.info
        self._outputs = output_module(bundle.info.task)
        self._names = (FEATURES, *self._outputs.TENSORS)
        self._session = open_session(bundle.model(variant), threads=threads)
        check_contract(self._session, size=bundle.info.preprocessing.size, outputs=self._names)

    @property
    def min_side(self) -> int:
        """As `Engine` says."""
        return self.info.preprocessing.min_side

    def prepare(self, image: Picture, size: tuple[int, int]) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """The input tensor (3, size, size), and the picture's size."""
        return self.info.preprocessing.apply(image), size

    def answer(
        self, prepared: Sequence[tuple[NDArray[np.float32], tuple[int, int]]], *, top_k: int
    ) -> tuple[Sequence[Output], NDArray[np.float32]]:
        """As `Engine` says, all pictures in one run."""
        # A single picture, the usual case, needs no copy.
        batch = prepared[0][0][None] if len(prepared) == 1 else np.stack([tensor for tensor, _ in prepared])
        tensors = run(self._session, batch, outputs=self._names)
        sizes = [size for _, size in prepared]
        return self._outputs.decode(tensors, info=self.info, top_k=top_k, sizes=sizes), tensors[FEATURES]
