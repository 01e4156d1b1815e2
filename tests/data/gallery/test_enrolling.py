"""Enrolling: a sample, an annotation, an audit record and a live vector; taking out and erasing undo all of it."""

from __future__ import annotations

import numpy as np
import pytest
import sqlalchemy as sa

from keepsight.data import erase, gallery, rows, samples, versions
from keepsight.data.gallery import bundles, enrolling
from keepsight.errors import AnnotationError, BadInputError, ConflictError, NotFoundError, PictureError
from keepsight.runtime.outputs.recognition.calibration import Calibration
from keepsight.runtime.outputs.recognition.engine import RecognitionEngine
from keepsight.runtime.outputs.recognition.gallery import Entry, Gallery
from keepsight.store import audit, schema
from keepsight.store.workspace import Workspace
from keepsight.training import models
from tests import tiny
from tests.gallery import bundle_with

from .conftest import PROJECT


def enrol(ws: Workspace, engine: RecognitionEngine | None, name: str, seed: int) -> enrolling.Enrolled:
    return enrolling.enrol(ws, PROJECT, name, tiny.picture(seed), engine=engine, actor="staff", file_name=f"{seed}.png")


def known(ws: Workspace, engine: RecognitionEngine, *, since: int = 0) -> dict[str, int]:
    """Who a server's gallery holds that follows from a revision on."""
    gallery.follow(ws, PROJECT, engine, since=since)
    return engine.gallery.names()


def test_an_enrolment_is_a_sample_and_lives_at_once(ws: Workspace, engine: RecognitionEngine) -> None:
    done = enrol(ws, engine, "bolt  M8", 1)
    assert (done.name, done.revision, done.box) == ("bolt M8", 1, None)
    assert done.as_dict()["live"] is True
    found = samples.get(ws, PROJECT, done.sample_id)
    assert (found.split, found.value) == ("train", {"subjects": [{"label": "bolt M8"}]})
    assert found.meta["enrolled"] is True
    assert known(ws, engine) == {"bolt M8": 1}
    assert gallery.revisions(ws) == {PROJECT: 1}
    assert audit.newest(ws.database, limit=1)[0]["action"] == "gallery.enrol"
    versions.commit(ws, PROJECT, message="", author="me")
    assert len(samples.at_version(ws, PROJECT, 1)) == 1


def test_enrolling_again_changes_nothing_but_the_revision(ws: Workspace, engine: RecognitionEngine) -> None:
    first, second = enrol(ws, engine, "bolt", 1), enrol(ws, engine, "bolt", 1)
    assert first.sample_id == second.sample_id
    assert known(ws, engine) == {"bolt": 1}
    assert len(samples.current(ws, PROJECT)) == 1


def test_servers_see_only_what_is_new_and_only_their_space(ws: Workspace, engine: RecognitionEngine) -> None:
    enrol(ws, engine, "bolt", 1)
    enrol(ws, engine, "nut", 2)
    found = gallery.changes(ws, PROJECT, space=engine.space, since=1)
    assert ([item.name for item in found.put], found.revision) == (["nut"], 2)
    assert gallery.changes(ws, PROJECT, space="another", since=0).put == ()
    assert gallery.changes(ws, PROJECT, space=engine.space, since=2).revision == 2
    missing = gallery.enrolled_elsewhere(ws, PROJECT, space="another")
    assert sorted(name for _, _, name in missing) == ["bolt", "nut"]
    assert gallery.enrolled_elsewhere(ws, PROJECT, space=engine.space) == []


def test_without_a_model_it_waits_in_the_data_set(ws: Workspace) -> None:
    done = enrol(ws, None, "bolt", 1)
    assert (done.revision, done.as_dict()["live"]) == (0, False)
    assert gallery.revisions(ws) == {}
    assert samples.get(ws, PROJECT, done.sample_id).value == {"subjects": [{"label": "bolt"}]}


def test_who_is_taken_out_is_gone_from_servers_and_data_and_can_come_back(
    ws: Workspace, engine: RecognitionEngine
) -> None:
    for seed in (1, 3):
        enrol(ws, engine, "bolt", seed)
    enrol(ws, engine, "nut", 2)
    assert known(ws, engine) == {"bolt": 2, "nut": 1}
    with pytest.raises(NotFoundError, match="picture of bolt"):
        enrolling.remove(ws, PROJECT, "bolt", actor="staff", sample_id="0" * 32)
    taken = enrolling.remove(ws, PROJECT, "bolt", actor="staff")
    assert len(taken.samples) == 2
    assert known(ws, engine, since=3) == {"nut": 1}
    assert known(ws, RecognitionEngine(bundle_with())) == {"nut": 1}
    assert [row.value for row in samples.current(ws, PROJECT)] == [{"subjects": [{"label": "nut"}]}]
    assert audit.newest(ws.database, limit=1)[0]["action"] == "gallery.remove"
    with pytest.raises(NotFoundError, match="bolt"):
        enrolling.remove(ws, PROJECT, "bolt", actor="staff")
    enrol(ws, engine, "screw", 1)
    assert known(ws, engine, since=4) == {"nut": 1, "screw": 1}


def test_one_picture_of_somebody_is_taken_out(ws: Workspace, engine: RecognitionEngine) -> None:
    first = enrol(ws, engine, "bolt", 1)
    enrol(ws, engine, "bolt", 3)
    enrolling.remove(ws, PROJECT, "bolt", actor="staff", sample_id=first.sample_id)
    assert known(ws, engine) == {"bolt": 1}


