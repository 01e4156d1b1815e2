"""Reads the tensors of a torch ``.pth`` file without torch and without running what the file says.

A ``.pth`` file is a pickle that describes tensors (read by ``keepsight.zoo.unpickle``) beside raw numbers. Both
layouts of torch are read: the legacy one (magic number, protocol, system facts, pickle, storage keys, storages one
after the other) and the zip archive (``data.pkl`` with one record per storage), as ``_legacy_save`` and ``_save`` of
``torch/serialization.py`` in torch 2 write them.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import WeightsError
from keepsight.zoo.unpickle import Storage, Tensor, load, refuse

Tensors = OrderedDict[str, NDArray[Any]]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


def read(path: Path) -> Tensors:
    """The tensors of a ``.pth`` state dict by name, in the file's order: read-only float32 or int64 arrays.

    Raises:
        WeightsError: The file cannot be read, is damaged, or holds anything but a plain state dict.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"The weights file {path.name} cannot be read: {error.strerror}.",
            expected="a readable torch .pth file.",
            do="Check the path and its permissions.",
            path=str(path),
        ) from error
    return parse(data, name=path.name)


def parse(data: bytes, *, name: str = "the weights") -> Tensors:
    """Like ``read``, from bytes; ``name`` is how messages call them."""
    if data[:4] == b"PK\x03\x04":
        return _parse_zip(data, name)
    return _parse_legacy(data, name)


def _parse_legacy(data: bytes, name: str) -> Tensors:
    stream = io.BytesIO(data)
    if load(stream, name=name) != _LEGACY_MAGIC:
        refuse(name, "it does not begin with torch's magic number")
    protocol = load(stream, name=name)
    if protocol != _LEGACY_PROTOCOL:
        refuse(name, f"its torch protocol is {protocol!r}, not {_LEGACY_PROTOCOL}")
    system = load(stream, name=name)
    if type(system) is not dict or system.get("little_endian") is not True:
        refuse(name, "its numbers are not stored little-endian")
    storages: dict[str, Storage] = {}
    described = load(stream, name=name, storages=storages)
    keys = load(stream, name=name)
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages):
        refuse(name, "the storages it lists are not those that its tensors use")
    position = stream.tell()
    starts: dict[str, int] = {}
    for key in keys:
        storage = storages[key]
        start = position + 8
        position = start + storage.length * storage.dtype.itemsize
        if position > len(data):
            refuse(name, f"it is cut off: {position - len(data)} bytes or more are missing")
        if struct.unpack_from("<q", data, start - 8)[0] != storage.length:
            refuse(name, f"the storage {key} has another length than its tensors say")
        starts[key] = start
    if position != len(data):
        refuse(name, f"{len(data) - position} bytes follow its last storage")
    return _views(described, name, lambda storage: (data, starts[storage.key]))


def _parse_zip(data: bytes, name: str) -> Tensors:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = {info.filename: info for info in archive.infolist()}
            pickles = [record for record in records if record.split("/")[1:] == ["data.pkl"]]
            if len(pickles) != 1:
                refuse(name, f"it has {len(pickles)} records data.pkl, not one")
            root = pickles[0].split("/")[0]
            order = records.get(f"{root}/byteorder")
            if order is not None and _stored(archive, order, name) != b"little":
                refuse(name, "its numbers are not stored little-endian")
            storages: dict[str, Storage] = {}
            stream = io.BytesIO(_stored(archive, records[pickles[0]], name))
            described = load(stream, name=name, storages=storages)
            # Records may overlap in a forged archive; together they must not be more than the file.
            if sum(storage.length * storage.dtype.itemsize for storage in storages.values()) > len(data):
                refuse(name, "its storages are longer than the file")
            contents: dict[str, bytes] = {}
            for key, storage in storages.items():
                record = records.get(f"{root}/data/{key}")
                if record is None or record.file_size != storage.length * storage.dtype.itemsize:
                    refuse(name, f"the storage {key} is missing or has another length than its tensors say")
                contents[key] = _stored(archive, record, name)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        refuse(name, f"its zip archive is damaged ({error})", error)
    except (struct.error, ValueError, OverflowError) as error:
        refuse(name, f"its zip archive is damaged ({error})", error)
    return _views(described, name, lambda storage: (contents[storage.key], 0))


def _stored(archive: zipfile.ZipFile, record: zipfile.ZipInfo, name: str) -> bytes:
    # torch never compresses; refusing it means that no record can grow beyond the file.
    if record.compress_type != zipfile.ZIP_STORED:
        refuse(name, f"its record {record.filename} is compressed")
    return archive.read(record)


def _views(described: object, name: str, place: Callable[[Storage], tuple[bytes, int]]) -> Tensors:
    if not isinstance(described, dict):
        refuse(name, "it is not a dictionary of tensors")
    tensors: Tensors = OrderedDict()
    for key, tensor in described.items():
        if type(key) is not str or type(tensor) is not Tensor:
            refuse(name, f"its entry {str(key)[:80]!r} is not a tensor")
        buffer, start = place(tensor.storage)
        width = tensor.storage.dtype.itemsize
        try:
            tensors[key] = np.ndarray(
                tensor.shape,
                tensor.storage.dtype,
                buffer=buffer,
                offset=start + (tensor.offset * width if 0 not in tensor.shape else 0),
                strides=tuple(stride * width for stride in tensor.strides),
            )
        except (ValueError, TypeError) as error:
            # numpy checks once more that the view stays inside the bytes.
            refuse(name, f"its tensor {key[:80]!r} has an impossible shape ({error})", error)
    return tensors
