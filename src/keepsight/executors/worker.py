"""What runs in a worker process of a cluster: prepares the work once and handles chunk after chunk."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from keepsight.errors import ConflictError, KeepsightError

# What decides a picture's features and answers; they must be the same everywhere, or results would depend on the place.
SAME_EVERYWHERE = ("keepsight", "numpy", "onnxruntime", "simplejpeg", "pillow")

# Works that stay prepared in one process: a challenger and a champion are asked by turns.
PREPARED = 2

_prepared: OrderedDict[str, Callable[[Any], Any]] = OrderedDict()


def versions() -> dict[str, str]:
    """The versions in this process of what decides results; "missing" where it is not installed."""
    return {name: _version(name) for name in SAME_EVERYWHERE}


def check_versions(expected: Mapping[str, str], *, place: str) -> None:
    """Refuses to work with other versions than those of the process that asks.

    Raises:
        ConflictError: Names what differs.
    """
    found = versions()
    different = [name for name in SAME_EVERYWHERE if found[name] != expected[name]]
    if different:
        raise ConflictError(
            f"The machine {place} of the Ray cluster has {', '.join(f'{name} {found[name]}' for name in different)}.",
            expected=f"{', '.join(f'{name} {expected[name]}' for name in different)}, as on this machine.",
            do="Install the same versions on every machine of the cluster, then restart Ray there.",
        )


def prepared(key: str) -> bool:
    """Whether this process has the work of that name ready."""
    return key in _prepared


def prepare(key: str, reference: tuple[str, str], shared: Mapping[str, bytes]) -> None:
    """Makes the work of that name ready in this process.

    Raises:
        KeepsightError: The work refuses what is shared.
    """
    module, name = reference
    work: Any = importlib.import_module(module)
    for part in name.split("."):
        work = getattr(work, part)
    ready = work(shared)
    while len(_prepared) >= PREPARED:
        _prepared.popitem(last=False)
    _prepared[key] = ready


def handle(key: str, items: Sequence[Any]) -> list[Any]:
    """The results of a chunk; a ``KeepsightError`` of an item stands in its place."""
    _prepared.move_to_end(key)
    ready = _prepared[key]
    results: list[Any] = []
    for item in items:
        try:
            results.append(ready(item))
        except KeepsightError as error:
            results.append(error)
    return results


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
