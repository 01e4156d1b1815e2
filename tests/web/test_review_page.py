"""The review page without JavaScript, and that an audit's answer stays hidden until the verdict."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from keepsight.data import samples
from keepsight.review import queue, verdicts
from keepsight.store.workspace import Workspace


def _only(ws: Workspace, shop: Any, kind: str, keep: int = 1) -> list[str]:
    """Answers all of the queue but some of one kind."""
    left: list[str] = (shop.audits if kind == "audit" else shop.uncertain)[:keep]
    for event_id in (*shop.audits, *shop.uncertain):
        if event_id not in left:
            verdicts.skip(ws, "shop", event_id, author="somebody", reason="for the test")
    return left


def test_a_picture_is_answered_and_the_next_one_comes(browser: Any, shop: Any, ws: Workspace) -> None:
    first, second = _only(ws, shop, "uncertain", keep=2)
    page = browser.get("/shop/review").text
    asked = re.search(r"/shop/review/([0-9a-f]{32})/answer", page)
    assert asked is not None
    assert asked[1] in (first, second)
    assert "1 of 2" in page
    answer = browser.post(f"/shop/review/{asked[1]}/answer", {"label": "cherry"})
    assert answer.status_code == 200
    assert "Saved: <b>cherry</b>" in answer.text
    assert "2 of 2" in answer.text
    item = queue.get(ws, "shop", asked[1])
    assert item.verdict == {"label": "cherry"}
    page = browser.post(f"/shop/review/{({first, second} - {asked[1]}).pop()}/answer", {"label": "fig"}).text
    assert "All done. Thank you!" in page


def test_the_models_answer_stands_there_for_an_uncertain_picture(browser: Any, shop: Any, ws: Workspace) -> None:
    _only(ws, shop, "uncertain")
    page = browser.get("/shop/review").text
    assert "Yes, apple" in page
    assert "The model is guessing (30\u00a0%)" in page


def test_an_audit_does_not_tell_before_the_verdict_and_does_after(browser: Any, shop: Any, ws: Workspace) -> None:
    (event_id,) = _only(ws, shop, "audit")
    page = browser.get("/shop/review").text
    assert "Yes," not in page
    assert "99\u00a0%" not in page
    assert "A blind check" in page
    # All classes stand there, none of them marked.
    assert [page.count(f'value="{label}"') for label in shop.labels] == [1] * 5
    assert "suggested" not in page
    for path in (
        "/v1/shop/review/next",
        f"/v1/shop/predictions/{event_id}",
        "/v1/shop/events",
        "/shop/monitor",
        "/",
    ):
        answer = browser.client.get(path, headers={"accept": "text/html" if path[1:3] != "v1" else "*/*"})
        assert answer.status_code == 200
        assert "0.98765" not in answer.text, path
    told = browser.client.get(f"/v1/shop/predictions/{event_id}").json()
    assert told["withheld"] is True
    assert told["label"] is told["confidence"] is told["prediction"] is None
    assert told["review"]["prediction"] is None

    answer = browser.post(f"/shop/review/{event_id}/answer", {"label": "fig"}).text
    assert "You said <b>fig</b>. The model said <b>apple</b>:" in re.sub(r"\s+", " ", answer)
    assert "it was wrong" in answer
    told = browser.client.get(f"/v1/shop/predictions/{event_id}").json()
    assert told["label"] == "apple"
    assert told["review"]["correct"] is False


def test_an_audit_hides_its_answer_in_the_order_of_many_classes_too(
    browser: Any, fill: Callable[..., Any], ws: Workspace
) -> None:
    labels = [f"class {n}" for n in range(81)]
    shop = fill("empty", labels=labels, audits=2, uncertain=0)
    first, second = (
        re.findall(r'name="label" value="([^"]+)"', browser.get(f"/empty/review?item={event_id}").text)
        for event_id in shop.audits
    )
    assert len(first) == 81
    assert first == second, "the model said different things, so an equal order tells nothing"


def test_many_classes_start_with_the_models_alternatives(browser: Any, fill: Callable[..., Any]) -> None:
    labels = [f"class {n}" for n in range(81)]
    shop = fill("empty", labels=labels, audits=0, uncertain=1)
    page = browser.get(f"/empty/review?item={shop.uncertain[0]}").text
    offered = re.findall(r'class="choice suggested" name="label" value="([^"]+)"', page)
    assert offered[:4] == ["class 1", "class 2", "class 3", "class 4"]
    assert len(offered) == 9
    assert "Type to find a class" in page


def test_two_people_at_one_picture(browser: Any, new_browser: Callable[[], Any], shop: Any, ws: Workspace) -> None:
    (event_id,) = _only(ws, shop, "uncertain")
    browser.post(f"/shop/review/{event_id}/answer", {"label": "fig"})
    late = new_browser().post(f"/shop/review/{event_id}/answer", {"label": "apple"})
    assert "answered this picture already" in late.text
    assert queue.get(ws, "shop", event_id).verdict == {"label": "fig"}


def test_a_class_that_does_not_exist_and_one_that_is_new(browser: Any, shop: Any, ws: Workspace) -> None:
    (event_id,) = _only(ws, shop, "uncertain")
    answer = browser.post(f"/shop/review/{event_id}/answer", {"label": "aple"})
    assert "no class &#34;aple&#34;" in answer.text
    assert "&#34;apple&#34;" in answer.text
    assert f"/shop/review/{event_id}/answer" in answer.text, "the same picture is still there"
    browser.post(f"/shop/review/{event_id}/answer", {"new_label": "medlar"})
    assert any(item.value == {"label": "medlar"} for item in samples.current(ws, "shop"))


def test_skip_and_undo(browser: Any, shop: Any, ws: Workspace) -> None:
    (event_id,) = _only(ws, shop, "uncertain")
    answer = browser.post(f"/shop/review/{event_id}/skip", {"reason": "cannot tell"})
    assert "Skipped." in answer.text
    answer = browser.post("/shop/review/undo")
    assert "taken back" in answer.text
    assert f"/shop/review/{event_id}/answer" in answer.text
    assert queue.get(ws, "shop", event_id).answered_at is None


def test_undo_of_nothing_is_told_on_the_page(browser: Any, ws: Workspace) -> None:
    answer = browser.post("/empty/review/undo")
    assert answer.status_code == 200
    assert "has answered nothing" in answer.text


def test_htmx_gets_the_card_alone(browser: Any, shop: Any, ws: Workspace) -> None:
    (event_id,) = _only(ws, shop, "uncertain")
    answer = browser.post(f"/shop/review/{event_id}/answer", {"label": "fig"}, headers={"hx-request": "true"})
    assert answer.status_code == 200
    assert "<html" not in answer.text
    assert 'id="review"' in answer.text


def test_an_empty_queue_is_friendly(browser: Any) -> None:
    assert "Nothing to review" in browser.get("/empty/review").text
