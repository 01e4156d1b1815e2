"""How many shelf pictures a product needs: grocery-store's packshots as gallery, then 1, 3 and 5 more for each.

Everything goes through the command line. The packshots (``iconic``) are the gallery; further pictures are drawn from
``train`` by a seed, several draws; ``test`` is read once for each gallery. Top-1 is the share of test pictures whose
most similar name is the right one ("rank1"); identification is the share that is named rightly at the threshold that
lets one in a hundred strangers pass. One workspace holds all galleries, so that a picture's vector is computed once.

    KEEPSIGHT_TEST_DATA=DATA python bench/shots.py [--shots 0 1 3 5] [--draws 3] [--recipes gallery auto]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Prints a line for each number of pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 1, 3, 5])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--recipes", nargs="+", default=["gallery"])
    parser.add_argument("--workspace", type=Path, help="Kept; else a temporary folder.")
    options = parser.parse_args()
    data = Path(os.environ["KEEPSIGHT_TEST_DATA"]) / "grocery-store"
    with tempfile.TemporaryDirectory(prefix="keepsight-bench-") as folder:
        root = options.workspace or Path(folder)
        root.mkdir(exist_ok=True)
        for recipe in options.recipes:
            for shots in options.shots:
                draws = range(options.draws if shots else 1)
                report(recipe, shots, [run(root, data, recipe=recipe, shots=shots, seed=seed) for seed in draws])


def run(root: Path, data: Path, *, recipe: str, shots: int, seed: int) -> dict[str, Any]:
    """The figures of one gallery on the test pictures."""
    project = f"{recipe}-{shots}-{seed}"
    settings = root / "keepsight.yaml"
    if not settings.exists():
        settings.write_text("projects:\n")
    # Spoiling pictures on purpose tells nothing here and takes most of the time.
    with settings.open("a") as file:
        file.write(f"  {project}: {{task: recognition, evaluation: {{robustness_pictures: 0}}}}\n")
    table = root / f"{project}.csv"
    write(table, data, shots=shots, seed=seed)
    keepsight(root, "data", "import", project, str(table))
    keepsight(root, "train", project, "--recipe", recipe)
    found: dict[str, Any] = json.loads(keepsight(root, "models", "show", project, "--json"))["metrics"]
    return found


def write(table: Path, data: Path, *, shots: int, seed: int) -> None:
    """The table of a gallery: packshots and drawn pictures to enrol, test pictures to judge."""
    random = np.random.default_rng(seed)
    rows: list[tuple[Path, str, str]] = []
    for packshot in sorted((data / "iconic").glob("*.jpg")):
        rows.append((packshot, packshot.stem, "train"))
        given = sorted((data / "train" / packshot.stem).glob("*.jpg"))
        rows += [(given[place], packshot.stem, "train") for place in random.permutation(len(given))[:shots]]
        rows += [(path, packshot.stem, "test") for path in sorted((data / "test" / packshot.stem).glob("*.jpg"))]
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        writer.writerows((os.path.relpath(path, table.parent), label, split) for path, label, split in rows)


def report(recipe: str, shots: int, metrics: Sequence[dict[str, Any]]) -> None:
    """One line: means over the draws, and the smallest and largest."""
    told = []
    for name in ("rank1", "identification"):
        values = [each[name]["value"] for each in metrics]
        told.append(f"{name} {statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    first = metrics[0]["rank1"]
    told.append(f"first draw's interval {first['low']:.3f} to {first['high']:.3f}, n {first['n']}")
    told.append(f"AUC {statistics.mean(each['verification_auc']['value'] for each in metrics):.3f}")
    print(f"{recipe}, packshot + {shots}: " + "; ".join(told), flush=True)


def keepsight(root: Path, *arguments: str) -> str:
    """Runs a command in the workspace; what it printed."""
    command = [sys.executable, "-m", "keepsight", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
