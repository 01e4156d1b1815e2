"""Genuine weights for the tests of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fetched

# A test gets the weights' cache folder after the named weights are in it.
Weights = Callable[[str], Path]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Makes sure of named weights and returns their cache; skips where they are not installed and pip has no index."""
    cache = tmp_path_factory.mktemp("zoo-cache")

    def ensure(name: str) -> Path:
        fetched.ensure(name, cache=cache)
        return cache

    return ensure
