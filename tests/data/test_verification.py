"""Verification: whatever is changed behind Keepsight's back is found, and its place is named."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from keepsight.data import rows, versions
from keepsight.errors import IntegrityError, NotFoundError
from keepsight.store import schema

from .conftest import Shop

MEMBER, NOTE = schema.membership, schema.annotation


@pytest.fixture
def committed(shop: Shop) -> Shop:
    ids = shop.fill(4)
    versions.commit(shop.workspace, "shop", message="", author="me")
    shop.label(ids[0], "other")
    versions.commit(shop.workspace, "shop", message="", author="me")
    return shop


def forge(shop: Shop, *statements: Any) -> None:
    with shop.workspace.database.write() as connection:
        for statement in statements:
            connection.execute(statement)


def test_untouched_versions_are_counted(committed: Shop) -> None:
    assert versions.verify(committed.workspace, "shop") == 2
    assert versions.verify(committed.workspace, "shop", "1") == 1
    assert versions.verify(committed.workspace, "other") == 0
    with pytest.raises(NotFoundError):
        versions.verify(committed.workspace, "shop", 3)


@pytest.mark.parametrize(
    ("table", "change"),
    [
        (NOTE, {"value": {"label": "forged"}}),
        (NOTE, {"author": "somebody else"}),
        (MEMBER, {"split": "test"}),
        (MEMBER, {"meta": {"forged": True}}),
        (MEMBER, {"split": rows.ERASED, "name": "", "meta": {}}),
        (NOTE, {"origin": rows.ERASED, "value": None}),
    ],
)
def test_a_changed_row_is_named(committed: Shop, table: sa.Table, change: dict[str, Any]) -> None:
    forge(committed, sa.update(table).where(table.c.seq >= 2).values(change))
    with pytest.raises(IntegrityError) as caught:
        versions.verify(committed.workspace, "shop")
    assert (caught.value.details["table"], caught.value.details["row"]) == (table.name, 2)


@pytest.mark.parametrize(
    ("statement", "version"),
    [
        (sa.delete(NOTE).where(NOTE.c.added_in == 2), 2),
        (sa.update(MEMBER).where(MEMBER.c.seq == 3).values(removed_in=2), 2),
        (sa.update(MEMBER).where(MEMBER.c.seq == 3).values(added_in=2), 1),
        (sa.update(schema.version).where(schema.version.c.number == 1).values(digest="0" * 64), 1),
    ],
)
def test_a_version_with_other_rows_is_named(committed: Shop, statement: Any, version: int) -> None:
    forge(committed, statement)
    with pytest.raises(IntegrityError) as caught:
        versions.verify(committed.workspace, "shop")
    assert caught.value.details["version"] == version


def test_a_row_forged_together_with_its_leaf_is_found(committed: Shop) -> None:
    with committed.workspace.database.read() as connection:
        row = dict(connection.execute(sa.select(NOTE).where(NOTE.c.seq == 2)).mappings().one())
    row["value"] = {"label": "forged"}
    change = {"value": row["value"], "leaf": rows.annotation_leaf(row)}
    forge(committed, sa.update(NOTE).where(NOTE.c.seq == 2).values(change))
    with pytest.raises(IntegrityError) as caught:
        versions.verify(committed.workspace, "shop")
    assert caught.value.details["version"] == 1


def test_uncommitted_edits_do_not_disturb(committed: Shop) -> None:
    committed.fill(1, first=20)
    committed.remove(committed.id_of(1))
    assert versions.verify(committed.workspace, "shop") == 2
