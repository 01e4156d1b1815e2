"""A network's 8-bit variant: about a third of the size, and half the time on processors with 8-bit products.

Weights get a scale for each output channel (one scale for a whole tensor breaks the depthwise convolutions of small
networks), activations one for each tensor, from the least and largest value on some training pictures (Jacob et al.
2018). What follows the last feature map stays float: the pooling, ``features`` and the head on them, so that a
frozen backbone's head loses nothing of its own.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import DataError, PictureError, TrainingError
from keepsight.runtime.decode import decode
from keepsight.runtime.preprocess import Preprocessing
from keepsight.runtime.session import FEATURES, INPUT

CALIBRATION_PICTURES = 100
# So many pictures a run: all activations of a run are looked at together.
_BATCH = 4
# Where the time goes. Sums and products of two tensors stay float: in a transformer they carry a few large values that
# leave no room for the small ones, and convolutional networks are as quick without them.
_KINDS = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Clip", "Relu", "MaxPool")
_POOLING = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "Flatten", "Reshape", "Squeeze")


def variant_of(
    model: bytes,
    *,
    read: Callable[[int], bytes | None],
    count: int,
    preprocessing: Preprocessing,
    seed: int,
) -> bytes:
    """The 8-bit variant of a network, its ranges taken from some of the ``count`` training pictures.

    Raises:
        DataError: None of them can be read.
        TrainingError: The network cannot be quantised.
    """
    pictures = [data for place in choose(count, seed=seed) if (data := read(int(place))) is not None]
    return quantise(model, inputs(pictures, preprocessing))


def inputs(pictures: Sequence[bytes], preprocessing: Preprocessing) -> list[NDArray[np.float32]]:
    """The network's input (3, size, size) for each picture that can be read."""
    found = []
    for data in pictures:
        try:
            found.append(preprocessing.apply(decode(data, min_side=preprocessing.min_side)))
        except PictureError:
            continue
    return found


def choose(count: int, *, seed: int, most: int = CALIBRATION_PICTURES) -> NDArray[np.int64]:
    """Places of at most so many of ``count`` pictures, in order; the same for equal seeds."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:most]).astype(np.int64)


def quantise(model: bytes, tensors: Sequence[NDArray[np.float32]]) -> bytes:
    """The 8-bit variant of an ONNX network with input ``image`` and an output ``features``; the same contract.

    Equal networks and inputs give equal bytes.

    Args:
        model: The float network.
        tensors: Inputs (3, size, size) that the activations' ranges are taken from.

    Raises:
        DataError: No inputs.
        TrainingError: The network cannot be quantised.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if not tensors:
        raise DataError(
            "None of the training pictures can be read, so the ranges of the 8-bit network cannot be measured.",
            expected="readable training pictures.",
            do="Check the blob store (`keepsight data verify`), or switch train.int8 off.",
        )
    with tempfile.TemporaryDirectory(prefix="keepsight-int8-") as folder, _quiet():
        given, ready, made = (Path(folder) / name for name in ("float.onnx", "ready.onnx", "int8.onnx"))
        given.write_bytes(model)
        # Folds what can be folded (batch normalisation above all) and notes the shapes.
        quant_pre_process(str(given), str(ready), skip_symbolic_shape=True)
        network = onnx.load_from_string(ready.read_bytes())
        name_nodes(network)
        quantize_static(
            network,
            str(made),
            _reader(tensors),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_KINDS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=float_nodes(network),
            calibrate_method=CalibrationMethod.MinMax,
        )
        found = onnx.load_from_string(made.read_bytes())
    if not any(node.op_type == "QuantizeLinear" for node in found.graph.node):
        raise TrainingError(
            "The network has no part that 8 bits would make quicker.",
            expected="convolutions or matrix products.",
            do="Switch train.int8 off for this backbone.",
        )
    # Where it was made, and with which version, is of no interest; equal networks shall be equal.
    del found.metadata_props[:]
    return bytes(found.SerializeToString(deterministic=True))


def name_nodes(network: Any) -> None:
    """Gives every node a name, where an export left it out."""
    for place, node in enumerate(network.graph.node):
        node.name = node.name or f"node {place}"


def float_nodes(network: Any) -> list[str]:
    """Names of the nodes that stay float: all that follows the last feature map."""
    producer = {output: node for node in network.graph.node for output in node.output}
    body: set[str] = set()
    waiting = [_before_pooling(producer, FEATURES)]
    while waiting:
        node = producer.get(waiting.pop())
        if node is not None and node.name not in body:
            body.add(node.name)
            waiting += node.input
    return [node.name for node in network.graph.node if node.name not in body]


def _before_pooling(producer: dict[str, Any], name: str) -> str:
    """The tensor that is pooled into this one."""
    node = producer.get(name)
    while node is not None and node.op_type in _POOLING:
        name = node.input[0]
        node = producer.get(name)
    return name


def _reader(tensors: Sequence[NDArray[np.float32]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime brings no types
        def __init__(self) -> None:
            starts = range(0, len(tensors), _BATCH)
            self._batches = iter([np.stack(tensors[start : start + _BATCH]) for start in starts])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's hints to its programmers, which it gives to the root logger."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
