"""Takes a timm network apart into stages, and exports stages as an ONNX graph; needs the extra [train].

timm builds most of its networks from children that run one after the other: a stem, stages of blocks, a last
convolution, pooling. Which children those are is read from their names, and it counts only when a picture of noise
gives the same through the stages as through the network itself; any other network is one stage that cannot be cut.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keepsight.errors import WeightsError
from keepsight.runtime.session import FEATURES, INPUT, open_session, run

if TYPE_CHECKING:
    import onnx
    from torch import nn

Stages = tuple[tuple[str, "nn.Module"], ...]

GRAPH_VERSION = 1  # part of the cache's file names: count up when the graph exported from the same weights changes
WHOLE = "all"

_OPSET = 17
# Float32 sums in another order (folded batch normalisation, other kernels) differ by less.
_TOLERANCE = 1e-4
_LISTS = {"blocks": "block", "stages": "stage", "layers": "layer", "features": "feature"}
_ONE_STAGE = re.compile(r"(layer|level|stage|s)\d+|Mixed_\w+")
_POOLS = {"global_pool", "head", "head_drop", "pre_logits", "fc", "classifier"}


def efficientnet(model: Any) -> Stages:
    """Stem, residual blocks and last convolution of a network of timm's EfficientNet family."""
    stages = _named(model)
    if stages is None:
        raise RuntimeError("a network of the EfficientNet family has no blocks")
    return stages[0]


