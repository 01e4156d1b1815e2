"""NOTICE names the origin and licence of every set of weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepsight.zoo import catalogue
from keepsight.zoo.entry import Entry


@pytest.mark.parametrize("entry", catalogue.entries(), ids=lambda entry: entry.name)
def test_weights_stand_in_the_notice(entry: Entry) -> None:
    notice = (Path(__file__).parents[2] / "NOTICE").read_text()
    for fact in (entry.name, entry.sha256, entry.filename, f"{entry.package} {entry.version}", *entry.licences):
        assert fact in notice
