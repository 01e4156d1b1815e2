"""Writes labels.csv: which garments a photo shows, of those that 12 to 78 training photos show.

python garments_table.py DATA/clothing-coparsing-masks
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

NOT_GARMENTS = {"null", "hair", "skin", ""}
FEWEST, MOST = 12, 78


def main() -> None:
    """Writes the table into the current folder."""
    folder = Path(sys.argv[1]).resolve()
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        photos = list(csv.DictReader(file))
    counts = Counter(label for photo in photos if photo["split"] == "train" for label in photo["labels"].split(" "))
    known = {label for label, count in counts.items() if FEWEST <= count <= MOST} - NOT_GARMENTS
    with Path("labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "split"))
        for photo in photos:
            labels = "|".join(label for label in photo["labels"].split(" ") if label in known)
            table.writerow(
                (folder / photo["split"] / "images" / f"{photo['id']}.jpg", labels or "(none)", photo["split"])
            )


if __name__ == "__main__":
    main()
