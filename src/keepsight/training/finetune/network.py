"""A backbone's ONNX graph in two parts: a trunk that onnxruntime runs, and a tail that torch trains.

The tail is the graph itself, node by node, with its weights as torch parameters. So every backbone that Keepsight can
run (the catalogue's, a user's own file) can be fine-tuned, batch normalisation stands where the graph has it (folded
or frozen), and the trained weights go back into the very graph they came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import TrainingError
from keepsight.runtime.session import FEATURES, INPUT
from keepsight.training.finetune.convolution import convolve

if TYPE_CHECKING:
    import onnx

Operation = Callable[[list[Any], dict[str, Any]], Any]
# A torch tensor: its type is not named, because torch is an extra.
Tensor = Any

# Outputs of which one value is a place to cut.
_MAP_DIMENSIONS = 4


@dataclass(frozen=True)
class Cut:
    """A tensor through which all of the network flows: the trunk ends there, the tail begins.

    Attributes:
        name: Of the tensor.
        shape: For one picture, (channels, height, width).
        trained: Share of the network's weights that come after it.
    """

    name: str
    shape: tuple[int, int, int]
    trained: float

    @property
    def values(self) -> int:
        """Numbers for one view of one picture."""
        return int(np.prod(self.shape))


def features_only(model: bytes) -> onnx.ModelProto:
    """The graph from ``image`` to ``features``, without what only other outputs need."""
    import onnx
    from onnx.utils import Extractor

    return onnx.shape_inference.infer_shapes(Extractor(onnx.load_from_string(model)).extract_model([INPUT], [FEATURES]))


def cuts(model: onnx.ModelProto) -> list[Cut]:
    """Where the graph can be divided, the first first; ``image`` itself is the first. None where it has no weights."""
    shapes = _shapes(model)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    last_use = {name: place for place, node in enumerate(graph.node) for name in node.input}
    total = sum(sizes.values())
    if not total:
        return []
    seen: set[str] = set()
    found = []
    live = {INPUT}
    if len(shapes.get(INPUT, ())) == _MAP_DIMENSIONS:
        found.append(Cut(INPUT, _map_shape(shapes[INPUT]), 1.0))
    for place, node in enumerate(graph.node):
        seen |= {name for name in node.input if name in constants}
        live |= {name for name in node.output if name}
        live = {name for name in live if last_use.get(name, -1) > place or name == FEATURES}
        if len(live) == 1:
            (name,) = live
            shape = shapes.get(name, ())
            # A block's linear part before its activation is no place: the activation would be computed for each view.
            following = [other.op_type for other in graph.node if name in other.input]
            if len(shape) == _MAP_DIMENSIONS and not set(following) & _ACTIVATIONS:
                found.append(Cut(name, _map_shape(shape), 1 - sum(sizes[each] for each in seen) / total))
    return [cut for cut in found if cut.trained > 0]


def trunk(model: onnx.ModelProto, cut: Cut, *, any_size: bool = False) -> bytes:
    """The graph from ``image`` to the cut, for pictures of any size where asked; empty where the cut is the picture."""
    from onnx.utils import Extractor

    if cut.name == INPUT:
        return b""
    part = Extractor(model).extract_model([INPUT], [cut.name])
    if any_size:
        _forget_sizes(part)
    return bytes(part.SerializeToString())


def free_size(model: onnx.ModelProto) -> bool:
    """Whether the whole graph takes pictures of other sizes: it only convolves, pools and adds."""
    return {node.op_type for node in model.graph.node} <= _ANY_SIZE


def _forget_sizes(part: onnx.ModelProto) -> None:
    """Height and width become names, so that nothing insists on those that the graph was made for."""
    del part.graph.value_info[:]
    for value in (*part.graph.input, *part.graph.output):
        for number, dimension in enumerate(value.type.tensor_type.shape.dim):
            if number >= 2:
                dimension.Clear()
                dimension.dim_param = f"{value.name}.side{number}"


class Tail:
    """The part after a cut as a function of torch tensors.

    Args:
        model: The graph from ``image`` to ``features``.
        cut: Where it begins.
        half: Convolve in bfloat16; weights, sums over the picture and whatever follows stay float32.
        device: Of torch.
        output: The tensor that it gives.

    Attributes:
        parameters: Name in the graph -> trainable tensor.
    """

    def __init__(
        self, model: onnx.ModelProto, cut: Cut, *, half: bool = False, device: str = "cpu", output: str = FEATURES
    ) -> None:
        import onnx
        import torch
        from onnx import numpy_helper
        from onnx.utils import Extractor

        part = model if cut.name == INPUT else Extractor(model).extract_model([cut.name], [output])
        operations = _operations(half=False)
        quick = _operations(half=True) if half else operations
        unknown = sorted({node.op_type for node in part.graph.node} - set(operations) - {"Constant"})
        if unknown:
            raise TrainingError(
                f"The backbone uses {', '.join(unknown)}, which fine-tuning cannot follow backwards.",
                expected=f"a network of {', '.join(sorted(operations))}.",
                do="Train with the recipe `head`, or choose another train.backbone.",
                operations=unknown,
            )
        self.cut = cut
        self.output = output
        self.device = device
        self.parameters: dict[str, Tensor] = {}
        self._fixed: dict[str, Any] = {}
        self._scales: dict[str, Tensor] = {}
        weights = {name for node in part.graph.node for name in _weights_of(node)}
        for tensor in part.graph.initializer:
            self._take(tensor.name, np.array(numpy_helper.to_array(tensor)), trainable=tensor.name in weights)
        self._nodes = []
        for node in part.graph.node:
            attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            if node.op_type == "Constant":
                self._take(node.output[0], np.array(numpy_helper.to_array(attributes["value"])), trainable=False)
            else:
                kinds = (quick[node.op_type], operations[node.op_type])
                self._nodes.append((kinds, list(node.input), list(node.output), attributes))
        self._last_use = {name: place for place, node in enumerate(self._nodes) for name in node[1]}
        for values in self.parameters.values():
            values.requires_grad_(True)
        self._torch = torch

    def _take(self, name: str, value: NDArray[Any], *, trainable: bool) -> None:
        import torch

        if not trainable:
            # What shapes and bounds are made of stays in numpy: torch wants them as Python numbers.
            small = value.size <= 8 and value.ndim <= 1
            self._fixed[name] = value if small or value.dtype.kind != "f" else torch.from_numpy(value).to(self.device)
            return
        tensor = torch.from_numpy(value.astype(np.float32))
        if tensor.ndim == _MAP_DIMENSIONS:
            # Folded batch normalisation leaves channels of very different scales in one kernel. Dividing each by its
            # own scale gives the optimiser weights of one size, as they were before folding.
            fan = tensor[0].numel()
            scale = (tensor.pow(2).mean(dim=(1, 2, 3), keepdim=True).sqrt() * fan**0.5).clamp(min=1e-6)
            self._scales[name] = scale.to(self.device)
            tensor = tensor / scale
        self.parameters[name] = tensor.to(self.device).contiguous()

    def weight(self, name: str, value: Tensor = None) -> Any:
        """A weight as the graph's operations take it; of another ``value`` than the present one where it is given."""
        if name in self._fixed:
            return self._fixed[name]
        value = self.parameters[name] if value is None else value
        scale = self._scales.get(name)
        return value if scale is None else value * scale

    def __call__(self, maps: Tensor, *, exact: bool = False) -> Tensor:
        """The output (features (n, d)) of activations at the cut (n, channels, height, width); ``exact`` in float32."""
        values: dict[str, Any] = {self.cut.name: maps}
        for place, (kinds, inputs, outputs, attributes) in enumerate(self._nodes):
            taken = [None if not name else values[name] if name in values else self.weight(name) for name in inputs]
            values[outputs[0]] = kinds[exact](taken, attributes)
            for name in inputs:
                if name in values and self._last_use[name] == place:
                    del values[name]
        found: Tensor = values[self.output]
        return found

    def state(self, values: Mapping[str, Tensor] | None = None) -> dict[str, NDArray[np.float32]]:
        """The weights as the graph names and scales them; of other ``values`` than the present ones where given."""
        with self._torch.no_grad():
            return {
                name: self.weight(name, value).detach().cpu().numpy()
                for name, value in (self.parameters if values is None else values).items()
            }

    def kept(self) -> dict[str, Tensor]:
        """The weights as they are trained, for a checkpoint."""
        return {name: value.detach() for name, value in self.parameters.items()}


