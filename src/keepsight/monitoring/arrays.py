"""Monitoring state as bytes: named arrays in NumPy's own format, never a pickle."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import BadInputError


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The arrays as one compressed ``.npz``."""
    buffer = io.BytesIO()
    # One by one: savez would take a name like "file" for its own argument.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def unpack(data: bytes, names: set[str]) -> dict[str, NDArray[Any]]:
    """The arrays that ``pack`` wrote.

    Raises:
        BadInputError: The bytes are damaged or lack one of ``names``.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(str(error)) from error
    missing = sorted(names - arrays.keys())
    if missing:
        raise _unreadable(f"it lacks {', '.join(missing)}")
    return arrays


def _unreadable(why: str) -> BadInputError:
    return BadInputError(
        f"A stored monitoring state cannot be read: {why}.",
        expected="the bytes that its state() gave.",
        do="Begin a new monitor; alarms already stored are not lost.",
    )
