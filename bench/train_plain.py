"""What a developer would write in an afternoon: a linear probe, and a full fine-tune with timm (peers of train.py).

Prints a line of JSON for each measured point: seconds of wall time and of CPU time since the pictures lay on disk, and
top-1 on test. The full fine-tune reads test after every epoch to draw its curve; the product never does.

    python bench/train_plain.py probe|full --data ../shared/data/grocery-store --minutes 10
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 224
BATCH = 32
THREADS = os.cpu_count() or 1
MEAN, DEVIATION = 127.0, 128.0

Rows = list[tuple[Path, int]]


def main() -> None:
    """Runs one peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=("probe", "full"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    clock = Clock()
    train, test = rows(options.data, ("train", "val")), rows(options.data, ("test",))
    if options.peer == "probe":
        probe(train, test, clock)
    else:
        full(train, test, clock, seconds=options.minutes * 60)


class Clock:
    """Wall and CPU time since it was made; what is spent on the curve's own points does not count."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._off = (0.0, 0.0)

    def read(self) -> tuple[float, float]:
        """Seconds of wall time and of CPU time."""
        return time.monotonic() - self._wall - self._off[0], time.process_time() - self._cpu - self._off[1]

    def tell(self, name: str, accuracy: float, *, since: tuple[float, float]) -> None:
        """Prints a point that was reached at ``since``; the time after that was the look at test."""
        now = self.read()
        self._off = (self._off[0] + now[0] - since[0], self._off[1] + now[1] - since[1])
        point = {
            "name": name,
            "wall_s": round(since[0], 1),
            "cpu_s": round(since[1], 1),
            "accuracy": round(accuracy, 4),
        }
        sys.stdout.write(json.dumps(point) + "\n")
        sys.stdout.flush()


def rows(data: Path, splits: tuple[str, ...]) -> Rows:
    """Paths and class numbers."""
    found: Rows = []
    for split in splits:
        with (data / f"{split}.csv").open(newline="") as file:
            found += [(data / row["path"], int(row["class_id"])) for row in csv.DictReader(file)]
    return found


def network() -> Any:
    """timm's network with the same pretrained weights as the product's default."""
    from keepsight.zoo import torch_networks

    return torch_networks.load("efficientnet-lite0")


def centre(path: Path) -> NDArray[np.float32]:
    """The centre square, float32 (3, side, side)."""
    image = Image.open(path).convert("RGB")
    scale = SIDE / min(image.size)
    image = image.resize((max(SIDE, round(image.width * scale)), max(SIDE, round(image.height * scale))))
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return tensor(image.crop((left, top, left + SIDE, top + SIDE)))


def random_crop(path: Path, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random resized crop, flipped half of the time."""
    image = Image.open(path).convert("RGB")
    area = image.width * image.height * rng.uniform(0.35, 1.0)
    ratio = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
    width, height = min(image.width, int((area * ratio) ** 0.5)), min(image.height, int((area / ratio) ** 0.5))
    left, top = int(rng.integers(0, image.width - width + 1)), int(rng.integers(0, image.height - height + 1))
    image = image.crop((left, top, left + width, top + height)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return tensor(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image)


def tensor(image: Image.Image) -> NDArray[np.float32]:
    """float32 (3, side, side), normalised."""
    return np.ascontiguousarray(((np.asarray(image, np.float32) - MEAN) / DEVIATION).transpose(2, 0, 1))


def probe(train: Rows, test: Rows, clock: Clock) -> None:
    """Frozen features and scikit-learn's logistic regression."""
    import torch
    from sklearn.linear_model import LogisticRegression

    torch.set_num_threads(THREADS)
    loaded = network()
    model = torch.nn.Sequential(*(module for _, module in loaded.stages), loaded.pool).eval()

    def features(of: Rows) -> NDArray[np.float32]:
        parts = []
        with torch.inference_mode():
            for start in range(0, len(of), BATCH):
                batch = np.stack([centre(path) for path, _ in of[start : start + BATCH]])
                parts.append(model(torch.from_numpy(batch)).numpy())
        found = np.concatenate(parts)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))

    head = LogisticRegression(C=30.0, max_iter=1000).fit(features(train), [label for _, label in train])
    since = clock.read()
    right = head.predict(features(test)) == [label for _, label in test]
    clock.tell("linear probe", float(np.mean(right)), since=since)


def full(train: Rows, test: Rows, clock: Clock, *, seconds: float) -> None:
    """All layers, AdamW, one cycle over as many epochs as the time allows by the speed of the first batches."""
    import torch

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    loaded = network()
    classes = 1 + max(label for _, label in train)
    body = torch.nn.Sequential(*(module for _, module in loaded.stages), loaded.pool)
    model = torch.nn.Sequential(body, torch.nn.Linear(loaded.features_dim, classes)).to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.AdamW(
        [{"params": body.parameters(), "lr": 3e-4}, {"params": model[1].parameters(), "lr": 3e-3}], weight_decay=0.05
    )
    steps = len(train) // BATCH

    def epoch_s() -> float:
        began = time.monotonic()
        for _ in range(3):
            learn(np.arange(BATCH))
        return (time.monotonic() - began) / 3 * steps

    def learn(places: NDArray[np.int64]) -> None:
        model.train()
        batch = torch.from_numpy(np.stack([random_crop(train[place][0], rng) for place in places]))
        truth = torch.tensor([train[place][1] for place in places])
        scores = model(batch.contiguous(memory_format=torch.channels_last))
        loss = torch.nn.functional.cross_entropy(scores, truth, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for group in optimizer.param_groups:
        group["lr"] /= 100
    epochs = max(1, int((seconds - clock.read()[0]) / epoch_s()))
    for group in optimizer.param_groups:
        group["lr"] *= 100
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=epochs * steps, pct_start=0.2
    )
    for _ in range(epochs):
        order = rng.permutation(len(train))
        for step in range(steps):
            learn(order[step * BATCH : (step + 1) * BATCH])
            schedule.step()
        since = clock.read()
        model.eval()
        right: list[bool] = []
        with torch.inference_mode():
            for start in range(0, len(test), BATCH):
                part = test[start : start + BATCH]
                scores = model(torch.from_numpy(np.stack([centre(path) for path, _ in part])))
                right += (scores.argmax(dim=1).numpy() == [label for _, label in part]).tolist()
        clock.tell(f"full fine-tune, {epochs} epochs", float(np.mean(right)), since=since)


if __name__ == "__main__":
    main()
