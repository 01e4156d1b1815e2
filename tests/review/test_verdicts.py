"""An answer becomes a label and a measurement, once; slips can be taken back, what was measured cannot be bent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from keepsight.data import erase, samples, versions
from keepsight.errors import AnnotationError, BadInputError, ConflictError, NotFoundError
from keepsight.review import classes, queue, verdicts
from keepsight.store import schema
from keepsight.store.workspace import Workspace

Serve = Callable[..., str]
MakeJpeg = Callable[[int], bytes]


def _sample(ws: Workspace, sample_id: str | None) -> samples.Sample:
    assert sample_id is not None
    return samples.get(ws, "shop", sample_id)


def _notes(ws: Workspace) -> Sequence[Any]:
    with ws.database.read() as connection:
        return connection.execute(sa.select(schema.annotation).order_by(schema.annotation.c.seq)).mappings().all()


def test_what_the_client_said_stays_with_the_picture_until_it_is_erased(ws: Workspace, serve: Serve) -> None:
    said = {"group": "visit 3", "light": "night lamp", "selected_by": "me", "source": "another", "event_id": "mine"}
    event_id = serve("audit", meta=said)
    done = verdicts.answer(ws, "shop", event_id, {"label": "banana"}, author="ana")
    sample = _sample(ws, done.sample_id)
    assert sample.group == "visit 3"
    assert sample.meta == {
        "source": "till",
        "light": "night lamp",
        "selected_by": "audit",
        "event_id": event_id,
    }, "what the loop notes cannot be said from outside"
    with ws.database.write() as connection:
        samples.move(connection, ws, "shop", sample.sample_id, "recent", actor="ana")
    versions.commit(ws, "shop", message="", author="ana")
    erase.erase_picture(ws, sample.picture_id, actor="ana", reason="asked")
    with ws.database.read() as connection:
        rows = str(connection.execute(sa.select(schema.membership)).all())
    assert "till" not in rows and "night lamp" not in rows and "visit 3" not in rows
    assert versions.verify(ws, "shop") == 1


def test_an_answer_closes_the_item_and_becomes_a_label(ws: Workspace, serve: Serve) -> None:
    event_id = serve("uncertain", label="apple", meta={"group": "shelf 3"})
    done = verdicts.answer(ws, "shop", event_id, {"label": "banana"}, author="ana")
    assert done.correct is False
    assert not done.counted
    sample = _sample(ws, done.sample_id)
    assert (sample.value, sample.split, sample.group) == ({"label": "banana"}, "pending", "shelf 3")
    assert sample.name == f"review/{event_id}"
    assert sample.meta == {"source": "till", "selected_by": "uncertain", "event_id": event_id}
    note = _notes(ws)[-1]
    assert (note["author"], note["origin"]) == ("ana", "review")
    assert queue.next_item(ws, "shop", author="ana") is None
    assert queue.get(ws, "shop", event_id).correct is False


def test_an_audit_measures(ws: Workspace, serve: Serve) -> None:
    right = verdicts.answer(ws, "shop", serve("audit", label="apple"), {"label": "apple"}, author="ana")
    wrong = verdicts.answer(ws, "shop", serve("audit", label="apple"), {"label": "banana"}, author="ana")
    assert (right.correct, right.counted, right.item.correct) == (True, True, True)
    assert (wrong.correct, wrong.counted, wrong.item.correct) == (False, True, False)


def test_the_second_answer_is_a_conflict_and_changes_nothing(ws: Workspace, serve: Serve) -> None:
    event_id = serve("uncertain")
    verdicts.answer(ws, "shop", event_id, {"label": "banana"}, author="ana")
    with pytest.raises(ConflictError, match="ana answered this picture already"):
        verdicts.answer(ws, "shop", event_id, {"label": "apple"}, author="ben")
    with pytest.raises(ConflictError):
        verdicts.skip(ws, "shop", event_id, author="ben", reason="dark")
    item = queue.get(ws, "shop", event_id)
    assert (item.author, item.verdict) == ("ana", {"label": "banana"})


def test_an_unknown_class_names_the_nearest_ones(ws: Workspace, serve: Serve) -> None:
    event_id = serve("uncertain")
    with pytest.raises(AnnotationError) as caught:
        verdicts.answer(ws, "shop", event_id, {"label": "bananna"}, author="ana")
    assert caught.value.details["nearest"] == ["banana"]
    assert "new_class" in caught.value.do
    assert queue.get(ws, "shop", event_id).answered_at is None


def test_a_new_class_needs_to_be_meant(ws: Workspace, serve: Serve) -> None:
    done = verdicts.answer(ws, "shop", serve("uncertain"), {"label": "cherry"}, author="ana", new_class=True)
    assert _sample(ws, done.sample_id).value == {"label": "cherry"}
    assert "cherry" in classes.known(ws, "shop")
    # From now on it is a class like any other.
    verdicts.answer(ws, "shop", serve("uncertain"), {"label": "cherry"}, author="ana")


def test_a_new_class_that_differs_in_case_only_is_none(ws: Workspace, serve: Serve) -> None:
    with pytest.raises(AnnotationError, match="Banana"):
        verdicts.answer(ws, "shop", serve("uncertain"), {"label": "Banana"}, author="ana", new_class=True)


def test_what_is_no_annotation_is_refused(ws: Workspace, serve: Serve) -> None:
    with pytest.raises(AnnotationError):
        verdicts.answer(ws, "shop", serve("uncertain"), {"label": ""}, author="ana", new_class=True)


def test_classes_are_sorted_as_people_do(ws: Workspace) -> None:
    assert list(classes.known(ws, "shop")) == ["apple", "banana", "class 2", "class 10"]


def test_skipping_gives_no_label_and_no_measurement(ws: Workspace, serve: Serve) -> None:
    event_id = serve("audit")
    done = verdicts.skip(ws, "shop", event_id, author="ana", reason=" too dark ")
    assert done.item.verdict == {"skip": "too dark"}
    assert done.item.correct is None
    assert len(samples.current(ws, "shop")) == 4
    with pytest.raises(BadInputError):
        verdicts.skip(ws, "shop", serve("audit"), author="ana", reason=" ")


def test_undo_takes_the_last_answer_of_the_same_person_back(ws: Workspace, serve: Serve, clock: Any) -> None:
    first, second = serve("uncertain"), serve("uncertain")
    verdicts.answer(ws, "shop", first, {"label": "banana"}, author="ana")
    clock.now += 5
    verdicts.answer(ws, "shop", second, {"label": "banana"}, author="ana")
    clock.now += 5
    other = serve("uncertain")
    verdicts.answer(ws, "shop", other, {"label": "apple"}, author="ben")
    assert verdicts.undo(ws, "shop", author="ana").event_id == second
    assert queue.get(ws, "shop", second).answered_at is None
    assert len(samples.current(ws, "shop")) == 4 + 2
    done = verdicts.answer(ws, "shop", second, {"label": "apple"}, author="ana")
    assert _sample(ws, done.sample_id).value == {"label": "apple"}


def test_undo_of_nothing(ws: Workspace) -> None:
    with pytest.raises(NotFoundError, match="answered nothing"):
        verdicts.undo(ws, "shop", author="ana")


def test_undo_stops_at_a_version(ws: Workspace, serve: Serve, backbone_not_needed: Callable[[], None]) -> None:
    event_id = serve("uncertain")
    verdicts.answer(ws, "shop", event_id, {"label": "banana"}, author="ana")
    backbone_not_needed()
    versions.commit(ws, "shop", message="reviewed", author="ana")
    with pytest.raises(ConflictError, match="dataset version 1"):
        verdicts.undo(ws, "shop", author="ana")
    assert queue.get(ws, "shop", event_id).verdict == {"label": "banana"}


def test_undo_gives_a_picture_its_earlier_label_back(ws: Workspace, serve: Serve, make_jpeg: MakeJpeg) -> None:
    # Picture 0 came with an import, as an apple.
    event_id = serve("uncertain", picture=make_jpeg(0), label="apple")
    done = verdicts.answer(ws, "shop", event_id, {"label": "banana"}, author="ana")
    assert _sample(ws, done.sample_id).value == {"label": "banana"}
    verdicts.undo(ws, "shop", author="ana")
    assert _sample(ws, done.sample_id).value == {"label": "apple"}
    assert _sample(ws, done.sample_id).name == "apple.jpg"


def test_undo_leaves_a_label_alone_that_the_answer_only_confirmed(
    ws: Workspace, serve: Serve, make_jpeg: MakeJpeg
) -> None:
    event_id = serve("uncertain", picture=make_jpeg(0), label="apple")
    done = verdicts.answer(ws, "shop", event_id, {"label": "apple"}, author="ana")
    verdicts.undo(ws, "shop", author="ana")
    assert _sample(ws, done.sample_id).value == {"label": "apple"}


def test_an_audit_judged_again_is_a_label_but_no_measurement(ws: Workspace, serve: Serve) -> None:
    event_id = serve("audit", label="apple")
    verdicts.answer(ws, "shop", event_id, {"label": "banana"}, author="ana")
    again = verdicts.undo(ws, "shop", author="ana")
    assert again.revealed
    assert again.prediction is not None, "it was shown already"
    verdicts.skip(ws, "shop", event_id, author="ana", reason="hm")
    assert verdicts.undo(ws, "shop", author="ana").revealed
    done = verdicts.answer(ws, "shop", event_id, {"label": "apple"}, author="ana")
    assert done.correct is True
    assert not done.counted
    assert queue.get(ws, "shop", event_id).correct is None
    assert _sample(ws, done.sample_id).meta["selected_by"] == "revealed"