@pytest.mark.parametrize(("name", "found"), [(" ", "A name is empty"), ("Unknown", 'as "unknown"')])
def test_a_name_has_to_be_one(ws: Workspace, engine: RecognitionEngine, name: str, found: str) -> None:
    with pytest.raises(AnnotationError, match=found):
        enrol(ws, engine, name, 1)


def test_bad_pictures_and_other_uses_are_refused(ws: Workspace, engine: RecognitionEngine) -> None:
    with pytest.raises(PictureError):
        enrolling.enrol(ws, PROJECT, "bolt", b"no picture", engine=engine, actor="staff")
    done = enrol(ws, engine, "bolt", 1)
    with pytest.raises(ConflictError, match='enrolled as "bolt" already'):
        enrol(ws, engine, "nut", 1)
    with ws.database.write() as connection:
        samples.move(connection, ws, PROJECT, done.sample_id, "test", actor="me")
    with pytest.raises(ConflictError, match="judges models"):
        enrol(ws, engine, "bolt", 1)
    with pytest.raises(NotFoundError, match="in test and recent judge models and stay"):
        enrolling.remove(ws, PROJECT, "bolt", actor="staff")
    with pytest.raises(BadInputError, match="has no gallery"):
        enrolling.enrol(ws, "shop", "bolt", tiny.picture(1), engine=engine, actor="staff")


def registered(ws: Workspace, engine: RecognitionEngine) -> tuple[models.Model, str, str]:
    """A model whose gallery knows bolt and nut from two samples; their picture ids."""
    known_ = Gallery(engine.gallery.dim, Calibration(false_accepts=0.01, usual=0.95))
    ids = []
    for name, seed in (("bolt", 1), ("nut", 2)):
        done = enrol(ws, None, name, seed)
        ids.append(done.picture_id)
        known_.put([Entry(name, done.sample_id, np.eye(1, known_.dim, seed, dtype=np.float32)[0])])
    made = models.register(ws, PROJECT, bundle_with(known_), run_id=None, dataset_version=None, metrics={}, actor="me")
    return made, ids[0], ids[1]


def test_erasing_a_picture_takes_it_out_of_servers_and_stored_models(ws: Workspace, engine: RecognitionEngine) -> None:
    model, bolt, nut = registered(ws, engine)
    enrol(ws, engine, "screw", 5)
    served = RecognitionEngine(models.load_bundle(ws, model))
    assert known(ws, served) == {"bolt": 1, "nut": 1, "screw": 1}
    planned = erase.erase_picture(ws, bolt, actor="me", reason="asked", dry_run=True)
    assert planned["outstanding"] == []
    erase.erase_picture(ws, bolt, actor="me", reason="asked")
    assert known(ws, served, since=1) == {"nut": 1, "screw": 1}
    now = models.get(ws, PROJECT, model.number)
    assert now.bundle_digest != model.bundle_digest
    stored = models.load_bundle(ws, now)
    assert stored.digest == now.bundle_digest
    assert stored.info.labels == ("nut",)
    assert Gallery.read(stored.part("gallery.npz")).names() == {"nut": 1}
    assert stored.model() == models.load_bundle(ws, now).model()
    with pytest.raises(NotFoundError, match="was erased"):
        ws.blobs.get(model.blob_id)
    screw = ws.blobs.name(tiny.picture(5))
    erase.erase_picture(ws, screw, actor="me", reason="asked")
    assert known(ws, served, since=2) == {"nut": 1}
    with ws.database.read("derived") as connection:
        kept = connection.execute(sa.select(schema.gallery)).all()
        assert [row.data for row in kept] == [None] * len(kept)
        assert {row.label for row in kept} == {""}
        left = connection.scalars(sa.select(schema.derived.c.picture_id).where(schema.derived.c.kind == "gallery"))
        assert left.all() == [nut]


def test_a_model_that_knows_a_sample_again_brings_it_back(ws: Workspace, engine: RecognitionEngine) -> None:
    enrol(ws, engine, "bolt", 1)
    enrolling.remove(ws, PROJECT, "bolt", actor="staff")
    model, _, _ = registered(ws, engine)
    assert known(ws, RecognitionEngine(models.load_bundle(ws, model))) == {"bolt": 1, "nut": 1}


def test_a_delivered_bundle_carries_the_gallery_as_it_is(ws: Workspace, engine: RecognitionEngine) -> None:
    model, _, _ = registered(ws, engine)
    stored = models.load_bundle(ws, model)
    assert bundles.with_changes(ws, PROJECT, stored, number=model.number) == stored
    enrol(ws, engine, "screw", 5)
    enrolling.remove(ws, PROJECT, "nut", actor="staff")
    made = bundles.with_changes(ws, PROJECT, stored, number=model.number)
    assert made.info.labels == ("bolt", "screw")
    assert made.info.extra["model_number"] == model.number
    assert RecognitionEngine(made).gallery.names() == {"bolt": 1, "screw": 1}
    other = tiny.bundle()
    assert bundles.with_changes(ws, "shop", other, number=1) is other


def test_a_picture_of_two_keeps_the_other_one(ws: Workspace, engine: RecognitionEngine) -> None:
    done = enrol(ws, engine, "bolt", 1)
    both = {"subjects": [{"label": "bolt"}, {"label": "nut"}]}
    with ws.database.write() as connection:
        samples.annotate(connection, ws, PROJECT, done.sample_id, both, author="me", origin="review")
    enrolling.remove(ws, PROJECT, "bolt", actor="staff")
    assert samples.get(ws, PROJECT, done.sample_id).value == {"subjects": [{"label": "nut"}]}
    assert rows.sample_id(PROJECT, done.picture_id) == done.sample_id
