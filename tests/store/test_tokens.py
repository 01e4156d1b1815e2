"""Access tokens: shown once, stored as a hash, gone when revoked."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from keepsight.errors import BadInputError, ConflictError, NotFoundError
from keepsight.store import audit, schema, tokens
from keepsight.store.workspace import Workspace


def make(workspace: Workspace, name: str = "camera", *scopes: str) -> str:
    return tokens.create(workspace.database, name, scopes=scopes or ("predict",), actor="me", now=1.0)


def test_a_token_is_found_by_its_secret_which_is_not_kept(workspace: Workspace) -> None:
    secret = make(workspace, "camera", "review", "predict")
    found = tokens.find(workspace.database, secret)
    assert found is not None
    assert (found.name, found.scopes) == ("camera", ("predict", "review"))
    assert tokens.find(workspace.database, secret + "x") is None
    with workspace.database.read() as connection:
        assert secret not in str(connection.execute(sa.select(schema.token)).one())
        assert secret not in str(connection.execute(sa.select(schema.audit)).all())


def test_revoked_tokens_are_refused_at_once(workspace: Workspace) -> None:
    secret = make(workspace)
    tokens.revoke(workspace.database, "camera", actor="me", now=2.0)
    assert tokens.find(workspace.database, secret) is None
    assert tokens.valid_tokens(workspace.database) == []
    with pytest.raises(NotFoundError):
        tokens.revoke(workspace.database, "camera", actor="me", now=3.0)
    assert audit.verify(workspace.database) == 2


def test_names_are_unique_and_scopes_known(workspace: Workspace) -> None:
    make(workspace)
    with pytest.raises(ConflictError):
        make(workspace)
    with pytest.raises(BadInputError, match="everything"):
        make(workspace, "other", "everything")
    with pytest.raises(BadInputError):
        tokens.create(workspace.database, "none", scopes=[], actor="me", now=1.0)
    with pytest.raises(NotFoundError, match="camera"):
        tokens.revoke(workspace.database, "camra", actor="me", now=2.0)
