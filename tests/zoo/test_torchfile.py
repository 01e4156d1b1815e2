"""The reader of ``.pth`` files: what it reads, and that it runs nothing."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepsight.errors import WeightsError
from keepsight.zoo import torchfile

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Assembler:
    """Writes pickles opcode by opcode, as torch writes them, and others that it never would."""

    def __init__(self) -> None:
        self.out = bytearray(b"\x80\x02")

    def raw(self, code: bytes) -> Assembler:
        self.out += code
        return self

    def text(self, value: str) -> Assembler:
        data = value.encode()
        return self.raw(b"X" + struct.pack("<I", len(data)) + data)

    def number(self, value: int) -> Assembler:
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return self.raw(b"\x8a" + bytes([len(data)]) + data)

    def name(self, module: str, attribute: str) -> Assembler:
        return self.raw(b"c" + f"{module}\n{attribute}\n".encode())

    def counts(self, values: tuple[int, ...]) -> Assembler:
        self.raw(b"(")
        for value in values:
            self.number(value)
        return self.raw(b"t")

    def storage(self, key: str, count: int, kind: str = "FloatStorage", *, view: bool | None = True) -> Assembler:
        self.raw(b"(").text("storage").name("torch", kind).text(key).text("cpu").number(count)
        return self.raw(b"Nt" if view else b"t").raw(b"Q")

    def tensor(
        self,
        key: str,
        count: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        *,
        offset: int = 0,
        kind: str = "FloatStorage",
        view: bool = True,
    ) -> Assembler:
        self.name("torch._utils", "_rebuild_tensor_v2").raw(b"(").storage(key, count, kind, view=view)
        self.number(offset).counts(shape).counts(strides)
        return self.raw(b"\x89").name("collections", "OrderedDict").raw(b")Rt").raw(b"R")

    def done(self) -> bytes:
        return bytes(self.out + b".")


def mapping() -> Assembler:
    return Assembler().name("collections", "OrderedDict").raw(b")R(")


def closed(assembler: Assembler) -> bytes:
    """The rest of a state dict around one value, with the ``_metadata`` that torch attaches by BUILD."""
    return assembler.raw(b"u}").text("_metadata").raw(b"}sb").done()


def legacy(described: bytes, storages: dict[str, bytes], *, counts: dict[str, int] | None = None) -> bytes:
    head = b"".join(pickle.dumps(value, protocol=2) for value in (MAGIC, 1001, SYSTEM))
    body = described + pickle.dumps(list(storages), protocol=2)
    for key, content in storages.items():
        body += struct.pack("<q", (counts or {}).get(key, len(content) // 4)) + content
    return head + body


def archived(described: bytes, storages: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("model/data.pkl", described)
        archive.writestr("model/byteorder", b"little")
        for key, content in storages.items():
            archive.writestr(f"model/data/{key}", content)
        archive.writestr("model/version", b"3\n")
    return stream.getvalue()


NUMBERS = np.arange(24, dtype=np.float32)


def simple(**change: Any) -> bytes:
    facts: dict[str, Any] = {"key": "7", "count": 24, "shape": (2, 3, 4), "strides": (12, 4, 1)} | change
    return closed(mapping().text("weight").tensor(**facts))


def test_reads_the_legacy_layout_with_its_metadata() -> None:
    tensors = torchfile.parse(legacy(simple(), {"7": NUMBERS.tobytes()}))
    assert type(tensors) is OrderedDict
    np.testing.assert_array_equal(tensors["weight"], NUMBERS.reshape(2, 3, 4))


def test_reads_the_zip_layout() -> None:
    tensors = torchfile.parse(archived(simple(view=False), {"7": NUMBERS.tobytes()}))
    np.testing.assert_array_equal(tensors["weight"], NUMBERS.reshape(2, 3, 4))


def test_reads_a_file_that_torch_wrote() -> None:
    """``fixtures/torch_zip.pth``: torch 2.14 saved a small module's state dict, see ``make_golden.py``."""
    tensors = torchfile.read(Path(__file__).parent / "fixtures" / "torch_zip.pth")
    assert {name: (value.dtype.name, value.shape) for name, value in tensors.items()} == {
        "0.weight": ("float32", (4, 3, 3, 3)),
        "1.weight": ("float32", (4,)),
        "1.bias": ("float32", (4,)),
        "1.running_mean": ("float32", (4,)),
        "1.running_var": ("float32", (4,)),
        "1.num_batches_tracked": ("int64", ()),
    }
    np.testing.assert_array_equal(tensors["0.weight"], np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3))
    assert tensors["1.num_batches_tracked"] == 0


