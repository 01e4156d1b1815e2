"""Unpickles the description of a state dict, and nothing else.

An ordinary unpickler calls whatever function a pickle names. Here two guards stand in front of each other. Before
anything is loaded the opcodes are read through, and one that a state dict does not need, or a global outside the four
that it does, ends the reading. Then an unpickler whose ``find_class`` returns our own objects for these four names
builds a description of the tensors; no code that the file names is ever looked up. Our objects have no writable
attributes, so the pickle cannot change them either.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from typing import Any, NamedTuple, NoReturn, TypeGuard

import numpy as np

from keepsight.errors import WeightsError

_MAX_DIMENSIONS = 8
_MAX_COUNT = 2**40  # so that no product of a count and an item size leaves int64

# What torch writes for a state dict in both layouts, with pickle protocol 2: opcodes with the bytes of their argument.
_FIXED = {
    **dict.fromkeys((pickle.MARK, pickle.STOP, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE), 0),
    **dict.fromkeys((pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3), 0),
    **dict.fromkeys((pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS), 0),
    **dict.fromkeys((pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS), 0),
    **dict.fromkeys((pickle.REDUCE, pickle.BUILD, pickle.BINPERSID), 0),
    **dict.fromkeys((pickle.PROTO, pickle.BININT1, pickle.BINPUT, pickle.BINGET), 1),
    pickle.BININT2: 2,
    **dict.fromkeys((pickle.BININT, pickle.LONG_BINPUT, pickle.LONG_BINGET), 4),
}
# Opcodes whose argument begins with its own length, with the bytes of that length.
_COUNTED = {pickle.LONG1: 1, pickle.BINUNICODE: 4}

# Bad pickles fail in these ways inside the unpickler.
_UNPICKLING_FAILURES = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
)


class _StorageType(NamedTuple):
    dtype: str


class Storage(NamedTuple):
    """A run of ``length`` numbers that tensors are cut from."""

    key: str
    dtype: np.dtype[Any]
    length: int


class Tensor(NamedTuple):
    """Where a tensor lies in its storage; offset and strides count numbers, not bytes. It lies inside, checked."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Mapping(OrderedDict[Any, Any]):
    """Stands for OrderedDict; the attributes that torch attaches (``_metadata``) are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


class _MakeMapping:
    """Stands for the class ``collections.OrderedDict``, of which a state dict only makes empty ones."""

    __slots__ = ()

    def __call__(self) -> _Mapping:
        return _Mapping()


class _RebuildTensor:
    """Stands for ``torch._utils._rebuild_tensor_v2``: notes shape and place of a tensor after checking both."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> Tensor:
        # storage, offset, shape, strides, then requires_grad, backward hooks and metadata, which weights do not need
        if len(arguments) not in (6, 7):
            raise ValueError("a tensor described by another number of facts")
        storage, offset, shape, strides = arguments[:4]
        if type(storage) is not Storage or not _is_count(offset):
            raise ValueError("a tensor without a storage")
        if not _are_counts(shape) or not _are_counts(strides) or len(shape) != len(strides):
            raise ValueError("a tensor whose shape and strides are not counts")
        if len(shape) > _MAX_DIMENSIONS:
            raise ValueError(f"a tensor of {len(shape)} dimensions")
        elements = 1
        for size in shape:
            elements *= size
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        # More elements than the storage has would be numbers repeated by stride 0: no weight is stored like that.
        if elements > storage.length or (elements > 0 and last >= storage.length):
            raise ValueError(f"a tensor of shape {shape} that reaches outside its storage of {storage.length} numbers")
        return Tensor(storage, offset, shape, strides)


