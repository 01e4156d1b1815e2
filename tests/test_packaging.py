"""The wheel that users install: what it holds, what it depends on, and that its base install answers a picture.

The base install is made for real: the unpacked wheel and the files of the four libraries in one folder, with nothing
else on the path.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SOURCE = REPOSITORY / "src" / "keepsight"
BASE = {"numpy", "onnxruntime", "simplejpeg", "pillow"}
SETUPTOOLS_NEEDED = 77
FIXTURE_BUNDLE = REPOSITORY / "tests" / "runtime" / "fixtures" / "bundle-v1.zip"

# Tests of this file share one wheel, so they stay in one worker.
pytestmark = pytest.mark.xdist_group("packaging")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that nothing of an older build can slip in and nothing is left behind."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(REPOSITORY / name, copy)
    shutil.copytree(SOURCE, copy / "src" / "keepsight", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    if own_setuptools() >= SETUPTOOLS_NEEDED:
        command.append("--no-build-isolation")
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(copy)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and "No matching distribution found for setuptools" in done.stderr:
        pytest.skip(f"setuptools {SETUPTOOLS_NEEDED} is neither installed nor can be downloaded")
    assert done.returncode == 0, done.stderr
    [built] = folder.glob("keepsight-*.whl")
    return built


def own_setuptools() -> int:
    """The major version of setuptools in this environment; 0 without any."""
    try:
        return int(importlib.metadata.version("setuptools").partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


@pytest.fixture(scope="module")
def members(wheel: Path) -> set[str]:
    """Names of all files in the wheel."""
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """The wheel's METADATA."""
    with zipfile.ZipFile(wheel) as opened:
        [name] = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(opened.read(name).decode())


def test_every_file_of_the_source_is_in_the_wheel(members: set[str]) -> None:
    wanted = {
        f"keepsight/{path.relative_to(SOURCE).as_posix()}"
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sorted(wanted - members) == []
    assert sorted(name for name in members - wanted if ".dist-info/" not in name) == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"keepsight/py\.typed",
        r"keepsight/web/templates/.+\.html(\.j2)?",
        r"keepsight/web/static/.+\.css",
        r"keepsight/web/static/vendor/htmx\.min\.js",
        r"keepsight/web/static/vendor/.+LICENSE.*",
        r"keepsight/store/migrations/truth/0001_.+\.py",
        r"keepsight/store/migrations/events/0001_.+\.py",
        r"keepsight/store/migrations/derived/0001_.+\.py",
        r"keepsight-.+\.dist-info/licenses/LICENSE",
        r"keepsight-.+\.dist-info/licenses/NOTICE",
    ],
)
def test_what_is_no_python_module_comes_along(members: set[str], pattern: str) -> None:
    assert any(re.fullmatch(pattern, name) for name in members)


def test_the_base_install_depends_on_four_libraries(metadata: Message) -> None:
    requirements = [str(line) for line in metadata.get_all("Requires-Dist", [])]
    base = {re.split(r"[<>=!~ \[]", line)[0].lower() for line in requirements if "extra ==" not in line}
    assert base == BASE
    assert {"serve", "server", "postgres"} <= set(metadata.get_all("Provides-Extra", []))


def test_the_wheel_names_its_licence_and_python(metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "make demo" in str(metadata.get_payload())


@pytest.fixture(scope="module")
def base_install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel and the four libraries, and nothing else that can be imported."""
    folder = tmp_path_factory.mktemp("base")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(folder)
    for name in sorted(BASE):
        distribution = importlib.metadata.distribution(name)
        files = distribution.files or []
        for top in {file.parts[0] for file in files if file.parts[0] != ".."}:
            (folder / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
    return folder


def run_base(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # -S keeps the site-packages of this environment away, -P the current folder.
    command = [sys.executable, "-S", "-P", "-m", "keepsight", *arguments]
    return subprocess.run(
        command, env={"PYTHONPATH": str(folder)}, cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_base_install_answers_a_picture(base_install: Path, tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "green.png"
    Image.new("RGB", (60, 40), (0, 255, 0)).save(picture)
    done = run_base(base_install, ["predict", str(FIXTURE_BUNDLE), str(picture), "--json"])
    assert (done.returncode, done.stderr) == (0, "")
    [answer] = json.loads(done.stdout)["predictions"]
    assert answer["label"] == "green"


@pytest.mark.parametrize("command", ["train", "up", "demo", "data"])
def test_the_base_install_names_the_extra_of_everything_else(base_install: Path, command: str) -> None:
    done = run_base(base_install, [command, "--json"])
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "extra_missing"
    assert "Traceback" not in done.stderr


def test_the_base_install_has_help(base_install: Path) -> None:
    done = run_base(base_install, ["--help"])
    assert done.returncode == 0
    assert "predict" in done.stdout
