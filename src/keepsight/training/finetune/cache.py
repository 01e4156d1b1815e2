"""Activations of the frozen trunk, for each view of each picture, in float16 files that training reads piece by piece.

Height, width and channels are stored in this order, so that a window of a map is cut out without the rest, and torch
takes it as it is. Which pictures are done stands in a file of its own, written after the activations: a killed attempt
goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import StorageError, TrainingError
from keepsight.runtime.session import INPUT
from keepsight.training.finetune.views import Views

BATCH = 16
# Beside the activations: checkpoints, the trained network, room for others.
SPARE_BYTES = 200 * 1024**2
_FLUSH_EVERY = 512
_LARGEST = 65504.0

_NEW, _DONE, _UNREADABLE = 0, 1, 2


@dataclass(frozen=True)
class Cache:
    """The activations.

    Attributes:
        plain: float16 (n, height, width, channels), the view that serving sees.
        views: float16 (n, count, height, width, channels), random views; their maps may be larger than the plain ones.
        there: bool (n,), False where the picture could not be read.
    """

    plain: NDArray[np.float16]
    views: NDArray[np.float16]
    there: NDArray[np.bool_]


def size_bytes(pictures: int, *, plain: int, view: int, views: int) -> int:
    """What a cache takes on disk, from the numbers in one plain map and one random view's map."""
    return pictures * 2 * (plain + views * view)


def views_that_fit(folder: Path, pictures: int, *, plain: int, view: int, wanted: int) -> int:
    """As many of the wanted random views as the disk has room for.

    Raises:
        StorageError: Not even the plain views fit.
    """
    free = shutil.disk_usage(folder).free - SPARE_BYTES
    for views in range(wanted, -1, -1):
        if size_bytes(pictures, plain=plain, view=view, views=views) <= free:
            return views
    needed = size_bytes(pictures, plain=plain, view=view, views=0) + SPARE_BYTES
    raise StorageError(
        f"The disk of {folder} has {(free + SPARE_BYTES) / 1e9:.1f} GB left.",
        expected=f"at least {needed / 1e9:.1f} GB for what fine-tuning computes once and reads often.",
        do="Free disk space, or train with the recipe `head`.",
        needed_bytes=needed,
    )


def build(
    folder: Path,
    views: Views,
    session: Any,
    *,
    pictures: int,
    plain: tuple[int, int, int],
    view: tuple[int, int, int],
    key: Mapping[str, Any],
    threads: int,
    progress: Callable[[int], None],
) -> Cache:
    """The activations of all pictures, as far as they are not there yet.

    Args:
        folder: Where the files are, or will be.
        views: Makes the network's inputs.
        session: onnxruntime's session of the trunk.
        pictures: How many; their places are 0 to this number.
        plain: Channels, height and width of the plain view's map.
        view: Likewise of a random view's.
        key: What the activations depend on; files of another key are made anew.
        threads: For decoding.
        progress: Takes the number of pictures that are done; may raise to stop.

    Raises:
        StorageError: The disk is full.
        TrainingError: No picture can be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        files = _files(folder, pictures, views.count, plain=plain, view=view, key=key)
        _fill(files, views, session, threads=threads, progress=progress)
    except OSError as error:
        raise StorageError(
            f"Activations cannot be written to {folder}: {error.strerror}.",
            expected="a folder that can be written, with enough room.",
            do="Free disk space, or train with the recipe `head`.",
        ) from error
    maps, others, done = files
    there = np.asarray(done) == _DONE
    if not there.any():
        raise TrainingError(
            f"None of the {pictures} pictures can be read.",
            expected="pictures that are stored and whole.",
            do="Check them with `keepsight data verify`, or import them again.",
        )
    return Cache(maps, others, there)


def _files(
    folder: Path,
    pictures: int,
    count: int,
    *,
    plain: tuple[int, int, int],
    view: tuple[int, int, int],
    key: Mapping[str, Any],
) -> tuple[Any, Any, Any]:
    """The three files, empty where they are not there or were made of something else."""
    described = json.dumps({"plain": plain, "view": view, "pictures": pictures, "views": count, **key}, sort_keys=True)
    about = folder / "activations.json"
    fresh = not about.exists() or about.read_text("utf-8") != described
    if fresh:
        about.unlink(missing_ok=True)
    mode: Any = "w+" if fresh else "r+"
    channels, height, width = plain
    maps = _map(folder / "plain.f16", (pictures, height, width, channels), mode=mode)
    channels, height, width = view
    others = _map(folder / "views.f16", (pictures, count, height, width, channels), mode=mode)
    done = np.memmap(folder / "done.u8", np.uint8, mode, shape=(pictures,))
    if fresh:
        done.flush()
        about.write_text(described, "utf-8")
    return maps, others, done


def _map(path: Path, shape: tuple[int, ...], *, mode: Any) -> Any:
    if 0 in shape:
        return np.zeros(shape, np.float16)
    if mode == "w+":
        # Room on the disk is taken now: a full disk behind a memory map would end the process without a word.
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * 2)
        mode = "r+"
    return np.memmap(path, np.float16, mode, shape=shape)


def _fill(
    files: tuple[Any, Any, Any], views: Views, session: Any, *, threads: int, progress: Callable[[int], None]
) -> None:
    maps, others, done = files
    left = np.flatnonzero(np.asarray(done) == _NEW)
    parts = [left[start : start + BATCH].tolist() for start in range(0, len(left), BATCH)]
    count = len(done) - len(left)
    since = 0
    waiting: list[tuple[list[int], NDArray[np.uint8]]] = []

    def flush() -> None:
        for each in (maps, others):
            if isinstance(each, np.memmap):
                each.flush()
        for places, states in waiting:
            done[places] = states
        done.flush()
        waiting.clear()

    with ThreadPoolExecutor(threads) as pool:
        following = views.many(pool, parts[0]) if parts else None
        for number, places in enumerate(parts):
            ready = following() if following else []
            following = views.many(pool, parts[number + 1]) if number + 1 < len(parts) else None
            good = [(place, found) for place, found in zip(places, ready, strict=True) if found is not None]
            if good:
                rows = [place for place, _ in good]
                maps[rows] = _run(session, np.stack([found[0] for _, found in good]))
                if views.count:
                    seen = np.concatenate([found[1] for _, found in good])
                    parts_of = [_run(session, seen[at : at + BATCH]) for at in range(0, len(seen), BATCH)]
                    made = np.concatenate(parts_of)
                    others[rows] = made.reshape(len(rows), views.count, *made.shape[1:])
            states = np.array([_UNREADABLE if found is None else _DONE for found in ready], np.uint8)
            waiting.append((places, states))
            count += len(places)
            since += len(places)
            if since >= _FLUSH_EVERY:
                flush()
                since = 0
            progress(count)
        flush()


def _run(session: Any, images: NDArray[np.float32]) -> NDArray[np.float16]:
    """Maps with the channels last."""
    (found,) = session.run(None, {INPUT: images})
    maps: NDArray[np.float16] = np.clip(found, -_LARGEST, _LARGEST).astype(np.float16).transpose(0, 2, 3, 1)
    return maps
