"""The pictures of ``data.source``: a folder, a table, or a bucket that holds either."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from keepsight.data import importers
from keepsight.data.importers import tables
from keepsight.delivery.registry.stores import is_bucket, open_store, store_error
from keepsight.errors import DataError, StorageError
from keepsight.store.workspace import Workspace

SETTING = "data.source"
# Downloads wait for the network, hardly for the processor.
DOWNLOADS = 16

Progress = Callable[[int, int], None]


def take_in(
    ws: Workspace, project: str, *, author: str, progress: Callable[[str, int, int], None]
) -> importers.ImportReport | None:
    """Imports what ``data.source`` names; None where it names nothing. The pictures wait for the next commit.

    Args:
        ws: The workspace.
        project: Its project.
        author: Who imports.
        progress: Called with what is done, how much of it and its total.

    Raises:
        NotFoundError: Nothing is there. DataError: No labelled pictures are in it.
        SettingsError, StorageError: The bucket cannot be opened or read.
    """
    url = ws.settings(project)[SETTING]
    if url is None:
        return None
    with _on_disk(str(url), ws.config.root, lambda done, total: progress("downloading", done, total)) as path:
        return importers.import_path(
            ws, project, path, author=author, progress=lambda done, total: progress("importing", done, total)
        )


@contextmanager
def _on_disk(url: str, root: Path, progress: Progress) -> Iterator[Path]:
    if not is_bucket(url) or url.startswith("file://"):
        yield Path(url.removeprefix("file://")) if url.startswith("file://") else root / url
        return
    folder, name = url, ""
    if PurePosixPath(url).suffix.lower() in tables.SUFFIXES:
        folder, _, name = url.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="keepsight-source-") as place:
        download(open_store(folder, root=root, setting=SETTING), Path(place), progress=progress)
        yield Path(place, name) if name else Path(place)


def download(store: Any, folder: Path, *, progress: Progress) -> None:
    """Every object of a store as a file below ``folder``.

    Raises:
        DataError: It is empty, or an object's name cannot be a file's. StorageError: It cannot be read.
    """
    import obstore
    from obstore.exceptions import BaseError

    try:
        listed = [(str(item["path"]), int(item["size"])) for item in obstore.list(store).collect()]
    except (BaseError, OSError) as error:
        raise store_error(SETTING, error) from error
    parents = {str(parent) for path, _ in listed for parent in PurePosixPath(path).parents}
    # Some tools mark a folder by an empty object of its name.
    paths = [path for path, size in listed if size or path not in parents]
    if not paths:
        raise DataError(
            f"There is nothing at {SETTING}.", expected="pictures in class folders, or a table.", do="Check the URL."
        )

    def fetch(path: str) -> None:
        target = folder / path
        if not target.resolve().is_relative_to(folder.resolve()):
            raise DataError(
                f'The object "{path}" of {SETTING} has a name that leads elsewhere.',
                expected="names without `..`.",
                do="Rename it.",
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                for part in obstore.get(store, path).stream():
                    file.write(part)
        except (BaseError, OSError) as error:
            raise _unreadable(path, error) from error

    with ThreadPoolExecutor(DOWNLOADS) as pool:
        for done, _ in enumerate(pool.map(fetch, paths), start=1):
            progress(done, len(paths))


def _unreadable(path: str, error: Exception) -> StorageError:
    return store_error(f'"{path}" of {SETTING}', error)