def with_weights(model: onnx.ModelProto, weights: Mapping[str, NDArray[np.float32]]) -> bytes:
    """The same graph with other values in some of its weights."""
    from onnx import numpy_helper

    made = type(model).FromString(model.SerializeToString())
    for tensor in made.graph.initializer:
        if tensor.name in weights:
            value = np.ascontiguousarray(weights[tensor.name], np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return bytes(made.SerializeToString(deterministic=True))


_ACTIVATIONS = {"Clip", "Relu", "Sigmoid", "HardSigmoid", "HardSwish", "BatchNormalization", "Tanh"}


_ANY_SIZE = _ACTIVATIONS | {
    "Add", "AveragePool", "Concat", "Constant", "Conv", "Dropout", "Flatten", "GlobalAveragePool", "Identity",
    "MaxPool", "Mul", "ReduceMean",
}  # fmt: skip


def _weights_of(node: onnx.NodeProto) -> list[str]:
    """The inputs of a node that training changes. Of batch normalisation: gain and shift, never its statistics."""
    if node.op_type in ("Conv", "Gemm"):
        return [name for name in node.input[1:3] if name]
    if node.op_type == "BatchNormalization":
        return list(node.input[1:3])
    return [node.input[1]] if node.op_type in ("MatMul", "PRelu") else []


def _map_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[1], shape[2], shape[3]


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of each value, with 1 for the number of pictures, where ONNX can tell it."""
    graph = model.graph
    shapes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if len(dims) > 1 and all(dimension.HasField("dim_value") for dimension in dims[1:]):
            shapes[value.name] = (1, *(dimension.dim_value for dimension in dims[1:]))
    return shapes


def _operations(*, half: bool) -> dict[str, Operation]:  # noqa: PLR0915 - one table, and what its rows need
    """ONNX's operations in torch; each takes the inputs in order and the attributes."""
    import torch
    from torch.nn import functional

    def padded(x: Any, attributes: dict[str, Any], *, value: float = 0.0) -> tuple[Any, Any]:
        """The input and the padding that torch's own operation can do itself."""
        kind = attributes.get("auto_pad", b"NOTSET")
        pads = list(attributes.get("pads", [0, 0, 0, 0]))
        if kind in (b"SAME_UPPER", b"SAME_LOWER"):
            sides = attributes["kernel_shape"]
            strides = attributes.get("strides", [1, 1])
            before, after = [], []
            for size, side, stride in zip(x.shape[2:], sides, strides, strict=True):
                total = max((-(-size // stride) - 1) * stride + side - size, 0)
                small, large = total // 2, total - total // 2
                before.append(small if kind == b"SAME_UPPER" else large)
                after.append(large if kind == b"SAME_UPPER" else small)
            pads = before + after
        if pads[:2] == pads[2:]:
            return x, tuple(pads[:2])
        return functional.pad(x, (pads[1], pads[3], pads[0], pads[2]), value=value), (0, 0)

    def conv(given: list[Any], attributes: dict[str, Any]) -> Any:
        x, padding = padded(given[0], attributes)
        kind = torch.bfloat16 if half else torch.float32
        x, weight = x.to(kind), given[1].to(kind)
        bias = given[2].to(kind) if len(given) > 2 else None
        stride = tuple(attributes.get("strides", [1, 1]))
        groups = attributes.get("group", 1)
        dilation = tuple(attributes.get("dilations", [1, 1]))
        if max(dilation) > 1:
            return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)
        return convolve(x, weight, bias, stride=stride, padding=padding, groups=groups)

    def clip(given: list[Any], attributes: dict[str, Any]) -> Any:
        low = given[1] if len(given) > 1 else attributes.get("min")
        high = given[2] if len(given) > 2 else attributes.get("max")
        if low is None or high is None:
            least, most = (None if bound is None else float(bound) for bound in (low, high))
            return torch.clamp(given[0], min=least, max=most)
        return functional.hardtanh(given[0], float(low), float(high))

    def gemm(given: list[Any], attributes: dict[str, Any]) -> Any:
        x = given[0].t() if attributes.get("transA", 0) else given[0]
        weight = given[1] if attributes.get("transB", 0) else given[1].t()
        shift = given[2] * attributes.get("beta", 1.0) if len(given) > 2 else None
        return functional.linear(x.float(), weight * attributes.get("alpha", 1.0), shift)

    def batch_norm(given: list[Any], attributes: dict[str, Any]) -> Any:
        x, gain, shift, mean, variance = given[0].float(), *given[1:]
        mean, variance = (torch.as_tensor(each, dtype=gain.dtype, device=x.device) for each in (mean, variance))
        return functional.batch_norm(x, mean, variance, gain, shift, False, 0.0, attributes.get("epsilon", 1e-5))

    def pool(given: list[Any], attributes: dict[str, Any], *, largest: bool) -> Any:
        sides, strides = tuple(attributes["kernel_shape"]), tuple(attributes.get("strides", [1, 1]))
        x, padding = padded(given[0], attributes, value=float("-inf") if largest else 0.0)
        if largest:
            return functional.max_pool2d(x, sides, strides, padding)
        return functional.avg_pool2d(
            x, sides, strides, padding, count_include_pad=bool(attributes.get("count_include_pad", 0))
        )

    def mean(given: list[Any], attributes: dict[str, Any]) -> Any:
        axes = attributes.get("axes") or [int(axis) for axis in given[1]]
        return given[0].float().mean(dim=tuple(axes), keepdim=bool(attributes.get("keepdims", 1)))

    def reshape(given: list[Any], _attributes: dict[str, Any]) -> Any:
        x, wanted = given[0], [int(side) for side in given[1]]
        return x.reshape([x.shape[place] if side == 0 else side for place, side in enumerate(wanted)])

    def enlarge(given: list[Any], attributes: dict[str, Any]) -> Any:
        mode = attributes.get("coordinate_transformation_mode", b"half_pixel")
        if attributes.get("mode") != b"linear" or mode not in (b"half_pixel", b"pytorch_half_pixel"):
            raise TrainingError(
                "The network enlarges a map in a way that fine-tuning cannot follow backwards.",
                expected="linear interpolation between the middles of pixels.",
                do="Choose another network.",
            )
        factors = [float(factor) for factor in given[2]]
        return functional.interpolate(given[0], scale_factor=tuple(factors[2:]), mode="bilinear", align_corners=False)

    def pair(operation: Any) -> Operation:
        def combined(given: list[Any], _attributes: dict[str, Any]) -> Any:
            first, second = (_tensor(each, like=given) for each in given)
            if first.dtype != second.dtype:
                first, second = first.float(), second.float()
            return operation(first, second)

        return combined

    def _tensor(each: Any, *, like: list[Any]) -> Any:
        if not isinstance(each, np.ndarray):
            return each
        example = next(other for other in like if not isinstance(other, np.ndarray))
        return torch.as_tensor(each, dtype=example.dtype, device=example.device)

    return {
        "Add": pair(torch.add),
        "AveragePool": lambda given, attributes: pool(given, attributes, largest=False),
        "BatchNormalization": batch_norm,
        "Clip": clip,
        "Concat": lambda given, attributes: torch.cat(given, dim=attributes["axis"]),
        "Conv": conv,
        "Div": pair(torch.div),
        "Dropout": lambda given, _: given[0],
        "Flatten": lambda given, attributes: given[0].flatten(attributes.get("axis", 1)),
        "Gemm": gemm,
        "GlobalAveragePool": lambda given, _: given[0].float().mean(dim=(2, 3), keepdim=True),
        "HardSigmoid": lambda given, attributes: torch.clamp(
            given[0] * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5), 0, 1
        ),
        "HardSwish": lambda given, _: functional.hardswish(given[0]),
        "Identity": lambda given, _: given[0],
        "MatMul": pair(torch.matmul),
        "Max": pair(torch.maximum),
        "MaxPool": lambda given, attributes: pool(given, attributes, largest=True),
        "Mul": pair(torch.mul),
        "ReduceMax": lambda given, attributes: given[0].amax(
            dim=tuple(attributes["axes"]), keepdim=bool(attributes.get("keepdims", 1))
        ),
        "ReduceMean": mean,
        "Relu": lambda given, _: torch.relu(given[0]),
        "Reshape": reshape,
        "Resize": enlarge,
        "Sigmoid": lambda given, _: torch.sigmoid(given[0]),
        "Squeeze": lambda given, attributes: given[0].squeeze(
            tuple(attributes.get("axes") or [int(axis) for axis in given[1]])
        ),
        "Sub": pair(torch.sub),
        "Tanh": lambda given, _: torch.tanh(given[0]),
        "Transpose": lambda given, attributes: given[0].permute(*attributes["perm"]),
    }
