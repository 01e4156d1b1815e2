"""The workspace key: made once, private, and missed when it is missing."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from keepsight.errors import IntegrityError, WorkspaceKeyError
from keepsight.store.keys import KEY_FILE, KEY_VARIABLE, Keys, check_key, create_key, load_keys

KEY = bytes(range(32))


def test_a_new_key_is_readable_by_its_owner_alone_and_never_replaced(tmp_path: Path) -> None:
    create_key(tmp_path)
    path = tmp_path / KEY_FILE
    first = path.read_bytes()
    create_key(tmp_path)
    assert path.read_bytes() == first
    assert path.stat().st_mode & 0o077 == 0


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    create_key(tmp_path)
    keys = load_keys(tmp_path, environment={KEY_VARIABLE: base64.b64encode(KEY).decode()})
    assert keys.check == Keys(KEY).check != load_keys(tmp_path, environment={}).check


@pytest.mark.parametrize("text", ["", "rubbish!", base64.b64encode(b"short").decode()])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / KEY_FILE).write_text(text)
    with pytest.raises(WorkspaceKeyError, match="no workspace key"):
        load_keys(tmp_path, environment={})


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceKeyError, match="missing"):
        load_keys(tmp_path, environment={})


def test_sealed_bytes_open_with_the_same_key_and_name_only() -> None:
    sealed, wrapped = Keys(KEY).encrypt(b"picture", name="a")
    assert Keys(KEY).decrypt(sealed, wrapped, name="a") == b"picture"
    with pytest.raises(IntegrityError):
        Keys(KEY).decrypt(sealed, wrapped, name="b")
    with pytest.raises(WorkspaceKeyError):
        Keys(os.urandom(32)).decrypt(sealed, wrapped, name="a")


def test_names_and_checks_depend_on_the_key() -> None:
    other = Keys(os.urandom(32))
    assert Keys(KEY).name(b"picture") == Keys(KEY).name(b"picture") != other.name(b"picture")
    check_key(Keys(KEY), Keys(KEY).check)
    with pytest.raises(WorkspaceKeyError):
        check_key(other, Keys(KEY).check)
