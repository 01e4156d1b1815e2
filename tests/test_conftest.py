from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPED = """
import pytest

def test_that_runs():
    pass

def test_that_is_skipped():
    pytest.skip("no camera")
"""


@pytest.mark.parametrize(
    ("strict", "code", "said"),
    [("1", 1, "allows no skips: Skipped: no camera"), ("0", 0, "1 skipped")],
)
def test_a_strict_session_lets_nothing_be_skipped(strict: str, code: int, said: str, tmp_path: Path) -> None:
    here = Path(__file__).parent
    shutil.copy(here / "conftest.py", tmp_path)
    (tmp_path / "test_some.py").write_text(SKIPPED)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)]
    # What conftest.py imports from the tests stands beside it, which the copy does not.
    paths = [str(here.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    env = {**os.environ, "KEEPSIGHT_TEST_STRICT": strict, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    answer = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert answer.returncode == code, answer.stdout
    assert said in answer.stdout
