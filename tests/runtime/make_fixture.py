"""Writes ``fixtures/bundle-v1.zip``, which proves that later versions read what this one wrote.

Run once for each format version, with a new name for a new version; never write an old one again:

    python -m tests.runtime.make_fixture tests/runtime/fixtures/bundle-v1.zip
"""

from __future__ import annotations

import sys

from tests.runtime.conftest import build_bundle

if __name__ == "__main__":
    bundle = build_bundle()
    bundle.to_zip(sys.argv[1])
    print(bundle.digest)
