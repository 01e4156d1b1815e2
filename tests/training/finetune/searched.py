"""What a search works on: pictures that the small network tells apart only after some training."""

from __future__ import annotations

from typing import Any

import numpy as np

from keepsight.runtime.session import open_session
from keepsight.training.finetune.cache import Cache
from keepsight.training.finetune.network import cuts, features_only, trunk
from keepsight.training.finetune.settings import Plan
from keepsight.training.finetune.trials import Bench
from tests.training.finetune import small


def bench(count: int = 48, *, seed: int = 0, **plan: Any) -> Bench:
    """Stripes that lie or stand. The classifier begins with features of something else, so it knows nothing yet."""
    model = features_only(small.backbone().onnx)
    cut = next(each for each in cuts(model) if each.name == "stem")
    session: Any = open_session(trunk(model, cut))
    images = small.inputs(count)
    noise = np.random.default_rng(0).normal(0, 0.1, images.shape).astype(np.float32)
    maps, others = (
        session.run(None, {"image": each})[0].astype(np.float16).transpose(0, 2, 3, 1)
        for each in (images, images + noise)
    )
    values: dict[str, Any] = {"cut": cut.name, "half": False, "augmentations": (), "left_out": (), "views": 1}
    values |= {"view_size": small.SIDE, "steps": 70, "more_steps": 14, "hold_out": "groups", "batch": 16, **plan}
    places = np.arange(count)
    return Bench(
        model=model,
        cut=cut,
        cache=Cache(maps, others[:, None], np.ones(count, np.bool_)),
        labels=places % 2,
        features=np.random.default_rng(1).normal(size=(count, small.CHANNELS)).astype(np.float32),
        rows=places[: count * 2 // 3],
        held=places[count * 2 // 3 :],
        classes=2,
        plan=Plan(**values),
        seed=seed,
    )
