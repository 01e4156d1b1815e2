"""Takes a user's own ONNX network as a backbone.

Wanted: one float32 input (n, 3, size, size), n free, and an output ``features`` (n, d); without an output of that name,
the first that is (n, d) is taken. How pictures are prepared stands in a JSON file of the same name beside it::

    {"size": 224, "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "licences": ["MIT"]}

with mean and deviation on pixel values of 0 to 255, RGB; ``crop`` and ``interpolation`` may be added.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from keepsight.errors import BadInputError, BundleError, WeightsError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.runtime.session import FEATURES, INPUT, open_session, run

if TYPE_CHECKING:
    import onnx

_REQUIRED = ("size", "mean", "std")
_OPTIONAL = ("crop", "interpolation", "licences")
_UNKNOWN_LICENCE = "LicenseRef-unknown"


@dataclass(frozen=True)
class OwnNetwork:
    """A user's network, adapted: input ``image``, one output ``features``."""

    name: str
    onnx: bytes = field(repr=False)
    preprocessing: Preprocessing
    features_dim: int
    licences: tuple[str, ...]


def adapt(path: Path, *, preprocessing: Preprocessing | None = None) -> OwnNetwork:
    """The network in ``path`` with its input called ``image`` and its output ``features``.

    Args:
        path: An ONNX file that holds its own weights.
        preprocessing: How pictures are prepared, instead of the JSON file beside ``path``.

    Raises:
        WeightsError: The file cannot be read, is not a network of the wanted form, or does not run.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types

    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        _refuse(path, f"it cannot be read ({error.strerror})", error)
    except (DecodeError, ValueError) as error:
        _refuse(path, "it is not an ONNX file", error)
    sidecar = path.with_suffix(".json")
    facts = _facts(sidecar) if sidecar.is_file() else {}
    if preprocessing is None:
        preprocessing = _preprocessing(path, sidecar, facts)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        _refuse(path, "its weights are in other files")
    _rename_input(model, path, preprocessing.size)
    dimension = _rename_output(model, path, preprocessing.size)
    licences = facts.get("licences", [_UNKNOWN_LICENCE])
    return OwnNetwork(
        name=path.stem,
        onnx=bytes(model.SerializeToString(deterministic=True)),
        preprocessing=preprocessing,
        features_dim=dimension,
        licences=tuple(licences),
    )


def _facts(sidecar: Path) -> dict[str, Any]:
    try:
        facts = json.loads(sidecar.read_text("utf-8"))
    except (OSError, ValueError) as error:
        _refuse(sidecar, f"it cannot be read as JSON ({error})", error)
    if not isinstance(facts, dict) or not set(facts) <= {*_REQUIRED, *_OPTIONAL}:
        _refuse(sidecar, f"it may hold {', '.join((*_REQUIRED, *_OPTIONAL))} and nothing else")
    licences = facts.get("licences", [_UNKNOWN_LICENCE])
    if not isinstance(licences, list) or not licences or not all(isinstance(item, str) for item in licences):
        _refuse(sidecar, "its licences are not a list of names")
    return facts


def _preprocessing(path: Path, sidecar: Path, facts: dict[str, Any]) -> Preprocessing:
    missing = [key for key in _REQUIRED if key not in facts]
    if missing:
        reason = f"it lacks {', '.join(missing)}" if sidecar.is_file() else f"there is no {sidecar.name} beside it"
        _refuse(path, f"how pictures are prepared for it is not said: {reason}")
    try:
        return Preprocessing.from_dict(facts)
    except BadInputError as error:
        _refuse(sidecar, error.found.rstrip("."), error)


def _rename_input(model: onnx.ModelProto, path: Path, size: int) -> None:
    """Makes the one input ``image`` (n, 3, size, size)."""
    from onnx import TensorProto, helper

    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        _refuse(path, f"it has {len(inputs)} inputs")
    source = inputs[0]
    kind = source.type.tensor_type
    dimensions = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in kind.shape.dim]
    if kind.elem_type != TensorProto.FLOAT or len(dimensions) != 4:
        _refuse(path, f"its input {source.name} is not float32 of four dimensions")
    batch, channels, height, width = dimensions
    if channels not in {0, 3} or height not in {0, size} or width not in {0, size}:
        _refuse(path, f"its input {source.name} is {dimensions}, not [n, 3, {size}, {size}]")
    if batch:
        _refuse(path, f"its input {source.name} takes batches of {batch} only")
    name = source.name
    source.CopyFrom(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", 3, size, size]))
    if name != INPUT:
        _check_free(model, path, INPUT)
        model.graph.node.insert(0, helper.make_node("Identity", [INPUT], [name]))


def _rename_output(model: onnx.ModelProto, path: Path, size: int) -> int:
    """Leaves one output, ``features``; returns its length, found by running two empty pictures."""
    from onnx import TensorProto, helper

    names = [value.name for value in model.graph.output]
    shapes = _output_shapes(model, path, size)
    chosen = FEATURES if FEATURES in names else next((n for n in names if len(shapes[n]) == 2), None)
    if chosen is None or len(shapes[chosen]) != 2 or shapes[chosen][0] != 2:
        found = ", ".join(f"{n} {list(shapes[n])}" for n in names)
        _refuse(path, f"none of its outputs is one vector per picture (for two pictures: {found})")
    dimension = shapes[chosen][1]
    if chosen != FEATURES:
        _check_free(model, path, FEATURES)
        model.graph.node.append(helper.make_node("Identity", [chosen], [FEATURES]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["n", dimension]))
    return dimension


def _output_shapes(model: onnx.ModelProto, path: Path, size: int) -> dict[str, tuple[int, ...]]:
    names = [value.name for value in model.graph.output]
    try:
        results = run(
            open_session(model.SerializeToString(), threads=1),
            np.zeros((2, 3, size, size), np.float32),
            outputs=names,
        )
    except BundleError as error:
        _refuse(path, f"onnxruntime cannot run it: {error.found.rstrip('.')}", error)
    for name, result in results.items():
        if result.dtype == np.float32 and not np.isfinite(result).all():
            _refuse(path, f"its output {name} is not finite for a picture of zeros")
    return {name: result.shape if result.dtype == np.float32 else () for name, result in results.items()}


def _check_free(model: onnx.ModelProto, path: Path, name: str) -> None:
    taken = {output for node in model.graph.node for output in node.output}
    taken |= {tensor.name for tensor in model.graph.initializer}
    if name in taken:
        _refuse(path, f"a tensor inside it is called {name}, a name kept for the graph's own {name}")


def _refuse(path: Path, reason: str, cause: Exception | None = None) -> NoReturn:
    raise WeightsError(
        f"{path.name} cannot be used as a backbone: {reason}.",
        expected=(
            "one ONNX file with one float32 input (n, 3, size, size), n free, and an output (n, d) called features, "
            'and a .json file of the same name with {"size": ..., "mean": [r, g, b], "std": [r, g, b]} (pixels 0-255).'
        ),
        do="Export the network in that form, pooled and with a dynamic batch axis, and name its .onnx file.",
        path=str(path),
        reason=reason,
    ) from cause
