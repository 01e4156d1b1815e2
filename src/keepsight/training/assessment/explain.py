"""Where a model looks: class activation maps of any bundle whose features are pooled from a map.

With global average pooling a class score falls apart into shares of the places (Zhou et al. 2016); with anything
differentiable behind the pooling the gradient takes the place of the weights (Grad-CAM, Selvaraju et al. 2017). The
gradient is taken by finite differences through the part of the graph behind the pooling, which is small: one batch.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from keepsight.errors import NotFoundError
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.decode import decode
from keepsight.runtime.outputs import output_module
from keepsight.runtime.preprocess import Preprocessing
from keepsight.runtime.session import FEATURES, INPUT, open_session, run

NAME = "class activation map"
# Opened networks that are kept; each costs about what its file does.
_KEPT = 2
# Of the step of the finite differences, in mean absolute activations.
_STEP = 0.01
_OVERLAY_SIDE = 320
# How bright a place is of which nothing speaks for the class.
_DARK = np.float32(0.4)
# Below 1 shows what speaks for the class a little, too.
_GAMMA = np.float32(0.6)
_QUALITY = 80

_kept: OrderedDict[str, ActivationMaps | None] = OrderedDict()
_lock = threading.Lock()


def class_activation_map(bundle: Bundle, data: bytes, *, label: str | None = None) -> NDArray[np.float32] | None:
    """How much each place of a picture speaks for a class, float32 (h, w) from 0 to 1.

    The map covers the middle square that the network sees (``overlay`` lays it there). All zeros: nothing speaks for
    the class. None: the network pools no map, so that nothing can be said.

    Args:
        bundle: The model.
        data: The picture file.
        label: The class; else the one that the model answers.

    Raises:
        PictureError: The picture cannot be read.
        NotFoundError: The model has no such class.
    """
    maps = activation_maps(bundle)
    return None if maps is None else maps.of(data, label=label)


def activation_maps(bundle: Bundle) -> ActivationMaps | None:
    """The bundle opened for maps, kept for the next call; None where its network pools no map."""
    with _lock:
        if bundle.digest not in _kept:
            _kept[bundle.digest] = ActivationMaps.open(bundle)
            while len(_kept) > _KEPT:
                _kept.popitem(last=False)
        _kept.move_to_end(bundle.digest)
        return _kept[bundle.digest]


@dataclass(frozen=True)
class ActivationMaps:
    """A bundle's network cut at the pooling that its features come from.

    Attributes:
        bundle: The model.
        body: From ``image`` to the map before the pooling.
        tail: From the pooled map to the class scores.
        spatial: The two axes of the map that are pooled.
        keeps: Whether the pooled map keeps them, with length 1.
    """

    bundle: Bundle
    body: ort.InferenceSession
    tail: ort.InferenceSession
    spatial: tuple[int, int]
    keeps: bool

    @classmethod
    def open(cls, bundle: Bundle) -> ActivationMaps | None:
        """None where no pooling of a map stands between the picture and the features."""
        import onnx

        model = onnx.load_from_string(bundle.model())
        scores = next(iter(output_module(bundle.info.task).TENSORS), "")
        # Only scores of classes of the whole picture, (n, k), have a map.
        found = _pooling(model.graph, scores) if _ranks(model.graph).get(scores) == 2 else None
        if found is None:
            return None
        node, spatial, keeps = found
        body, tail = _cut(model, node, scores)
        return cls(bundle, open_session(body), open_session(tail), spatial, keeps)

    def of(self, data: bytes, *, label: str | None = None) -> NDArray[np.float32]:
        """As :func:`class_activation_map`."""
        labels = self.bundle.info.labels
        if label is not None and label not in labels:
            raise NotFoundError.among("class of the model", label, labels)
        tensor, _ = self.bundle.info.preprocessing.from_bytes(data)
        name = self.body.get_outputs()[0].name
        activations = run(self.body, tensor[None], outputs=(name,))[name][0]
        # Without the batch the axes move by one.
        spatial = (self.spatial[0] - 1, self.spatial[1] - 1)
        pooled = activations.mean(axis=spatial, keepdims=self.keeps, dtype=np.float32)
        wanted = None if label is None else labels.index(label)
        gradient = self._gradient(pooled, wanted)
        if not self.keeps:
            gradient = np.expand_dims(gradient, spatial)
        channel = next(axis for axis in range(3) if axis not in spatial)
        heat = np.maximum((gradient * activations).sum(axis=channel), 0)
        top = float(heat.max())
        return np.asarray(heat / top if top > 0 else heat, np.float32)

    def _gradient(self, pooled: NDArray[np.float32], wanted: int | None) -> NDArray[np.float32]:
        """The slope of a class score (None: of the highest) by the pooled activations, in their shape."""
        flat = pooled.ravel()
        step = np.float32(max(_STEP * float(np.abs(flat).mean()), 1e-6))
        moves = np.eye(len(flat), dtype=np.float32) * step
        batch = np.concatenate([flat[None], flat + moves, flat - moves]).reshape(-1, *pooled.shape)
        scores: NDArray[np.float32] = self.tail.run(None, {self.tail.get_inputs()[0].name: batch})[0]
        column = int(scores[0].argmax()) if wanted is None else wanted
        up, down = scores[1 : 1 + len(flat), column], scores[1 + len(flat) :, column]
        return np.asarray((up - down) / (2 * step), np.float32).reshape(pooled.shape)


def overlay(
    data: bytes, heat: NDArray[np.float32], preprocessing: Preprocessing, *, side: int = _OVERLAY_SIDE
) -> bytes:
    """A JPEG of the picture, its longer side at most ``side`` pixels, lit where the model looked and dark elsewhere.

    What lies outside the middle square the model never sees; it is dark too. Light instead of a colour, so that it can
    be told from pictures of any colour, by any eye.

    Raises:
        PictureError: The picture cannot be read.
    """
    picture = Image.fromarray(decode(data, min_side=side))
    picture.thumbnail((side, side))
    width, height = picture.size
    square = max(1, round(min(width, height) * preprocessing.crop))
    columns, rows = (width, height) if preprocessing.fit == "stretch" else (square, square)
    left, top = (width - columns) // 2, (height - rows) // 2
    scaled = Image.fromarray((heat**_GAMMA * 255).astype(np.uint8)).resize((columns, rows), Image.Resampling.BICUBIC)
    light = np.zeros((height, width, 1), np.float32)
    light[top : top + rows, left : left + columns] = np.asarray(scaled, np.float32)[..., None] / np.float32(255)
    pixels = np.asarray(picture, np.float32)
    shown = pixels * light + _DARK * pixels.mean(axis=2, keepdims=True) * (1 - light)
    out = io.BytesIO()
    Image.fromarray(np.clip(shown, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


# --- the graph ------------------------------------------------------------------------------------------------------


def _pooling(graph: Any, scores: str) -> tuple[Any, tuple[int, int], bool] | None:
    """The last node through which all goes from the picture to the features and which averages a map over its places.

    Returns:
        The node, the axes of the map that it averages over, and whether it keeps them.
    """
    constants = _constants(graph)
    ranks = _ranks(graph)
    before = _ancestors(graph, FEATURES)
    for node in reversed([node for node in graph.node if node.output[0] in before]):
        found = _averages(node, constants, ranks)
        if found is None or _reaches(graph, scores, without=node) or _reaches(graph, FEATURES, without=node):
            continue
        return node, *found
    return None


def _averages(
    node: Any, constants: dict[str, NDArray[Any]], ranks: dict[str, int]
) -> tuple[tuple[int, int], bool] | None:
    """Over which two axes of a map (n, c, h, w) or (n, h, w, c) the node averages, and whether it keeps them."""
    if node.op_type == "GlobalAveragePool":
        return (2, 3), True
    if node.op_type != "ReduceMean":
        return None
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if "axes" in attributes:
        axes = list(attributes["axes"].ints)
    elif len(node.input) > 1 and node.input[1] in constants:
        axes = constants[node.input[1]].ravel().tolist()
    else:
        return None
    # Without a known shape a map of four axes is the only one that two can be counted from the end of.
    rank = ranks.get(node.input[0], 4)
    places = tuple(sorted(int(axis) % rank for axis in axes))
    keeps = bool(attributes["keepdims"].i) if "keepdims" in attributes else True
    if rank != 4 or places not in {(2, 3), (1, 2)}:
        return None
    return (places[0], places[1]), keeps


def _constants(graph: Any) -> dict[str, NDArray[Any]]:
    from onnx import numpy_helper

    small = [tensor for tensor in graph.initializer if len(tensor.dims) <= 1]
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in small}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _ranks(graph: Any) -> dict[str, int]:
    """How many axes the tensors have whose shape the file tells."""
    infos = (*graph.value_info, *graph.input, *graph.output)
    return {
        info.name: len(info.type.tensor_type.shape.dim) for info in infos if info.type.tensor_type.HasField("shape")
    }


def _ancestors(graph: Any, name: str, *, without: Any = None) -> set[str]:
    """The tensors that a tensor is computed from, itself included."""
    needed = {name}
    for node in reversed(graph.node):
        if node is not without and needed & set(node.output):
            needed |= set(node.input)
    return needed


def _reaches(graph: Any, name: str, *, without: Any) -> bool:
    """Whether the picture reaches a tensor around a node."""
    return INPUT in _ancestors(graph, name, without=without)


def _cut(model: Any, node: Any, scores: str) -> tuple[bytes, bytes]:
    """The network up to a node's input, and from its output on to the scores."""
    from onnx import TensorProto, helper

    def part(outputs: Iterable[Any], inputs: Iterable[Any] | None, needed: set[str], without: Any) -> bytes:
        graph = model.graph
        nodes = []
        for each in reversed(graph.node):
            if each is not without and needed & set(each.output):
                nodes.append(each)
                needed |= set(each.input)
        weights = [tensor for tensor in graph.initializer if tensor.name in needed]
        made = helper.make_graph(
            nodes[::-1], graph.name, list(graph.input if inputs is None else inputs), list(outputs), weights
        )
        return bytes(
            helper.make_model(made, opset_imports=model.opset_import, ir_version=model.ir_version).SerializeToString()
        )

    def free(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    before, after = node.input[0], node.output[0]
    body = part([free(before)], None, {before}, None)
    tail = part([free(scores)], [free(after)], {scores}, node)
    return body, tail
