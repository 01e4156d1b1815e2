"""The command line. ``main`` is the entry point of ``keepsight``."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Runs one command and exits with its code."""
    if importlib.util.find_spec("typer") is None or importlib.util.find_spec("sqlalchemy") is None:
        from keepsight.cli.base import run

        sys.exit(run(sys.argv[1:]))
    from keepsight.cli.app import run_app

    sys.exit(run_app(sys.argv[1:]))
