"""Detectors on a pretrained backbone: torchvision's FCOS and SSDlite, and what they cost and give.

FCOS (Tian et al. 2019, arXiv:1904.01355) predicts from every place of a feature pyramid; SSDlite (Sandler et al. 2018)
corrects default boxes on coarser maps, which is quicker to serve and blind to small things. The backbone's batch
normalisation is folded into its convolutions, so it stays as it was trained, and its early blocks are frozen.
"""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from keepsight.errors import TrainingError
from keepsight.zoo.torch_networks import TorchNetwork

FCOS, SSDLITE = "fcos", "ssdlite"
ARCHITECTURES = (FCOS, SSDLITE)
# Maps of the backbone that detectors look at, by how many pixels lie between their places.
STRIDES = (8, 16, 32)
_FROZEN_UP_TO = 4
_CHANNELS = 96
_TOWER = 2
_LEVELS = 5
_PROBE = 128
_FOLD_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Trunk:
    """A backbone in three parts that end at :data:`STRIDES`, behind a frozen beginning.

    Attributes:
        frozen: From the picture to a quarter of its size or less; never trained.
        parts: The rest, by stride.
        channels: Of the maps.
    """

    frozen: Any
    parts: Sequence[Any]
    channels: tuple[int, ...]


def trunk(network: TorchNetwork) -> Trunk:
    """The backbone cut at its strides; the last convolution before its pool, made for classes, is left out.

    Raises:
        TrainingError: Its maps do not shrink by half at a time.
    """
    import torch

    stages = [(name, stage) for name, stage in network.stages if name != "head"]
    x = torch.zeros(1, 3, _PROBE, _PROBE)
    shapes = []
    with torch.no_grad():
        for _, stage in stages:
            x = stage(x)
            shapes.append(tuple(x.shape))
    strides = [_PROBE // shape[2] if len(shape) == 4 else 0 for shape in shapes]
    if not set(STRIDES) <= set(strides) or strides != sorted(strides):
        raise TrainingError(
            f"The backbone {network.name} has maps at every {', '.join(map(str, sorted(set(strides))))} pixels.",
            expected=f"a convolutional network with maps at every {', '.join(map(str, STRIDES))} pixels.",
            do="Choose another train.backbone, such as efficientnet-lite0.",
        )
    ends = [max(place for place, stride in enumerate(strides) if stride == wanted) + 1 for wanted in STRIDES]
    early = sum(stride <= _FROZEN_UP_TO for stride in strides)
    modules = [folded(stage) for _, stage in stages]
    parts, start = [], early
    for end in ends:
        parts.append(torch.nn.Sequential(*modules[start:end]))
        start = end
    return Trunk(torch.nn.Sequential(*modules[:early]), parts, tuple(shapes[end - 1][1] for end in ends))


def folded(module: Any) -> Any:
    """A copy whose batch normalisations are folded into the convolutions before them, where that changes nothing."""
    import torch
    from torch.nn.utils import fuse_conv_bn_eval

    original = module.eval()
    made = copy.deepcopy(original)
    for parent in list(made.modules()):
        children = list(parent.named_children())
        for (name, first), (other, second) in pairwise(children):
            if isinstance(first, torch.nn.Conv2d) and isinstance(second, torch.nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(first, second))
                setattr(parent, other, getattr(second, "act", torch.nn.Identity()))
    first_conv = next((item for item in original.modules() if isinstance(item, torch.nn.Conv2d)), None)
    if first_conv is None:
        return made
    channels = first_conv.in_channels
    noise = torch.rand((1, channels, 32, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        wanted, found = original(noise), made(noise)
    return (
        made if torch.allclose(wanted, found, atol=_FOLD_TOLERANCE, rtol=_FOLD_TOLERANCE) else copy.deepcopy(original)
    )


@dataclass
class Detector:
    """A network that trains on boxes, with what turns its maps into boxes.

    Attributes:
        module: All parameters; its ``backbone`` gives the maps that the head looks at.
        architecture: "fcos" or "ssdlite".
        loss: From images and targets (``boxes`` and ``labels`` per picture) to the loss.
        decoded: From images to corners (n, m, 4) in pixels, class scores (n, m, k) and the last map of the backbone.
        slow: Parameters that were pretrained.
        fast: New parameters.
    """

    module: Any
    architecture: str
    loss: Callable[[Any, Sequence[Mapping[str, Any]]], Any]
    decoded: Callable[[Any], tuple[Any, Any, Any]]
    slow: list[Any] = field(default_factory=list)
    fast: list[Any] = field(default_factory=list)

    def train(self) -> None:
        """Switches the new layers to training; the backbone has nothing that could be switched."""
        self.module.train()
        self.module.backbone.trunk_eval()

    def eval(self) -> None:
        """Switches to serving."""
        self.module.eval()

    def trained(self) -> Iterator[tuple[str, Any]]:
        """Names and tensors that training changes, running statistics included."""
        for name, value in self.module.state_dict().items():
            if not name.startswith("backbone.frozen.") and value.is_floating_point():
                yield name, value


def build(
    network: TorchNetwork, architecture: str, *, classes: int, size: int, scales: Sequence[float], seed: int
) -> Detector:
    """A detector with new, random heads on the backbone.

    Args:
        network: The backbone.
        architecture: "fcos" or "ssdlite".
        classes: How many.
        size: Side of its square input.
        scales: For SSDlite: sides of the default boxes as shares of the picture's, one for each of the five maps and
            one more.
        seed: Of the random weights.
    """
    import torch

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        make = _fcos if architecture == FCOS else partial(_ssdlite, scales=scales)
        detector = make(_backbones()[architecture](trunk(network)), classes=classes, size=size)
    detector.module.to(memory_format=torch.channels_last)
    for parameter in detector.module.backbone.frozen.parameters():
        parameter.requires_grad_(False)
    pretrained = {id(parameter) for part in detector.module.backbone.parts for parameter in part.parameters()}
    for parameter in detector.module.parameters():
        if parameter.requires_grad:
            (detector.slow if id(parameter) in pretrained else detector.fast).append(parameter)
    return detector


def _backbones() -> dict[str, Any]:
    import torch
    from torch import nn
    from torchvision.ops import FeaturePyramidNetwork
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    class Base(nn.Module):  # type: ignore[misc] # its type is not known to mypy
        def __init__(self, cut: Trunk) -> None:
            super().__init__()
            self.frozen = cut.frozen
            self.parts = nn.ModuleList(cut.parts)

        def trunk_eval(self) -> None:
            self.frozen.eval()
            self.parts.eval()

        def maps(self, x: Any) -> list[Any]:
            with torch.no_grad():
                x = self.frozen(x)
            found = []
            for part in self.parts:
                x = part(x)
                found.append(x)
            return found

    class Pyramid(Base):
        def __init__(self, cut: Trunk) -> None:
            super().__init__(cut)
            self.out_channels = _CHANNELS
            extra = LastLevelP6P7(_CHANNELS, _CHANNELS)
            self.pyramid = FeaturePyramidNetwork(list(cut.channels), _CHANNELS, extra_blocks=extra)

        def forward(self, x: Any) -> OrderedDict[str, Any]:
            maps = self.maps(x)
            found: OrderedDict[str, Any] = self.pyramid(OrderedDict(zip("012", maps, strict=True)))
            found["last"] = maps[-1]
            return found

    class Steps(Base):
        def __init__(self, cut: Trunk) -> None:
            super().__init__(cut)
            channels = cut.channels[-1]
            self.extra = nn.ModuleList()
            for outward in (256, 128):
                self.extra.append(_smaller(channels, outward))
                channels = outward
            self.channels = [*cut.channels, 256, 128]

        def forward(self, x: Any) -> OrderedDict[str, Any]:
            maps = self.maps(x)
            last = maps[-1]
            for step in self.extra:
                maps.append(step(maps[-1]))
            found = OrderedDict((str(number), each) for number, each in enumerate(maps))
            found["last"] = last
            return found

    return {FCOS: Pyramid, SSDLITE: Steps}


def _norm() -> Any:
    from torch import nn

    return partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)


def _smaller(inward: int, outward: int) -> Any:
    """A map of half the side: narrowed, convolved by channel, widened."""
    from torch import nn

    between = outward // 2
    return nn.Sequential(
        nn.Conv2d(inward, between, 1, bias=False),
        _norm()(between),
        nn.ReLU6(inplace=True),
        nn.Conv2d(between, between, 3, stride=2, padding=1, groups=between, bias=False),
        _norm()(between),
        nn.ReLU6(inplace=True),
        nn.Conv2d(between, outward, 1, bias=False),
        _norm()(outward),
        nn.ReLU6(inplace=True),
    )


def _regression(anchors: int) -> Any:
    """torchvision's regression head with a softplus for its ReLU.

    A distance that the ReLU cuts to zero has no gradient. Where the first steps push all of them there, as small, flat
    boxes do, every box stays a point for ever, while its score goes on learning.
    """
    import torch
    from torchvision.models.detection import fcos

    class Regression(fcos.FCOSRegressionHead):  # type: ignore[misc] # its type is not known to mypy
        def forward(self, x: list[Any]) -> tuple[Any, Any]:
            distances: list[Any] = []
            centres: list[Any] = []
            for each in x:
                seen = self.conv(each)
                found = torch.nn.functional.softplus(self.bbox_reg(seen))
                for outputs, maps, width in ((distances, found, 4), (centres, self.bbox_ctrness(seen), 1)):
                    n, _, height, columns = maps.shape
                    by_place = maps.view(n, -1, width, height, columns).permute(0, 3, 4, 1, 2)
                    outputs.append(by_place.reshape(n, -1, width))
            return torch.cat(distances, dim=1), torch.cat(centres, dim=1)

    return Regression(_CHANNELS, anchors, num_convs=_TOWER)


def _fcos(backbone: Any, *, classes: int, size: int) -> Detector:
    import torch
    from torchvision.models.detection import fcos
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    strides = [STRIDES[0] * 2**level for level in range(_LEVELS)]
    generator = AnchorGenerator(tuple((stride,) for stride in strides), ((1.0,),) * _LEVELS)
    head = fcos.FCOSHead(_CHANNELS, generator.num_anchors_per_location()[0], classes, num_convs=_TOWER)
    head.regression_head = _regression(generator.num_anchors_per_location()[0])
    module = fcos.FCOS(backbone, classes, anchor_generator=generator, head=head)

    def seen(images: Any) -> tuple[Any, Any, list[Any]]:
        maps = module.backbone(images)
        last = maps.pop("last")
        listed = list(maps.values())
        return module.head(listed), last, listed

    def loss(images: Any, targets: Sequence[Mapping[str, Any]]) -> Any:
        outputs, _, maps = seen(images)
        anchors = module.anchor_generator(ImageList(images, [(size, size)] * len(images)), maps)
        counts = [each.shape[2] * each.shape[3] for each in maps]
        return sum(module.compute_loss(list(targets), outputs, anchors, counts).values())

    with torch.no_grad():
        module.eval()
        _, _, maps = seen(torch.zeros(1, 3, size, size))
        anchors = module.anchor_generator(ImageList(torch.zeros(1, 3, size, size), [(size, size)]), maps)[0]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    sides = anchors[:, 2:] - anchors[:, :2]

    def decoded(images: Any) -> tuple[Any, Any, Any]:
        outputs, last, _ = seen(images)
        offsets = outputs["bbox_regression"]
        corners = torch.cat([centres - offsets[..., :2] * sides, centres + offsets[..., 2:] * sides], dim=-1)
        scores = (outputs["cls_logits"].sigmoid() * outputs["bbox_ctrness"].sigmoid()).sqrt()
        return corners, scores, last

    return Detector(module, FCOS, loss, decoded)


def _ssdlite(backbone: Any, *, classes: int, size: int, scales: Sequence[float]) -> Detector:
    import torch
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.ssd import SSD
    from torchvision.models.detection.ssdlite import SSDLiteHead

    generator = DefaultBoxGenerator([[2, 3]] * _LEVELS, scales=list(scales), clip=False)
    head = SSDLiteHead(backbone.channels, generator.num_anchors_per_location(), classes + 1, _norm())
    module = SSD(backbone, generator, (size, size), classes + 1, head=head)

    def seen(images: Any) -> tuple[Any, Any, list[Any]]:
        maps = module.backbone(images)
        last = maps.pop("last")
        listed = list(maps.values())
        return module.head(listed), last, listed

    with torch.no_grad():
        module.eval()
        _, _, maps = seen(torch.zeros(1, 3, size, size))
        anchors = module.anchor_generator(ImageList(torch.zeros(1, 3, size, size), [(size, size)]), maps)[0]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    sides = anchors[:, 2:] - anchors[:, :2]

    def loss(images: Any, targets: Sequence[Mapping[str, Any]]) -> Any:
        from torchvision.ops import box_iou

        outputs, _, _ = seen(images)
        shifted = [{"boxes": each["boxes"], "labels": each["labels"] + 1} for each in targets]
        matched = [
            module.proposal_matcher(box_iou(each["boxes"], anchors))
            if len(each["boxes"])
            else torch.full((len(anchors),), -1, dtype=torch.int64)
            for each in targets
        ]
        return sum(module.compute_loss(shifted, outputs, [anchors] * len(images), matched).values())

    def decoded(images: Any) -> tuple[Any, Any, Any]:
        outputs, last, _ = seen(images)
        moves = outputs["bbox_regression"]
        middle = moves[..., :2] / 10 * sides + centres
        half = (moves[..., 2:] / 5).clamp(max=4.0).exp() * sides / 2
        scores = outputs["cls_logits"].softmax(dim=-1)[..., 1:]
        return torch.cat([middle - half, middle + half], dim=-1), scores, last

    return Detector(module, SSDLITE, loss, decoded)
