"""Erasing: nothing of the picture is left anywhere, and every version can still be read and proven."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from keepsight.data import adding, erase, samples, vectors, versions
from keepsight.data.adding import NewSample
from keepsight.errors import IntegrityError, NotFoundError
from keepsight.store import audit, schema
from keepsight.zoo.backbone import Backbone

from .conftest import Shop, build_picture

SECRET = "Erika Mustermann"


@pytest.fixture
def known(shop: Shop, backbone: Backbone) -> str:
    """A picture in two projects and two versions, with a vector, an event, feedback and a review; its id."""
    ws = shop.workspace
    secret = NewSample(
        build_picture(0), f"{SECRET}.png", {"label": SECRET}, "train", group=SECRET, meta={"who": SECRET}
    )
    shop.add(secret, NewSample(build_picture(1), "other.png", {"label": "x"}, "train"))
    adding.add(ws, "other", [secret], author=SECRET)
    picture = ws.blobs.name(build_picture(0))
    versions.commit(ws, "shop", message="", author="me")
    shop.label(shop.id_of(0), f"{SECRET}, again", author=SECRET)
    versions.commit(ws, "shop", message="", author="me")
    shop.label(shop.id_of(0), f"{SECRET}, uncommitted")
    vectors.ensure(ws, [picture], backbone)
    write_event(shop, "e1", picture_id=picture)
    item = {
        "event_id": "e1",
        "project_id": "shop",
        "picture_id": picture,
        "selected_by": "audit",
        "probability": 0.1,
        "priority": 0.5,
        "model_number": 1,
        "prediction": {"label": SECRET},
        "created_at": 1.0,
    }
    feedback = {"id": "f1", "project_id": "shop", "event_id": "e1", "at": 1.0, "kind": "label", "author": "camera"}
    with ws.database.write() as connection:
        connection.execute(sa.insert(schema.review_item).values(item))
        judged = {"answered_at": 2.0, "author": SECRET, "verdict": {"label": SECRET}, "correct": 1}
        connection.execute(sa.insert(schema.review_item).values({**item, "event_id": "e2", **judged}))
    with ws.database.write("events") as connection:
        connection.execute(sa.insert(schema.feedback).values({**feedback, "value": {"label": SECRET}}))
    return picture


def write_event(shop: Shop, event_id: str, **more: Any) -> None:
    event = {
        "id": event_id,
        "project_id": "shop",
        "at": 1.0,
        "model_number": 1,
        "bundle_digest": "d",
        "variant": "float",
        "prediction": {"label": SECRET},
        "label": SECRET,
        "confidence": 0.9,
        "decision": "auto",
        "quality": {"blur": 1.0},
        "reasons": [],
        "features": np.ones(4, "<f2").tobytes(),
        "selected_by": "audit",
        "probability": 0.1,
        "source": "camera 1",
        "trace_id": "t",
        "meta": {"who": SECRET},
        "latency_ms": 10.0,
    }
    with shop.workspace.database.write("events") as connection:
        connection.execute(sa.insert(schema.event).values({**event, **more}))


def everything(shop: Shop) -> str:
    """All rows of all tables but the audit trail, as one text."""
    text = ""
    for area, metadata in schema.AREAS.items():
        with shop.workspace.database.read(area) as connection:
            for table in metadata.sorted_tables:
                if table is not schema.audit:
                    text += str([tuple(row) for row in connection.execute(sa.select(table))])
    return text


def test_nothing_is_left(shop: Shop, known: str, backbone: Backbone) -> None:
    assert SECRET in everything(shop)
    result = erase.erase_picture(shop.workspace, known, actor="officer", reason="asked by letter")
    assert (result["projects"], result["samples"], result["events"], result["derived"]) == (["other", "shop"], 2, 1, 2)
    assert result["outstanding"] == []
    assert SECRET not in everything(shop)
    assert not list((shop.workspace.state / "blobs").rglob(f"{known}*"))
    assert not vectors.load(shop.workspace, [known], backbone).present.any()
    if shop.workspace.database.dialect == "sqlite":
        assert not any(SECRET.encode() in path.read_bytes() for path in shop.workspace.state.glob("*.db*"))
    with shop.workspace.database.read("events") as connection:
        event = connection.execute(sa.select(schema.event)).one()
    assert (event.features, event.prediction, event.latency_ms) == (None, {}, 10.0)
    with shop.workspace.database.read() as connection:
        record = connection.execute(sa.select(schema.audit).order_by(schema.audit.c.seq.desc()).limit(1)).one()
    assert (record.actor, record.action, record.target) == ("officer", "picture.erase", known)
    assert record.detail["reason"] == "asked by letter"
    audit.verify(shop.workspace.database)


def test_a_watch_that_remembers_it_begins_anew(shop: Shop, known: str) -> None:
    watch = {"name": "watch", "bundle_digest": "b", "variant": "float", "last_seq": 1, "state": b"", "updated_at": 0.0}
    with shop.workspace.database.write("derived") as connection:
        for project in ("shop", "quiet"):
            connection.execute(sa.insert(schema.monitor).values(project_id=project, **watch))
    erase.erase_picture(shop.workspace, known, actor="me", reason="")
    with shop.workspace.database.read("derived") as connection:
        assert connection.scalars(sa.select(schema.monitor.c.project_id)).all() == ["quiet"]


def test_every_version_can_be_read_and_proven(shop: Shop, known: str) -> None:
    digests = [version.digest for version in versions.log(shop.workspace, "shop")]
    erase.erase_picture(shop.workspace, known, actor="me", reason="")
    assert versions.verify(shop.workspace, "shop") == 2
    assert [version.digest for version in versions.log(shop.workspace, "shop")] == digests
    other = shop.id_of(1)
    for number in (1, 2):
        assert [item.sample_id for item in samples.at_version(shop.workspace, "shop", number)] == [other]
    assert list(shop.labels()) == [other]
    made = versions.commit(shop.workspace, "shop", message="", author="me")
    assert made is not None
    assert (made.samples, made.removed) == (1, 1)
    assert versions.verify(shop.workspace, "shop") == 3
    assert versions.diff(shop.workspace, "shop", 1, 3).changes == ()
    with pytest.raises(NotFoundError):
        samples.find(shop.workspace, "shop", shop.id_of(0))


def test_the_queue_forgets_it(shop: Shop, known: str) -> None:
    erase.erase_picture(shop.workspace, known, actor="me", reason="")
    with shop.workspace.database.read() as connection:
        items = connection.execute(sa.select(schema.review_item).order_by(schema.review_item.c.event_id)).all()
    assert [item.answered_at is not None for item in items] == [True, True]
    assert [(item.prediction, item.verdict) for item in items] == [({}, erase.SKIPPED)] * 2
    assert [item.correct for item in items] == [None, 1], "the tally of the audits stays"


def test_a_kept_picture_that_waits_for_its_rows_is_erased_too(shop: Shop, known: str) -> None:
    sealed = shop.workspace.blobs.seal(build_picture(0))
    kept = {"id": sealed.id, "location": sealed.location, "wrapped_key": base64.b64encode(sealed.wrapped_key).decode()}
    write_event(shop, "e9", sealed=kept)
    assert erase.erase_picture(shop.workspace, known, actor="me", reason="")["events"] == 2
    assert not list((shop.workspace.state / "blobs").rglob(f"{known}*"))
    assert SECRET not in everything(shop)


def test_a_dry_run_changes_nothing(shop: Shop, known: str) -> None:
    before = everything(shop)
    result = erase.erase_picture(shop.workspace, known, actor="me", reason="", dry_run=True)
    assert (result["samples"], result["derived"]) == (2, 2)
    assert everything(shop) == before
    assert shop.workspace.blobs.get(known) == build_picture(0)


def test_what_only_its_maker_can_mend_is_told(shop: Shop, known: str) -> None:
    row = {"picture_id": known, "kind": "reference", "location": "model 3", "created_at": 1.0}
    with shop.workspace.database.write("derived") as connection:
        connection.execute(sa.insert(schema.derived).values(row))
    for _ in range(2):
        result = erase.erase_picture(shop.workspace, known, actor="me", reason="")
        assert result["outstanding"] == [{"kind": "reference", "location": "model 3"}]


def test_erasing_again_finishes_and_then_says_so(shop: Shop, known: str, backbone: Backbone) -> None:
    erase.erase_picture(shop.workspace, known, actor="me", reason="")
    with pytest.raises(NotFoundError, match="already"):
        erase.erase_picture(shop.workspace, known, actor="me", reason="")
    with pytest.raises(NotFoundError, match="not stored"):
        erase.erase_picture(shop.workspace, "0" * 64, actor="me", reason="")


def test_an_erasure_that_broke_off_is_finished_by_the_next(
    shop: Shop, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(Exception):
        pass

    def crash(*_args: object, **_options: object) -> None:
        raise Crash

    for module, name in ((shop.workspace.blobs, "erase"), (shop.workspace.blobs, "_delete"), (audit, "append")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, crash)
            with pytest.raises(Crash):
                erase.erase_picture(shop.workspace, known, actor="me", reason="")
    erase.erase_picture(shop.workspace, known, actor="me", reason="")
    assert SECRET not in everything(shop)
    assert versions.verify(shop.workspace, "shop") == 2


def test_a_forged_tombstone_is_no_erasure(shop: Shop, known: str) -> None:
    erase.erase_picture(shop.workspace, known, actor="me", reason="")
    table = schema.membership
    with shop.workspace.database.write() as connection:
        connection.execute(sa.update(table).where(table.c.sample_id == shop.id_of(1)).values(split="erased"))
    with pytest.raises(IntegrityError, match="membership"):
        versions.verify(shop.workspace, "shop")


def test_a_picture_that_comes_again_is_a_new_one(shop: Shop, known: str) -> None:
    erase.erase_picture(shop.workspace, known, actor="me", reason="")
    shop.add(NewSample(build_picture(0), "again.png", {"label": "y"}, "train"))
    assert shop.labels()[shop.id_of(0)] == "y"
    versions.commit(shop.workspace, "shop", message="", author="me")
    assert versions.verify(shop.workspace, "shop") == 3
    assert {item.name for item in samples.at_version(shop.workspace, "shop", 1)} == {"other.png"}
    assert {item.name for item in samples.at_version(shop.workspace, "shop", 3)} == {"other.png", "again.png"}
