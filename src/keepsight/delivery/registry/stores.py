"""Opening folders and buckets by what ``keepsight.yaml`` says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keepsight.errors import SettingsError, StorageError

SCHEMES = ("s3://", "gs://", "az://", "abfss://", "file://")


def is_bucket(url: str) -> bool:
    """Whether it is a URL, and not a folder."""
    return "://" in url


def open_store(url: str, *, root: Path, setting: str, create: bool = True) -> Any:
    """An obstore store for a folder (relative to ``root``) or a bucket.

    Args:
        url: The folder or URL.
        root: Where folders start.
        setting: Which setting said so, for messages.
        create: Make the folder where there is none.

    Raises:
        SettingsError: It cannot be opened. StorageError: The folder cannot be made.
    """
    from obstore.exceptions import BaseError
    from obstore.store import LocalStore, from_url

    try:
        if is_bucket(url) and not url.startswith("file://"):
            if not url.startswith(SCHEMES):
                raise ValueError(f"no store is known for {url.partition('://')[0]}://")
            return from_url(url)
        folder = Path(url.removeprefix("file://")) if url.startswith("file://") else root / url
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        return LocalStore(folder)
    except (BaseError, ValueError) as error:
        raise SettingsError(
            f"{setting} ({url}) cannot be opened: {str(error).strip().splitlines()[0]}.",
            expected="a folder, or a URL such as s3://bucket/folder, gs://bucket or az://container.",
            do=f"Correct {setting} in keepsight.yaml, and the credentials in the environment.",
        ) from None
    except OSError as error:
        raise store_error(setting, error) from None


def store_error(what: str, error: Exception) -> StorageError:
    """What a store says in our shape."""
    text = str(error).strip()
    return StorageError(
        f"{what} failed: {text.splitlines()[0] if text else type(error).__name__}",
        expected="a folder or bucket that can be reached, read and written.",
        do="Check the address, the network, and the credentials in the environment.",
    )
