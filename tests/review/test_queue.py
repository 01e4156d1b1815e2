"""Whose turn it is, and that an audit is judged blind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from keepsight.errors import NotFoundError
from keepsight.review import queue, verdicts
from keepsight.store.workspace import Workspace

Serve = Callable[..., str]


def _order(ws: Workspace, author: str, number: int) -> list[str]:
    return [item.selected_by for item in queue.upcoming(ws, "shop", author=author, limit=number)]


def test_nothing_to_do(ws: Workspace) -> None:
    assert queue.next_item(ws, "shop", author="ana") is None
    assert queue.counts(ws, "shop") == queue.Counts(0, 0, 0)


def test_audits_do_not_wait_for_the_uncertain_ones(ws: Workspace, serve: Serve) -> None:
    for n in range(20):
        serve("uncertain", confidence=n / 40)
    for _ in range(4):
        serve("audit")
    assert _order(ws, "ana", 8).count("audit") == 4
    assert queue.counts(ws, "shop") == queue.Counts(24, 4, 0)


def test_the_most_uncertain_come_first(ws: Workspace, serve: Serve) -> None:
    sure = [serve("uncertain", confidence=0.9) for _ in range(8)]
    unsure = [serve("uncertain", confidence=0.2) for _ in range(8)]
    first = {item.event_id for item in queue.upcoming(ws, "shop", author="ana", limit=8)}
    assert first == set(unsure)
    assert not first & set(sure)


def test_asking_again_gives_the_same_picture(ws: Workspace, serve: Serve) -> None:
    for _ in range(10):
        serve("uncertain")
    first, again = (queue.next_item(ws, "shop", author="ana") for _ in range(2))
    assert first == again


def test_people_seldom_get_the_same_picture(ws: Workspace, serve: Serve) -> None:
    for _ in range(10):
        serve("uncertain")
    given = {queue.upcoming(ws, "shop", author=f"person {n}", limit=1)[0].event_id for n in range(30)}
    assert len(given) >= 4


def test_an_open_audit_tells_nothing_of_the_answer(ws: Workspace, serve: Serve) -> None:
    event_id = serve("audit", label="class 10", confidence=0.4321)
    item = queue.get(ws, "shop", event_id)
    assert item.blind
    text = json.dumps(item.as_dict())
    assert "class 10" not in text
    assert "0.4321" not in text
    assert queue.withheld(ws, [event_id]) == {event_id}
    verdicts.answer(ws, "shop", event_id, {"label": "apple"}, author="ana")
    told = queue.get(ws, "shop", event_id).prediction
    assert told is not None
    assert told["label"] == "class 10"
    assert queue.withheld(ws, [event_id]) == set()


def test_a_skipped_audit_stays_blind_for_it_may_come_back(ws: Workspace, serve: Serve) -> None:
    event_id = serve("audit", label="class 10")
    verdicts.skip(ws, "shop", event_id, author="ana", reason="cannot tell")
    assert queue.get(ws, "shop", event_id).prediction is None
    assert verdicts.undo(ws, "shop", author="ana").blind


def test_an_audit_that_is_not_taken_in_yet_is_withheld_too(ws: Workspace, serve: Serve) -> None:
    event_id = serve("audit", take_in=False)
    assert queue.withheld(ws, [event_id]) == {event_id}


def test_erased_pictures_do_not_wait(ws: Workspace, serve: Serve, clock: Any) -> None:
    event_id = serve("uncertain")
    with ws.database.write() as connection:
        ws.blobs.erase(connection, queue.get(ws, "shop", event_id).picture_id, now=clock.now)
    assert queue.next_item(ws, "shop", author="ana") is None
    assert queue.counts(ws, "shop").waiting == 0


def test_an_unknown_picture_or_one_of_another_project_is_an_error(ws: Workspace, serve: Serve) -> None:
    event_id = serve("uncertain", project="other")
    with pytest.raises(NotFoundError, match="review queue of shop"):
        queue.get(ws, "shop", event_id)
    with pytest.raises(NotFoundError):
        queue.get(ws, "shop", "0" * 32)


def test_counts_of_an_author_since_a_time(ws: Workspace, serve: Serve, clock: Any) -> None:
    first, second = serve("uncertain"), serve("uncertain")
    verdicts.answer(ws, "shop", first, {"label": "apple"}, author="ana")
    clock.now += 100
    verdicts.skip(ws, "shop", second, author="ben", reason="dark")
    assert queue.counts(ws, "shop", author="ana").answered == 1
    assert queue.counts(ws, "shop").answered == 2
    assert queue.counts(ws, "shop", since=clock.now - 10).answered == 1
