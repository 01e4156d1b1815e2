"""A trained detector as the graph that is served: from the picture to boxes in its pixels and calibrated chances."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.errors import TrainingError
from keepsight.runtime.outputs.detection import TENSORS
from keepsight.runtime.session import FEATURES, INPUT, open_session, run
from keepsight.training.detection.network import Detector
from keepsight.zoo.timm_stages import fix_paddings, tidied

_OPSET = 17
_LEAST = 1e-6
# Sums in another order; chances are compared as they are, corners in pixels.
_TOLERANCES = {"scores": 5e-3, "boxes": 0.5}


@dataclass(frozen=True)
class Calibration:
    """From scores to the chances that boxes are right: sigmoid(slope * logit + offset) for each class (Platt 1999)."""

    slopes: tuple[float, ...]
    offsets: tuple[float, ...]

    @classmethod
    def none(cls, classes: int) -> Calibration:
        """Scores as they are."""
        return cls((1.0,) * classes, (0.0,) * classes)


def export(detector: Detector, calibration: Calibration, *, size: int) -> bytes:
    """The ONNX network: ``image`` (n, 3, size, size) to ``features``, ``boxes`` and ``scores``.

    The detector's paddings are fixed to this size by it, so it is of no use for another one afterwards.

    Raises:
        TrainingError: The exported network gives something else than the trained one.
    """
    import torch
    from torch import nn

    slopes, offsets = torch.tensor(calibration.slopes), torch.tensor(calibration.offsets)

    class Serving(nn.Module):  # type: ignore[misc] # its type is not known to mypy
        def __init__(self) -> None:
            super().__init__()
            self.detector = detector.module

        def forward(self, image: Any) -> tuple[Any, Any, Any]:
            boxes, scores, last = detector.decoded(image)
            sure = scores.clamp(_LEAST, 1 - _LEAST)
            logits = torch.log(sure) - torch.log(1 - sure)
            chances = torch.sigmoid(logits * slopes + offsets)
            return last.mean(dim=(2, 3)), boxes, chances

    names = [FEATURES, *TENSORS]
    serving = Serving().eval()
    noise = torch.rand((2, 3, size, size), generator=torch.Generator().manual_seed(0)) * 2 - 1
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # This exporter is deprecated, yet the only one that takes these networks; its notes are for its authors.
        warnings.simplefilter("ignore")
        wanted = dict(zip(names, serving(noise), strict=True))
        fix_paddings(serving, size=size)
        torch.onnx.export(
            serving,
            (noise,),
            buffer,
            dynamo=False,
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=names,
            dynamic_axes={name: {0: "n"} for name in (INPUT, *names)},
            do_constant_folding=True,
        )
    model = tidied(buffer.getvalue())
    found = run(open_session(model), noise.numpy(), outputs=names)
    for name, tolerance in _TOLERANCES.items():
        difference = float(np.abs(_array(found[name]) - wanted[name].numpy()).max())
        if not difference <= tolerance:
            raise TrainingError(
                f"The exported network's {name} differ from the trained one's by {difference:.3g}.",
                expected=f"at most {tolerance}.",
                do="Report this with the backbone's name and the versions of torch and onnxruntime.",
                difference=difference,
            )
    return model


def _array(value: Any) -> NDArray[np.float32]:
    return np.asarray(value, np.float32)
