"""The classifier of a fine-tune, which is trained alone first and then together with the network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Classifier:
    """A linear layer on standardised features; the standardisation is folded into it when it is exported."""

    def __init__(self, features: NDArray[np.float32], n_classes: int, *, device: str = "cpu") -> None:
        import torch

        mean, deviation = features.mean(axis=0), features.std(axis=0)
        # Channels that are nearly silent on these pictures must not become loud.
        floor = max(float(np.median(deviation)) * 0.2, 1e-6)
        self.mean = torch.from_numpy(mean.astype(np.float32)).to(device)
        self.scale = torch.from_numpy((1 / np.maximum(deviation, floor)).astype(np.float32)).to(device)
        self.weight = torch.zeros(n_classes, features.shape[1], device=device, requires_grad=True)
        self.bias = torch.zeros(n_classes, device=device, requires_grad=True)

    def __call__(self, features: Any, *, dropout: float = 0.0) -> Any:
        """Logits (n, k)."""
        from torch.nn import functional

        x = (features.float() - self.mean) * self.scale
        return functional.linear(functional.dropout(x, dropout, training=dropout > 0), self.weight, self.bias)

    def probe(self, features: NDArray[np.float32], labels: NDArray[np.int64], *, iterations: int = 40) -> None:
        """Fits the classifier alone, so that training begins where a frozen network ends (Kumar et al. 2022)."""
        import torch
        from torch.nn import functional

        x = (torch.from_numpy(features).to(self.weight.device) - self.mean) * self.scale
        y = torch.from_numpy(labels).to(self.weight.device)
        optimizer = torch.optim.LBFGS([self.weight, self.bias], max_iter=iterations, history_size=10)

        def loss() -> Any:
            optimizer.zero_grad()
            logits = functional.linear(x, self.weight, self.bias)
            found = functional.cross_entropy(logits, y, label_smoothing=0.1) + 0.02 * self.weight.pow(2).sum() / 2
            found.backward()
            return found

        optimizer.step(loss)

    def linear(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weight (k, d) and bias (k,) for features as the network gives them."""
        import torch

        with torch.no_grad():
            weight = self.weight * self.scale
            bias = self.bias - weight @ self.mean
        return weight.cpu().numpy(), bias.cpu().numpy()
