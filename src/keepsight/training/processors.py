"""The processors that this process may use, and torch working on all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from keepsight.errors import MissingExtraError


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def torch_on_all_cores(what: str, *, instead: str) -> Iterator[Any]:
    """The module ``torch``, which uses all processors inside the block and as many as before after it.

    Args:
        what: What is trained, as in "torch cannot be loaded, which detectors are trained with".
        instead: The recipe that does without torch.

    Raises:
        MissingExtraError: torch or torchvision is not installed.
    """
    try:
        import torch
        import torchvision  # noqa: F401 - of the same extra; torch without it means a broken installation
    except ImportError as error:
        raise MissingExtraError(
            f"torch cannot be loaded, which {what} trained with ({error}).",
            expected='the extra "train".',
            do=f"Run `pip install keepsight[train]`, or train with the recipe `{instead}`.",
            extra="train",
        ) from error
    threads = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        yield torch
    finally:
        torch.set_num_threads(threads)