_GLOBALS: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): _MakeMapping(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch", "FloatStorage"): _StorageType("<f4"),
    ("torch", "LongStorage"): _StorageType("<i8"),
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows four names, all of them ours, and nothing else."""

    def __init__(self, stream: io.BytesIO, storages: dict[str, Storage] | None) -> None:
        super().__init__(stream)
        self._storages = storages

    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the global {module}.{name}") from None

    def persistent_load(self, pid: object, /) -> Storage:
        if self._storages is None:
            raise pickle.UnpicklingError("a persistent id outside the tensors")
        return _storage(pid, self._storages)


def load(stream: io.BytesIO, *, name: str, storages: dict[str, Storage] | None = None) -> Any:
    """What one pickle of ``stream`` describes, with a `Tensor` for each tensor; the stream then stands behind it.

    Args:
        stream: Bytes of the file.
        name: What messages call the file.
        storages: Filled with the storages that the tensors use, by key; without it no tensor may be described.

    Raises:
        WeightsError: The pickle is damaged or asks for anything outside a state dict.
    """
    start = stream.tell()
    _scan(stream, name)
    end = stream.tell()
    stream.seek(start)
    part = io.BytesIO(stream.read(end - start))
    try:
        return _Unpickler(part, storages).load()
    except _UNPICKLING_FAILURES as error:
        refuse(name, f"its pickle does not describe a state dict ({error})", error)


def _storage(pid: object, storages: dict[str, Storage]) -> Storage:
    """The storage that a persistent id names: ``("storage", type, key, device, count[, view])``."""
    if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
        raise ValueError("a persistent id that names no storage")
    kind, key, _device, count = pid[1:5]
    if type(kind) is not _StorageType or type(key) is not str or not _is_count(count):
        raise ValueError("a storage without type, key or length")
    if len(pid) == 6 and pid[5] is not None:
        raise ValueError("a storage that is a view of another")
    storage = Storage(key, np.dtype(kind.dtype), count)
    if storages.setdefault(key, storage) != storage:
        raise ValueError(f"two different storages under the key {key}")
    return storage


def _scan(stream: io.BytesIO, name: str) -> None:
    """Moves behind one pickle; refuses an opcode or a global that a state dict does not need. Nothing is built."""
    index = 0
    code = b""
    while code != pickle.STOP:
        index += 1
        code = stream.read(1)
        if code in _FIXED:
            argument = _exactly(stream, _FIXED[code], name)
            # The C unpickler allocates its memo up to the highest number that is asked for.
            if code in {pickle.BINPUT, pickle.LONG_BINPUT} and int.from_bytes(argument, "little") > index:
                refuse(name, "its pickle numbers more objects than it has")
        elif code in _COUNTED:
            _exactly(stream, int.from_bytes(_exactly(stream, _COUNTED[code], name), "little"), name)
        elif code == pickle.GLOBAL:
            module, attribute = (stream.readline(200).decode("ascii", "replace").rstrip("\n") for _ in range(2))
            if (module, attribute) not in _GLOBALS:
                refuse(name, f"it asks for the global {module}.{attribute}")
        elif not code:
            refuse(name, "its pickle is cut off")
        else:
            refuse(name, f"it uses the pickle opcode {_opcode_name(code)}")


def _exactly(stream: io.BytesIO, count: int, name: str) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        refuse(name, "its pickle is cut off")
    return data


def _opcode_name(code: bytes) -> str:
    names = (opcode.name for opcode in pickletools.opcodes if opcode.code == code.decode("latin-1"))
    return next(names, f"0x{code.hex()}")


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MAX_COUNT


def _are_counts(values: object) -> TypeGuard[tuple[int, ...]]:
    return type(values) is tuple and all(_is_count(value) for value in values)


def refuse(name: str, reason: str, cause: Exception | None = None) -> NoReturn:
    """Raises the error that calls the file unusable for ``reason``."""
    raise WeightsError(
        f"{name} is not usable as pretrained weights: {reason}.",
        expected="a torch state dict (names and float32 or int64 tensors) in a .pth file; files with code are refused.",
        do="Fetch the file again, or save it with torch.save(model.state_dict(), path).",
        reason=reason,
    ) from cause
