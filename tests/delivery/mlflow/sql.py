"""A SQL store of MLflow whose tables are made once for all tests: that takes seconds."""

from __future__ import annotations

import functools
import shutil
import tempfile
import warnings
from pathlib import Path

from keepsight.delivery.mlflow.store import MlflowStore

FILE = "mlflow.db"
URL = f"sqlite:///{FILE}"


@functools.cache
def template() -> Path:
    """A file with empty tables."""
    folder = Path(tempfile.mkdtemp(prefix="keepsight-mlflow-template-"))
    with warnings.catch_warnings():
        # Of the database that MLflow opens for its migrations and leaves to the garbage collector.
        warnings.simplefilter("ignore")
        MlflowStore(URL, root=folder).versions("none")
    return folder / FILE


def make(root: Path) -> str:
    """Puts an empty store into a folder; its URL."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(template(), root / FILE)
    return URL
