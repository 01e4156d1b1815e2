"""Puts the tasks of this folder where Python finds installed packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keepsight import plugins

HERE = Path(__file__).parent


def install(name: str, folder: Path) -> Path:
    """The distribution ``name`` of this folder, installed by pip under ``folder``; what goes on the path."""
    source = folder / "source"
    shutil.copytree(HERE / name, source, ignore=shutil.ignore_patterns("__pycache__"))
    target = folder / "target"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-index", "--no-build-isolation", "--no-compile", "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@contextmanager
def on_path(*folders: Path) -> Iterator[None]:
    """In this process, what is installed in the folders can be imported, and is found."""
    with pytest.MonkeyPatch.context() as patch:
        for folder in folders:
            patch.syspath_prepend(str(folder))
        plugins.look_again()
        before = set(sys.modules)
        try:
            yield
        finally:
            for name in set(sys.modules) - before:
                if name.partition(".")[0].startswith("keepsight_"):
                    del sys.modules[name]
            patch.undo()
            plugins.look_again()


def pretend(folder: Path, distribution: str, **tasks: str) -> Path:
    """The metadata of a distribution that brings these tasks, without any code; what goes on the path."""
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"{name} = {package}" for name, package in tasks.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{plugins.GROUP}]", *lines, ""]))
    return folder
