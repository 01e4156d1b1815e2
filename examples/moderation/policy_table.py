"""Writes policy.csv: which of four data sets' pictures show a licence plate or a person, and which neither.

    python policy_table.py DATA

``DATA`` holds the folders clothing-coparsing-masks, faces-families, grocery-store, license-plates and receipts-sroie.
The faces are in no training split: they show persons in pictures of another kind than the clothing photos that train.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterator
from pathlib import Path

# Grocery pictures taken of each split; the others are taken whole.
GROCERIES = {"train": 150, "val": 30, "test": 100}


def rows(data: Path) -> Iterator[tuple[Path, str, str, str]]:
    """(picture, flags, split, data set) of all pictures."""
    for given, split in (("train", "train"), ("val", "val"), ("night", "test")):
        for path in sorted((data / "license-plates" / given / "images").glob("*.jpg")):
            yield path, "plate visible", split, "license-plates"
    for split in ("train", "val", "test"):
        for path in sorted((data / "clothing-coparsing-masks" / split / "images").glob("*.jpg")):
            yield path, "person visible", split, "clothing"
    for path in sorted((data / "faces-families").rglob("*.jpg")):
        yield path, "person visible", "test", "faces"
    chosen = random.Random(0)  # noqa: S311 - a repeatable choice, no secret
    for split, count in GROCERIES.items():
        for path in sorted(chosen.sample(sorted((data / "grocery-store" / split).rglob("*.jpg")), count)):
            yield path, "allowed", split, "groceries"
    for split in ("train", "test"):
        for path in sorted((data / "receipts-sroie" / split / "images").glob("*.jpg")):
            yield path, "allowed", split, "receipts"


def main() -> None:
    """Writes the table into the current folder."""
    with Path("policy.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "split", "source"))
        table.writerows(rows(Path(sys.argv[1]).resolve()))


if __name__ == "__main__":
    main()