def split(model: Any, *, size: int) -> tuple[Stages, nn.Module, int]:
    """Stages, pool and number of features of a timm network without classifier, which is left in eval mode.

    Args:
        model: Has no classifier (``num_classes=0``).
        size: Side of its square input in pixels.

    Raises:
        WeightsError: The network does not give one vector per picture.
    """
    import torch

    model.eval()
    noise = torch.rand((2, 3, size, size), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        wanted = model(noise.clone())
    if not isinstance(wanted, torch.Tensor) or wanted.ndim != 2 or not torch.isfinite(wanted).all():
        shape = tuple(wanted.shape) if isinstance(wanted, torch.Tensor) else type(wanted).__name__
        raise WeightsError(
            f"This network cannot serve as a backbone: it gives {shape} for two pictures.",
            expected="a network that gives one vector of finite numbers per picture.",
            do="Choose a network for classification.",
        )
    features_dim = int(wanted.shape[1])
    for divide in (_named, _transformer):
        found = divide(model)
        if found is not None and _agrees(found, noise, wanted):
            return (*found, features_dim)
    return ((WHOLE, model),), torch.nn.Identity(), features_dim


def export(modules: Sequence[nn.Module], *, size: int) -> bytes:
    """The ONNX model of modules that run one after the other: ``image`` (n, 3, size, size) to ``features`` (n, d).

    It is the network as it is used, not as it was trained: batch normalisation and parallel branches are folded into
    the convolutions where they can be, and paddings stand in the convolutions. The graph is run and compared with the
    modules before it is given; they are left as they were.

    Raises:
        WeightsError: The network cannot be expressed in ONNX, or not for any number of pictures.
    """
    import torch
    from timm.models import reparameterize_model

    original = torch.nn.Sequential(*modules).eval()
    network = reparameterize_model(original)
    fix_paddings(network, size=size)
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # This exporter is deprecated, yet the one whose graphs onnxruntime fuses; its notes are for its authors.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (torch.zeros(2, 3, size, size),),
                buffer,
                dynamo=False,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=[FEATURES],
                dynamic_axes={INPUT: {0: "n"}, FEATURES: {0: "n"}},
                do_constant_folding=True,
            )
    except (RuntimeError, TypeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        raise _not_exported(str(error).partition("\n")[0]) from error
    model = tidied(buffer.getvalue())
    noise = torch.rand((3, 3, size, size), generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        wanted = original(noise).numpy()
    found = run(open_session(model, threads=1), noise.numpy(), outputs=[FEATURES])[FEATURES]
    if found.shape != wanted.shape or np.abs(found - wanted).max() > _TOLERANCE * max(1.0, np.abs(wanted).max()):
        raise _not_exported("the exported graph gives other features than the network")
    return model


def fix_paddings(network: nn.Module, *, size: int) -> None:
    """Replaces paddings that are computed from a map's size by those that this size gives (TensorFlow's "SAME")."""
    import torch
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.padding import pad_same_arg

    sides: dict[int, tuple[int, int]] = {}
    same = [module for module in network.modules() if isinstance(module, Conv2dSame)]
    hooks = [
        module.register_forward_pre_hook(lambda module, given: sides.update({id(module): given[0].shape[-2:]}))
        for module in same
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, Conv2dSame) or id(child) not in sides:
                continue
            pads = pad_same_arg(list(sides[id(child)]), list(child.kernel_size), list(child.stride), child.dilation)
            plain = torch.nn.Conv2d(
                child.in_channels,
                child.out_channels,
                child.kernel_size,
                child.stride,
                dilation=child.dilation,
                groups=child.groups,
                bias=child.bias is not None,
            )
            plain.weight, plain.bias = child.weight, child.bias
            setattr(parent, name, torch.nn.Sequential(torch.nn.ZeroPad2d(pads), plain).eval())


def tidied(model: bytes) -> bytes:
    """The same graph with constants as initializers and zero paddings inside the convolutions behind them."""
    import onnx
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    made = onnx.load_model_from_string(model)
    graph = made.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    computed = set()
    for node in list(graph.node):
        given = {name: constants[name] for name in node.input if name in constants}
        nested = any(attribute.HasField("g") for attribute in node.attribute)
        if node.op_type == "Constant" or (given and len(given) == len({*node.input}) and not nested):
            values = ReferenceEvaluator(_only(node, made)).run(None, given)
            constants.update(zip(node.output, map(np.asarray, values), strict=True))
            computed.update(node.output)
            graph.node.remove(node)
    graph.initializer.extend(numpy_helper.from_array(constants[name], name) for name in sorted(computed))
    uses = [name for node in graph.node for name in node.input]
    pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad" and uses.count(node.output[0]) == 1}
    for conv in graph.node:
        pad = pads.get(conv.input[0]) if conv.op_type == "Conv" else None
        if pad is None or pad.input[1] not in constants:
            continue
        sides = [int(side) for side in constants[pad.input[1]]]
        value = constants.get(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else None
        zero = len(pad.input) < 3 or not pad.input[2] or (value is not None and not value.any())
        kinds = [attribute.s for attribute in pad.attribute if attribute.name == "mode"]
        own = next((attribute for attribute in conv.attribute if attribute.name == "pads"), None)
        plain = kinds in ([], [b"constant"]) and zero and len(sides) == 8 and not any(sides[:2] + sides[4:6])
        if not plain or own is None or min(sides) < 0:
            continue
        together = [before + after for before, after in zip(own.ints, sides[2:4] + sides[6:8], strict=True)]
        own.ints[:] = together
        conv.input[0] = pad.input[0]
        graph.node.remove(pad)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString(deterministic=True))


def _only(node: onnx.NodeProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of one node."""
    from onnx import helper

    inputs = [helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(node.input)]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    return helper.make_model(
        helper.make_graph([node], "node", inputs, outputs),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )


def _not_exported(reason: str) -> WeightsError:
    return WeightsError(
        f"This network cannot be exported as an ONNX graph: {reason}.",
        expected="a network whose layers ONNX knows.",
        do="Choose another network, such as timm/resnet18.a1_in1k.",
        reason=reason,
    )


def _named(model: Any) -> tuple[Stages, nn.Module] | None:
    """Children that run one after the other, by their names; None where there are no stages among them."""
    from torch import nn

    stages: list[tuple[str, nn.Module]] = []
    waiting: list[nn.Module] = []  # before the first stage: the stem; behind the last one: the head
    pool: list[nn.Module] = []
    for name, child in model.named_children():
        parts = _parts(name, child)
        if pool or (stages and name in _POOLS):
            pool.append(child)
        elif parts:
            if waiting:
                stages.append(("stem" if not stages else f"before_{parts[0][0]}", _sequence(waiting)))
                waiting = []
            stages += parts
        else:
            waiting.append(child)
    if not stages:
        return None
    if any(not isinstance(child, nn.Identity) for child in waiting):
        stages.append(("head", _sequence(waiting)))
    return tuple(stages), _sequence(pool)


def _parts(name: str, child: Any) -> list[tuple[str, nn.Module]]:
    from torch import nn

    if _ONE_STAGE.fullmatch(name):
        return [(name, child)]
    if name not in _LISTS or not isinstance(child, nn.Sequential):
        return []
    inner = list(child)
    if name == "blocks" and all(isinstance(item, nn.Sequential) for item in inner):
        inner = [block for stage in inner for block in stage]
    return [(f"{_LISTS[name]}{index}", item) for index, item in enumerate(inner)]


def _sequence(modules: Sequence[nn.Module]) -> nn.Module:
    from torch import nn

    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def _transformer(model: Any) -> tuple[Stages, nn.Module] | None:
    """Embedding, blocks and norm of a vision transformer; its stages give tokens (n, t, c), not maps."""
    if not all(hasattr(model, name) for name in ("_pos_embed", "patch_embed", "blocks", "norm", "forward_head")):
        return None

    def embed(part: Any, image: Any) -> Any:
        return part.norm_pre(part.patch_drop(part._pos_embed(part.patch_embed(image))))

    def pool(part: Any, tokens: Any) -> Any:
        return part.forward_head(tokens)

    before = ("patch_embed", "pos_drop", "patch_drop", "norm_pre")
    behind = [name for name, _ in model.named_children() if name not in {*before, "blocks", "norm"}]
    stem = _part(model, before, forward=embed, parameters=True)
    blocks = tuple((f"block{index}", block) for index, block in enumerate(model.blocks))
    return (("stem", stem), *blocks, ("head", model.norm)), _part(model, behind, forward=pool, parameters=False)


def _part(model: Any, children: Iterable[str], *, forward: Callable[[Any, Any], Any], parameters: bool) -> nn.Module:
    """A module with some children of ``model`` (the same ones, not copies), its settings and another ``forward``."""
    kind = type(model)
    part: Any = object.__new__(type(f"{kind.__name__}Part", (kind,), {"forward": forward}))
    part.__dict__.update(model.__dict__)
    kept = set(children)
    part.__dict__["_modules"] = {name: child for name, child in model._modules.items() if name in kept}
    part.__dict__["_parameters"] = dict(model._parameters) if parameters else {}
    part.__dict__["_buffers"] = dict(model._buffers)
    module: nn.Module = part
    return module


def _agrees(found: tuple[Stages, nn.Module], noise: Any, wanted: Any) -> bool:
    """Whether stages and pool, run one after the other, give what the network gives."""
    import torch

    stages, pool = found
    x = noise.clone()
    try:
        with torch.no_grad():
            for _, stage in stages:
                x = stage(x)
            x = pool(x)
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError):
        # Children that do not run one after the other; what they were given does not fit them.
        return False
    if not isinstance(x, torch.Tensor) or x.shape != wanted.shape:
        return False
    return bool((x - wanted).abs().max() <= _TOLERANCE * max(1.0, float(wanted.abs().max())))
