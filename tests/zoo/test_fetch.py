"""Where weights are found, and that nothing with another sha256 is used.

Downloads run the real pip against a folder of wheels, without network.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from keepsight.errors import NotFoundError, StorageError, WeightsError
from keepsight.zoo import catalogue, fetch
from keepsight.zoo.entry import Entry

CONTENT = b"the weights" * 1000
MEMBER = "made_weights/models/made-1234.pth"


def made_entry(content: bytes = CONTENT) -> Entry:
    return dataclasses.replace(
        catalogue.entry(catalogue.DEFAULT),
        name="made",
        package="keepsight-made-weights",
        version="1.2",
        member=MEMBER,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
    )


def write_wheel(folder: Path, content: bytes = CONTENT, *, member: str = MEMBER) -> Path:
    """A wheel whose import would fail, which needs an impossible package and an old Python: none of it may matter."""
    folder.mkdir(exist_ok=True)
    info = "keepsight_made_weights-1.2.dist-info"
    files = {
        "made_weights/__init__.py": b"raise SystemExit('imported')",
        member: content,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: keepsight-made-weights\nVersion: 1.2\n"
        b"Requires-Python: <3\nRequires-Dist: keepsight-no-such-package==9\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    files[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"]).encode()
    path = folder / "keepsight_made_weights-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, instead of an index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def install(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Unpacks a wheel onto ``sys.path``, which is what installing one is."""
    site = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    return site


def test_the_default_weights_are_found_in_their_installed_package(cache: Path) -> None:
    entry = catalogue.entry(catalogue.DEFAULT)
    assert fetch.available(entry, cache=cache)
    path = fetch.locate(entry, cache=cache)
    assert path.name == entry.filename
    assert hashlib.sha256(fetch.read_weights(entry, cache=cache)).hexdigest() == entry.sha256
    assert fetch.fetch(entry.name, cache=cache) == path
    assert not cache.exists()


def test_fetch_downloads_the_wheel_alone_and_keeps_the_one_member(index: Path, cache: Path) -> None:
    entry = made_entry()
    write_wheel(index)
    assert not fetch.available(entry, cache=cache)
    path = fetch.fetch(entry, cache=cache)
    assert path.read_bytes() == CONTENT
    assert [item for item in cache.rglob("*") if item.is_file()] == [path]
    assert fetch.available(entry, cache=cache)
    assert fetch.locate(entry, cache=cache) == path
    (index / "keepsight_made_weights-1.2-py3-none-any.whl").unlink()
    assert fetch.fetch(entry, cache=cache) == path


def test_an_installed_wheel_is_read_and_not_imported(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install(write_wheel(tmp_path), monkeypatch)
    assert fetch.locate(made_entry(), cache=cache) == site / MEMBER
    assert "made_weights" not in sys.modules


def test_missing_weights_say_how_to_get_them(cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        fetch.locate(made_entry(), cache=cache)
    assert "keepsight zoo fetch made" in caught.value.do
    assert "keepsight-made-weights==1.2" in caught.value.expected


def test_a_download_with_other_content_is_not_kept(index: Path, cache: Path) -> None:
    write_wheel(index, CONTENT[:-1] + b"!")
    with pytest.raises(WeightsError, match="sha256"):
        fetch.fetch(made_entry(), cache=cache)
    write_wheel(index, CONTENT + b"!")
    with pytest.raises(WeightsError, match="bytes, not"):
        fetch.fetch(made_entry(), cache=cache)
    assert not cache.exists()


def test_a_wheel_without_the_member_is_refused(index: Path, cache: Path) -> None:
    write_wheel(index, member="made_weights/other.pth")
    with pytest.raises(WeightsError, match="does not contain"):
        fetch.fetch(made_entry(), cache=cache)


def test_a_failed_download_quotes_pip(index: Path, cache: Path) -> None:
    with pytest.raises(NotFoundError):
        fetch.fetch("made", cache=cache)
    with pytest.raises(WeightsError) as caught:
        fetch.fetch(made_entry(), cache=cache)
    assert "No matching distribution found for keepsight-made-weights==1.2" in caught.value.found


def test_a_damaged_cache_is_refused_and_repaired_by_fetch(index: Path, cache: Path) -> None:
    entry = made_entry()
    write_wheel(index)
    path = fetch.fetch(entry, cache=cache)
    path.write_bytes(CONTENT[:100])
    with pytest.raises(WeightsError, match="sha256"):
        fetch.locate(entry, cache=cache)
    assert not fetch.available(entry, cache=cache)
    assert fetch.fetch(entry, cache=cache).read_bytes() == CONTENT


def test_a_changed_installed_file_is_refused(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install(write_wheel(tmp_path), monkeypatch)
    (site / MEMBER).write_bytes(b"changed")
    with pytest.raises(WeightsError, match="sha256"):
        fetch.read_weights(made_entry(), cache=cache)


def test_a_file_that_the_user_has_is_taken(tmp_path: Path, cache: Path) -> None:
    given = tmp_path / "given.pth"
    given.write_bytes(CONTENT)
    for source in (given, write_wheel(tmp_path)):
        path = fetch.fetch(made_entry(), cache=cache, source=source)
        assert path.read_bytes() == CONTENT
        path.unlink()
    given.write_bytes(b"something else")
    for source in (given, tmp_path / "absent.pth", tmp_path / "absent.whl"):
        with pytest.raises(WeightsError):
            fetch.fetch(made_entry(), cache=cache, source=source)
    (tmp_path / "text.whl").write_text("not a wheel")
    with pytest.raises(WeightsError, match="cannot be opened as a wheel"):
        fetch.fetch(made_entry(), cache=cache, source=tmp_path / "text.whl")


def test_a_cache_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    given = tmp_path / "given.pth"
    given.write_bytes(CONTENT)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cannot be written"):
        fetch.fetch(made_entry(), cache=tmp_path / "cache", source=given)


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSIGHT_CACHE", str(tmp_path / "elsewhere"))
    assert fetch.default_cache() == tmp_path / "elsewhere"
    monkeypatch.delenv("KEEPSIGHT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch.default_cache() == tmp_path / ".cache" / "keepsight"