@pytest.mark.parametrize("pack", [legacy, archived])
def test_follows_strides_and_offset(pack: Any) -> None:
    described = simple(shape=(4, 3), strides=(1, 4), offset=12)
    tensors = torchfile.parse(pack(described, {"7": NUMBERS.tobytes()}))
    np.testing.assert_array_equal(tensors["weight"], NUMBERS[12:].reshape(3, 4).T)


def test_reads_whole_numbers_scalars_and_empty_tensors() -> None:
    described = closed(
        mapping().text("steps").tensor("a", 1, (), (), kind="LongStorage").text("none").tensor("b", 0, (0, 5), (5, 1)),
    )
    tensors = torchfile.parse(legacy(described, {"a": struct.pack("<q", -3), "b": b""}, counts={"a": 1}))
    assert tensors["steps"].item() == -3
    assert tensors["none"].shape == (0, 5)


def test_two_tensors_may_share_a_storage() -> None:
    assembler = (
        mapping().text("first").tensor("7", 24, (12,), (1,)).text("second").tensor("7", 24, (12,), (1,), offset=12)
    )
    tensors = torchfile.parse(legacy(closed(assembler), {"7": NUMBERS.tobytes()}))
    np.testing.assert_array_equal(np.concatenate([tensors["first"], tensors["second"]]), NUMBERS)


def test_tensors_cannot_be_written() -> None:
    tensors = torchfile.parse(legacy(simple(), {"7": NUMBERS.tobytes()}))
    with pytest.raises(ValueError, match="read-only"):
        tensors["weight"][0] = 1


