"""Reads a frozen TensorFlow graph (``GraphDef``) without TensorFlow: nodes, attributes and constant tensors.

Only the fields that convolutional networks need are understood; everything else in the file is skipped. Field numbers
are those of ``graph.proto``, ``node_def.proto``, ``attr_value.proto`` and ``tensor.proto`` of TensorFlow 1 and 2, and
the encoding is the wire format of protocol buffers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import WeightsError

_TYPES: dict[int, Any] = {1: np.float32, 3: np.int32, 9: np.int64, 10: np.bool_}
# Field of tensor.proto that holds the values of a type where they do not stand in ``tensor_content``.
_VALUES = {1: 5, 3: 7, 9: 10, 10: 11}
_LARGEST_TENSOR = 100_000_000


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: Its name, which is also that of its first output.
        op: What it does, such as "Conv2D".
        inputs: Names of the nodes that it takes, without output numbers and control inputs.
        strides: Of a convolution, in height and width.
        padding: Of a convolution: "SAME", "VALID" or empty.
        value: Of a constant.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    strides: tuple[int, int] = (1, 1)
    padding: str = ""
    value: NDArray[Any] | None = field(default=None, repr=False)


def read(data: bytes) -> dict[str, Node]:
    """The nodes of a serialised ``GraphDef`` by name.

    Raises:
        WeightsError: The bytes are no such graph.
    """
    try:
        nodes = [_node(bytes(content)) for number, content in _fields(data) if number == 1]
    except (ValueError, IndexError, TypeError, struct.error, KeyError, OverflowError) as error:
        raise WeightsError(
            f"The file is no TensorFlow graph that can be read ({error}).",
            expected="a frozen graph, as TensorFlow's detection models have it (frozen_inference_graph.pb).",
            do="Fetch the weights again.",
        ) from error
    return {node.name: node for node in nodes}


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field: bytes, a whole number, or the raw bytes of a fixed-size number."""
    place, end = 0, len(data)
    while place < end:
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if kind == 2:
            length, place = _varint(data, place)
        elif kind in {1, 5}:
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place + length > end:
            raise ValueError("it is cut off")
        yield key >> 3, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _node(data: bytes) -> Node:
    name = op = ""
    inputs: list[str] = []
    attributes: dict[str, bytes] = {}
    for number, content in _fields(data):
        if number == 1:
            name = content.decode()
        elif number == 2:
            op = content.decode()
        elif number == 3 and not content.startswith(b"^"):
            inputs.append(content.decode().partition(":")[0])
        elif number == 5:
            entry = dict(_fields(content))
            attributes[entry[1].decode()] = entry.get(2, b"")
    return Node(
        name=name,
        op=op,
        inputs=tuple(inputs),
        strides=_strides(attributes),
        padding=_first(attributes.get("padding", b""), 2, b"").decode(),
        value=_tensor(_first(attributes["value"], 8, b"")) if op == "Const" else None,
    )


def _first(data: bytes, number: int, otherwise: Any) -> Any:
    return next((content for found, content in _fields(data) if found == number), otherwise)


def _strides(attributes: Mapping[str, bytes]) -> tuple[int, int]:
    listed: list[int] = []
    for number, content in _fields(_first(attributes.get("strides", b""), 1, b"")):
        if number == 3:
            listed += [content] if isinstance(content, int) else _packed(content)
    return (listed[1], listed[2]) if len(listed) == 4 else (1, 1)


def _packed(data: bytes) -> list[int]:
    values, place = [], 0
    while place < len(data):
        value, place = _varint(data, place)
        values.append(value)
    return values


def _tensor(data: bytes) -> NDArray[Any] | None:
    """The constant, or None where its type is one that no network computes with (a text)."""
    kind, shape, content = 0, [], b""
    listed: dict[int, list[Any]] = {}
    for number, value in _fields(data):
        if number == 1:
            kind = value
        elif number == 2:
            shape = [_first(size, 1, 0) for found, size in _fields(value) if found == 2]
        elif number == 4:
            content = value
        else:
            listed.setdefault(number, []).append(value)
    if kind not in _TYPES:
        return None
    count = math.prod(shape)
    if not 0 <= count <= _LARGEST_TENSOR:
        raise ValueError(f"a tensor has the shape {shape}")
    dtype = np.dtype(_TYPES[kind])
    if content:
        return np.frombuffer(content, dtype).reshape(shape)
    found = np.array(_values(listed.get(_VALUES[kind], []), kind) or [0], dtype)
    # A single value stands for all.
    return np.full(shape, found[0], dtype) if len(found) == 1 else found.reshape(shape)


def _values(fields: list[Any], kind: int) -> list[Any]:
    """The numbers of a list, whether each is a field of its own or all stand in one."""
    values: list[Any] = []
    for value in fields:
        if isinstance(value, int):
            values.append(value)
        elif kind == 1:
            values += np.frombuffer(value, "<f4").tolist()
        else:
            values += _packed(value)
    # Negative whole numbers are written as 64-bit two's complement.
    return [value - (1 << 64) if kind in {3, 9} and value >> 63 else value for value in values]
