"""ONNX networks opened the way serving, training and cameras all need them: quiet and without busy threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _ort_state

from keepsight.errors import BundleError

INPUT = "image"
FEATURES = "features"

# onnxruntime's errors have no common base of their own.
_ORT_ERRORS: tuple[type[Exception], ...] = tuple(
    getattr(_ort_state, name)
    for name in (
        "EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoaded", "NoModel",
        "NoSuchFile", "NotImplemented", "RuntimeException",
    )
)  # fmt: skip
_RUN_ERRORS: tuple[type[Exception], ...] = (*_ORT_ERRORS, ValueError)


def open_session(model: bytes, *, threads: int = 1) -> ort.InferenceSession:
    """An onnxruntime session on the CPU for an ONNX network; it may be run from several threads at once.

    Args:
        model: The bytes of the ONNX file.
        threads: Threads that one run uses. One per session and several runs at once give the most pictures a second.

    Raises:
        BundleError: The bytes are no ONNX network that this onnxruntime can run.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Threads that spin while they wait take the processor from the other threads of the pool.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
    except _ORT_ERRORS as error:
        raise BundleError(
            f"The ONNX network cannot be opened ({_short(error)}).",
            expected=f"an ONNX network that onnxruntime {ort.__version__} can run.",
            do="Copy the bundle again, or upgrade onnxruntime if the network was made by a newer version.",
        ) from error


def run(
    session: ort.InferenceSession, tensors: NDArray[np.float32], *, outputs: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The named outputs of the network for input `tensors` of shape (n, 3, size, size), float32.

    Raises:
        BundleError: The network fails on this input.
    """
    try:
        values = session.run(list(outputs), {INPUT: tensors})
    except _RUN_ERRORS as error:
        raise BundleError(
            f"The network fails on an input of shape {tensors.shape} ({_short(error)}).",
            expected=f"input {describe(session)['input']} and outputs {', '.join(outputs)}.",
            do="Check that the network and the preprocessing of its bundle belong together.",
        ) from error
    return dict(zip(outputs, values, strict=True))


def check_contract(session: ort.InferenceSession, *, size: int, outputs: Sequence[str]) -> None:
    """Refuses a network that does not take pictures of side `size` as ``image`` or lacks one of the `outputs`.

    Raises:
        BundleError: Says what the network has instead.
    """
    inputs = {item.name: (item.shape, item.type) for item in session.get_inputs()}
    shape, kind = inputs.get(INPUT, ([], ""))
    fixed = {axis: side for axis, side in enumerate(shape) if isinstance(side, int)}
    fits = len(shape) == 4 and all(fixed.get(axis, side) == side for axis, side in ((1, 3), (2, size), (3, size)))
    names = {item.name for item in session.get_outputs()}
    missing = [name for name in outputs if name not in names]
    if list(inputs) != [INPUT] or not fits or 0 in fixed or kind != "tensor(float)" or missing:
        found = describe(session)
        raise BundleError(
            f"The network takes {found['input']} and gives {found['output']}.",
            expected=f"float32 {INPUT} (n, 3, {size}, {size}) and outputs {', '.join(outputs)}, n being free.",
            do="Export the network with these names, or correct the size in the bundle's preprocessing.",
        )


def describe(session: ort.InferenceSession) -> Mapping[str, str]:
    """The "input" and "output" of a network in words: names, types and shapes."""

    def words(items: Sequence[Any]) -> str:
        return ", ".join(f"{item.name} {item.type} {item.shape}" for item in items) or "nothing"

    return {"input": words(session.get_inputs()), "output": words(session.get_outputs())}


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
