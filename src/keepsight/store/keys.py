"""The workspace key and what is derived from it: blob names, wrapped data keys, cookie signatures.

The key is 32 random bytes, from the environment variable ``KEEPSIGHT_KEY`` (base64) or the file ``workspace.key`` in
the workspace folder. Losing it loses the pictures; so does anyone who erases a wrapped data key, which is how one
picture is erased from every version and backup of the blob store at once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from keepsight.errors import IntegrityError, StorageError, WorkspaceKeyError

KEY_FILE = "workspace.key"
KEY_VARIABLE = "KEEPSIGHT_KEY"
NONCE_BYTES = 12


class Keys:
    """Keys derived from the 32-byte workspace key with HKDF-SHA256 (RFC 5869)."""

    def __init__(self, workspace_key: bytes) -> None:
        self._wrapping = _derive(workspace_key, b"keepsight wrap")
        self._naming = _derive(workspace_key, b"keepsight name")
        self._signing = _derive(workspace_key, b"keepsight sign")

    @property
    def check(self) -> str:
        """A value that tells this key from another without revealing it (hex)."""
        return self.sign(b"workspace key check")

    def name(self, data: bytes) -> str:
        """The blob name of a plaintext: HMAC-SHA256 of its sha256 (64 hex digits).

        Equal pictures get equal names, and nobody without the key can tell whether a known picture is stored.
        """
        return self.name_of(hashlib.sha256(data).digest())

    def name_of(self, sha256: bytes) -> str:
        """The blob name of a plaintext with this digest."""
        return hmac.new(self._naming, sha256, "sha256").hexdigest()

    def sign(self, data: bytes) -> str:
        """HMAC-SHA256 for cookies and forms (hex)."""
        return hmac.new(self._signing, data, "sha256").hexdigest()

    def encrypt(self, data: bytes, *, name: str) -> tuple[bytes, bytes]:
        """``(ciphertext, wrapped data key)``: AES-256-GCM under a data key of its own, bound to ``name``."""
        data_key = AESGCM.generate_key(bit_length=256)
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(data_key).encrypt(nonce, data, name.encode())
        return nonce + sealed, aes_key_wrap(self._wrapping, data_key)

    def decrypt(self, sealed: bytes, wrapped_key: bytes, *, name: str) -> bytes:
        """The plaintext.

        Raises:
            WorkspaceKeyError: The data key was wrapped with another workspace key.
            IntegrityError: The stored bytes were changed.
        """
        try:
            data_key = aes_key_unwrap(self._wrapping, wrapped_key)
        except InvalidUnwrap:
            raise _wrong_key() from None
        try:
            return AESGCM(data_key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode())
        except InvalidTag:
            raise IntegrityError(
                f"The stored bytes of {name[:12]} were changed.",
                expected="what Keepsight wrote.",
                do="Restore this object from a backup of the blob store.",
            ) from None


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(key)


def _wrong_key() -> WorkspaceKeyError:
    return WorkspaceKeyError(
        "The workspace key is not the one that encrypted this workspace.",
        expected=f"the key made with the workspace, in {KEY_FILE} or {KEY_VARIABLE}.",
        do="Restore the right key; without it the pictures cannot be read.",
    )


def check_key(keys: Keys, stored_check: str) -> None:
    """Makes sure that ``keys`` belong to the workspace whose check value was stored.

    Raises:
        WorkspaceKeyError: They do not.
    """
    if not hmac.compare_digest(keys.check, stored_check):
        raise _wrong_key()


def create_key(folder: Path) -> None:
    """Writes a new key file, readable by its owner alone; leaves an existing one alone."""
    path = folder / KEY_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise StorageError(
            f"The key file {path} cannot be written: {error.strerror}.",
            expected="a workspace folder that can be written.",
            do="Change its permissions or make room on the disk.",
        ) from None
    with os.fdopen(handle, "w") as file:
        file.write(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
        file.flush()
        os.fsync(file.fileno())


def load_keys(folder: Path, *, environment: Mapping[str, str]) -> Keys:
    """The keys of a workspace, from the environment or its key file.

    Raises:
        WorkspaceKeyError: There is none, or it is no key.
    """
    text = environment.get(KEY_VARIABLE)
    place = KEY_VARIABLE
    if text is None:
        path = folder / KEY_FILE
        place = str(path)
        try:
            text = path.read_text(encoding="ascii")
        except FileNotFoundError:
            raise WorkspaceKeyError(
                f"There is no workspace key: {path} is missing and {KEY_VARIABLE} is not set.",
                expected="the key that was made with the workspace.",
                do=f"Put the file back from your backup, or set {KEY_VARIABLE}.",
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise WorkspaceKeyError(
                f"{path} cannot be read: {error}.", expected="a readable key file.", do="Change its permissions."
            ) from None
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 32:
        raise WorkspaceKeyError(
            f"{place} holds no workspace key.", expected="32 bytes in base64.", do="Put the key back from your backup."
        )
    return Keys(key)
