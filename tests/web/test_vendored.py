"""The vendored files are what the table says, with their licences, and stay small."""

from __future__ import annotations

import gzip
import hashlib
import re

from keepsight.web.render import STATIC

VENDOR = STATIC / "vendor"


def test_every_file_stands_in_the_table_with_its_digest() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (VENDOR / "VENDORED.md").read_text(), re.MULTILINE)
    assert {name for name, _ in rows} == {path.name for path in VENDOR.glob("*.min.*")}
    for name, digest in rows:
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


def test_every_library_has_its_licence() -> None:
    libraries = {path.name.split(".")[0] for path in VENDOR.glob("*.min.*")}
    assert {path.name.split(".")[0] for path in VENDOR.glob("*.LICENSE.txt")} == libraries


def test_a_page_stays_light() -> None:
    vendored = sum(len(gzip.compress(path.read_bytes(), 9)) for path in VENDOR.glob("*.min.*"))
    own = sum(len(gzip.compress(path.read_bytes(), 9)) for path in STATIC.glob("*.*"))
    assert vendored < 75_000
    assert own < 15_000