class Touch:
    """What an attacker pickles: unpickling it would call ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "executed"
    yield path
    assert not path.exists(), "the pickle's code was run"


def attacks(path: str) -> dict[str, tuple[Any, str]]:
    command = f"touch {path}"
    code = f"open({path!r}, 'w').close()"
    return {
        "os.system": (Touch(os.system, command), "posix.system"),
        "builtins.eval": (Touch(eval, code), "__builtin__.eval"),
        "builtins.exec": (Touch(exec, code), "__builtin__.exec"),
        "getattr": (Touch(getattr, 1, "real"), "__builtin__.getattr"),
        "nested in a state dict": (OrderedDict(weight=Touch(os.system, command)), "posix.system"),
        "nested in an argument": (Touch(OrderedDict, [("a", Touch(eval, code))]), "__builtin__.eval"),
        "a class by itself": (io.BytesIO, "_io.BytesIO"),
    }


@pytest.mark.parametrize("attack", attacks(""))
@pytest.mark.parametrize("place", ["magic", "protocol", "system", "tensors", "keys", "zip"])
def test_code_in_a_pickle_is_named_and_not_run(attack: str, place: str, marker: Path) -> None:
    value, name = attacks(str(marker))[attack]
    evil = pickle.dumps(value, protocol=2)
    parts = [pickle.dumps(part, protocol=2) for part in (MAGIC, 1001, SYSTEM)] + [
        simple(),
        pickle.dumps(["7"], protocol=2),
    ]
    if place == "zip":
        data = archived(evil, {})
    else:
        parts[["magic", "protocol", "system", "tensors", "keys"].index(place)] = evil
        data = b"".join(parts) + struct.pack("<q", 24) + NUMBERS.tobytes()
    with pytest.raises(WeightsError) as caught:
        torchfile.parse(data, name="evil.pth")
    assert name in caught.value.found
    assert "evil.pth" in caught.value.found


@pytest.mark.parametrize("protocol", [0, 1, 3, 4, 5])
def test_code_in_other_pickle_protocols_is_not_run(protocol: int, marker: Path) -> None:
    evil = pickle.dumps(Touch(os.system, f"touch {marker}"), protocol=protocol)
    for data in (evil, archived(evil, {})):
        with pytest.raises(WeightsError):
            torchfile.parse(data)


def test_neighbours_of_the_allowed_names_are_refused() -> None:
    for module, name in [
        ("collections", "Counter"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch", "_utils._rebuild_tensor_v2"),
        ("torch.serialization", "_load"),
    ]:
        described = Assembler().name(module, name).raw(b")R").done()
        with pytest.raises(WeightsError) as caught:
            torchfile.parse(legacy(described, {}))
        assert f"{module}.{name}" in caught.value.found


@pytest.mark.parametrize(
    "described",
    {
        "build on a function": Assembler()
        .name("torch._utils", "_rebuild_tensor_v2")
        .raw(b"}")
        .text("x")
        .number(1)
        .raw(b"sb."),
        "build on a storage type": Assembler()
        .name("torch", "FloatStorage")
        .raw(b"}")
        .text("dtype")
        .text("O")
        .raw(b"sb."),
        "slots on the mapping": Assembler()
        .name("collections", "OrderedDict")
        .raw(b"N}")
        .text("update")
        .number(1)
        .raw(b"s\x86b."),
        "storage type called": Assembler().name("torch", "FloatStorage").raw(b")R."),
        "mapping with arguments": Assembler().name("collections", "OrderedDict").raw(b"](").raw(b"e\x85R."),
        "tensor without arguments": Assembler().name("torch._utils", "_rebuild_tensor_v2").raw(b")R."),
        "stack underflow": Assembler().raw(b"R."),
        "unknown memo": Assembler().raw(b"h\x05."),
        "huge memo": Assembler().raw(b"Nr\xff\xff\xff\x7f."),
        "unhashable key": Assembler().raw(b"}]Ns."),
        "a tuple as persistent id": Assembler().counts((1, 2, 3)).raw(b"Q."),
        "a storage alone": Assembler().storage("7", 1).raw(b"."),
        "a number": Assembler().number(3).raw(b"."),
        "a checkpoint": mapping().text("epoch").number(3).raw(b"u."),
    }.items(),
    ids=lambda item: item[0],
)
def test_malformed_pickles_are_refused(described: tuple[str, Assembler]) -> None:
    with pytest.raises(WeightsError):
        torchfile.parse(legacy(bytes(described[1].out), {"7": b"\0\0\0\0"}))
    # Whatever it tried, a good file reads as before.
    torchfile.parse(legacy(simple(), {"7": NUMBERS.tobytes()}))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (25,), "strides": (1,)},
        {"offset": 1},
        {"offset": 2**40 + 1},
        {"offset": -1},
        {"shape": (-1,), "strides": (1,)},
        {"shape": (2,), "strides": (-1,), "offset": 1},
        {"shape": (2, 2), "strides": (1,)},
        {"shape": (5,), "strides": (6,)},
        {"shape": (2**30,), "strides": (0,)},
        {"shape": (2**70, 0), "strides": (1, 1)},
        {"shape": (2**40, 0, 2**40, 2**40), "strides": (1, 1, 1, 1)},
        {"shape": (1,) * 40, "strides": (1,) * 40},
        {"count": 25},
        {"count": -1},
        {"count": 2**40},
        {"key": "8"},
        {"kind": "LongStorage"},
    ],
    ids=str,
)
@pytest.mark.parametrize("pack", [legacy, archived])
def test_a_tensor_that_leaves_its_storage_is_refused(pack: Any, change: dict[str, Any]) -> None:
    with pytest.raises(WeightsError):
        torchfile.parse(pack(simple(**change), {"7": NUMBERS.tobytes()}))


def test_every_truncation_is_refused() -> None:
    whole = legacy(simple(), {"7": NUMBERS.tobytes()})
    for length in range(len(whole)):
        with pytest.raises(WeightsError):
            torchfile.parse(whole[:length])
    with pytest.raises(WeightsError, match="follow"):
        torchfile.parse(whole + b"\0")


def test_a_compressed_archive_is_refused() -> None:
    with pytest.raises(WeightsError, match="compressed"):
        torchfile.parse(archived(simple(), {"7": NUMBERS.tobytes()}, compression=zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("system", [{"little_endian": False}, {}, [], {"little_endian": 1}], ids=str)
def test_other_byte_orders_are_refused(system: Any) -> None:
    data = b"".join(pickle.dumps(value, protocol=2) for value in (MAGIC, 1001, system)) + simple()
    with pytest.raises(WeightsError, match="little-endian"):
        torchfile.parse(data)


def test_a_missing_file_is_a_weights_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        torchfile.read(tmp_path / "none.pth")


WHOLE = {pack.__name__: pack(simple(), {"7": NUMBERS.tobytes()}) for pack in (legacy, archived)}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_files_give_tensors_or_a_weights_error(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE[data.draw(st.sampled_from(sorted(WHOLE)))])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        tensors = torchfile.parse(bytes(damaged))
    except WeightsError:
        return
    assert sum(value.size for value in tensors.values()) <= 24


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(noise: bytes) -> None:
    for data in (noise, b"PK\x03\x04" + noise, WHOLE["legacy"][:21] + noise):
        with pytest.raises(WeightsError):
            torchfile.parse(data)
