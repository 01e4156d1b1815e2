"""Every page renders real rows, in plain words, with the headers that keep it safe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from keepsight.errors import DataError
from keepsight.loop import runs
from keepsight.store.workspace import Workspace

PAGES = (
    "/",
    "/shop/monitor",
    "/shop/review",
    "/shop/data",
    "/shop/data?label=apple&split=train",
    "/shop/data/versions/1",
    "/shop/runs",
    "/shop/models",
    "/shop/models/1",
    "/shop/models/2",
    "/shop/models/2?sort=-support&find=a&mistakes=60&all=1",
    "/shop/settings",
    "/audit",
    "/docs",
    "/login",
)
TABS = ("monitor", "review", "data", "runs", "models", "settings")
EMPTY = ("/empty/monitor", "/empty/review", "/empty/data", "/empty/runs", "/empty/models", "/empty/settings")


def test_pages_render_without_anything_inline_or_from_elsewhere(browser: Any, shop: Any) -> None:
    for path in (*PAGES, *EMPTY):
        answer = browser.get(path)
        assert answer.status_code == 200, (path, answer.text)
        for foreign in ("<script>", "style=", "onclick", "http://", "https://"):
            assert foreign not in answer.text, path


@pytest.mark.postgres
def test_pages_render_on_postgresql(tmp_path: Path, postgres_database: str, world: Any) -> None:
    settings = f"projects: {{shop: {{}}}}\ndatabase: {postgres_database}\n"
    with world.open_workspace(tmp_path / "ws", settings) as ws:
        made = world.seed(ws, "shop")
        with world.run_server(ws) as url, httpx.Client(base_url=url, timeout=30) as client:
            paths = (
                "/",
                *(f"/shop/{tab}" for tab in TABS),
                "/shop/data?label=apple",
                f"/shop/runs/{made.run_id}",
                "/shop/models/2",
                "/audit",
            )
            for path in (*paths, "/v1/shop/events", "/v1/shop/review/next", "/v1/shop/monitor"):
                answer = client.get(path, headers={"accept": "text/html"})
                assert answer.status_code == 200, (path, answer.text)


def test_every_answer_has_the_headers_that_keep_it_safe(browser: Any, shop: Any) -> None:
    for path in ("/", "/shop/review", "/nothing/here", "/v1/shop/models", "/static/theme.js"):
        headers = browser.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] in ("private, no-cache", "no-cache")


def test_the_overview_says_how_each_project_does(browser: Any, shop: Any) -> None:
    text = browser.get("/").text
    assert "has no model yet" in text
    assert "needs a look" in text
    assert "3 pictures wait for a blind check" in text
    assert "1 decision waits for you" in text
    assert "shop: release model 2, or not?" in text
    assert "Model 2 waits for your decision" not in text, "the alert says nothing that the decision does not"


def test_the_overview_of_nothing() -> None:
    from keepsight.web.render import environment

    class Nobody:
        local = True
        name = "ana"

    text = (
        environment()
        .get_template("overview.html")
        .render(
            request=None,
            form_key="k",
            identity=Nobody(),
            operator=True,
            now=0.0,
            projects=[],
            standings=[],
            decisions=[],
        )
    )
    assert "keepsight init" in text


def test_models_show_their_checks_in_words(browser: Any, shop: Any) -> None:
    text = browser.get("/shop/models").text
    assert "The checks cannot tell: a person decides." in text
    assert "There are too few recent checked pictures" in text
    assert "waits for a decision" in text
    assert "93.0\u00a0%" in text


def test_the_chain_ties_a_run_together(browser: Any, shop: Any) -> None:
    text = browser.get(f"/shop/runs/{shop.run_id}").text
    for part in ("Labels", "Version 1", "Train and measure the new model", "cannot tell", "decide about model 2"):
        assert part in text


def test_what_failed_after_the_release_stands_beside_it(browser: Any, ws: Workspace) -> None:
    run_id = runs.enqueue(ws, "empty", trigger="hand", reason="new labels", actor="ana")
    runs.update(ws, run_id, status="running", step="robustness", outcome="deployed")
    assert not runs.fail(ws, run_id, DataError("Nothing to spoil.", expected="pictures.", do="Import some."))
    text = browser.get(f"/empty/runs/{run_id}").text
    assert "Nothing to spoil." in text and "Import some." in text
    assert "What came of the run stands." in text
    assert 'class="badge good"' in text, "it is released"


def test_a_run_of_another_project_is_not_shown(browser: Any, shop: Any) -> None:
    assert browser.get(f"/empty/runs/{shop.run_id}").status_code == 404


def test_the_data_page_counts_classes_and_filters_pictures(browser: Any, shop: Any) -> None:
    text = browser.get("/shop/data?label=apple").text
    assert text.count('class="tile"') == 4
    assert "first pictures" in text
    text = browser.get("/shop/data?label=*&split=test").text
    assert text.count('class="tile"') == 5


def test_the_grid_is_paged(browser: Any, fill: Callable[..., Any]) -> None:
    from collections import Counter

    fill("empty", labels=[f"class {n}" for n in range(15)])
    first = browser.get("/empty/data").text
    assert first.count('class="tile"') == 48
    assert "offset=48" in first
    rest = browser.get("/empty/data?offset=48", headers={"hx-request": "true"}).text
    assert rest.count('class="tile"') == 12
    assert "<html" not in rest
    names = Counter(part.split('"')[0] for part in (first + rest).split('href="/empty/data/samples/')[1:])
    assert len(names) == 60


def test_a_version_lists_what_changed(browser: Any, shop: Any) -> None:
    text = browser.get("/shop/data/versions/1").text
    assert "20 new" in text
    assert browser.get("/shop/data/versions/9").status_code == 404


def test_a_version_gets_a_name_once(browser: Any, shop: Any) -> None:
    text = browser.post("/shop/data/versions/1/tag", {"name": "summer"}).text
    assert "summer" in text
    assert browser.post("/shop/data/versions/1/tag", {"name": "7"}).status_code == 422


def test_the_label_of_a_picture_can_be_corrected(browser: Any, shop: Any, ws: Workspace) -> None:
    from keepsight.data import samples

    sample = next(item for item in samples.current(ws, "shop") if item.value == {"label": "apple"})
    page = browser.get(f"/shop/data/samples/{sample.sample_id}").text
    assert "apple" in page
    answer = browser.post(f"/shop/data/samples/{sample.sample_id}", {"label": "fig"})
    assert answer.status_code == 200
    assert samples.get(ws, "shop", sample.sample_id).value == {"label": "fig"}
    assert browser.post(f"/shop/data/samples/{sample.sample_id}", {"label": "figg"}).status_code == 422


def test_settings_show_where_they_come_from_and_can_be_changed(browser: Any, shop: Any, ws: Workspace) -> None:
    text = browser.get("/shop/settings").text
    assert "set in git" in text
    assert "as delivered" in text
    answer = browser.post("/shop/settings", {"name": "review.audit_share", "value": "0.2"})
    assert "Saved." in answer.text
    assert ws.settings("shop")["review.audit_share"] == 0.2
    answer = browser.post("/shop/settings", {"name": "gate.min_recall", "value": "apple: 0.9, fig: 0.8"})
    assert answer.status_code == 200
    assert ws.settings("shop")["gate.min_recall"] == {"apple": 0.9, "fig": 0.8}
    assert "apple: 0.9, fig: 0.8" in answer.text
    answer = browser.post("/shop/settings", {"name": "train.augment", "value": "light, blur"})
    assert ws.settings("shop")["train.augment"] == ["light", "blur"]
    assert 'name="value.light" checked' in answer.text and 'name="value.noise" checked' not in answer.text
    assert browser.post("/shop/settings", {"name": "train.augment", "value": "light, fog"}).status_code == 422
    browser.post("/shop/settings", {"name": "train.augment", "value": ""})
    assert ws.settings("shop")["train.augment"] == []
    browser.post("/shop/settings", {"name": "review.min_confidence", "value": "0.5"})
    browser.post("/shop/settings", {"name": "review.min_confidence", "value": ""})
    assert ws.settings("shop")["review.min_confidence"] is None


def test_choices_are_chosen_and_switches_switched(browser: Any, shop: Any, ws: Workspace) -> None:
    text = browser.get("/shop/settings").text
    assert "<option selected>float</option><option>int8</option>" in text
    assert "<option>finetune</option>" in text, "the recipes of the task"
    name = {"name": "train.int8"}
    # As a browser sends it: the hidden field first, the ticked box after it.
    assert "Saved." in browser.post("/shop/settings", {**name, "value": "true"}).text
    assert ws.settings("shop")["train.int8"] is True
    browser.post("/shop/settings", {**name, "value": "false"})
    assert ws.settings("shop")["train.int8"] is False
    augment = {"name": "train.augment", "several": "yes"}
    browser.post("/shop/settings", {**augment, "value.blur": "on", "value.crop": "on"})
    assert ws.settings("shop")["train.augment"] == ["blur", "crop"]
    browser.post("/shop/settings", augment)
    assert ws.settings("shop")["train.augment"] == []
    # A recipe that comes with nothing here (of a plug-in that is gone) is still told.
    ws.set_setting("shop", "train.recipe", "my-own", actor="ana")
    assert "<option selected>my-own</option>" in browser.get("/shop/settings").text


def test_a_wrong_setting_is_told_beside_what_was_typed(browser: Any, shop: Any, ws: Workspace) -> None:
    answer = browser.post("/shop/settings", {"name": "gate.margin", "value": "7"})
    assert answer.status_code == 422
    assert "a number from 0 to 1" in answer.text
    assert 'value="7"' in answer.text
    # What git sets stays as it is.
    assert browser.post("/shop/settings", {"name": "gate.min_accuracy", "value": "0.1"}).status_code == 409
    assert ws.settings("shop")["gate.min_accuracy"] == 0.8


def test_releasing_against_the_checks_needs_a_reason(browser: Any, shop: Any, ws: Workspace) -> None:
    from keepsight.delivery import deployments

    answer = browser.post("/shop/models/2/promote", {"reason": " "})
    assert answer.status_code == 422
    assert "There is no reason." in answer.text
    answer = browser.post("/shop/models/2/promote", {"reason": "I looked at it"})
    assert "being released" in answer.text
    now = deployments.current(ws, "shop")
    assert now is not None
    assert (now.model_number, now.kind, now.reason) == (2, "override", "I looked at it")
    assert "0 open alerts" in browser.get("/").text.replace("<b>", "").replace("</b>", "")
    answer = browser.post("/shop/models/rollback", {"reason": "it was worse"})
    assert "decided by a person" in answer.text
    now = deployments.current(ws, "shop")
    assert now is not None
    assert now.model_number == 1


def test_a_model_can_be_discarded(browser: Any, shop: Any) -> None:
    answer = browser.post("/shop/models/2/discard", {"reason": "no"})
    assert "discarded" in answer.text
    assert browser.post("/shop/models/1/discard").status_code == 409


def test_training_is_asked_for_and_stopped(browser: Any, shop: Any) -> None:
    answer = browser.post("/shop/runs", {"reason": "new season"})
    assert "new season" in answer.text
    assert "queued" in answer.text
    run = str(answer.url).split("/runs/")[1].split("?")[0]
    assert browser.post("/shop/runs").status_code == 409
    assert "cancelled" in browser.post(f"/shop/runs/{run}/cancel").text


def test_alerts_are_closed(browser: Any, shop: Any, ws: Workspace) -> None:
    from keepsight.monitoring import alerts

    alert = alerts.open_alerts(ws, "shop")[0]
    assert alert.title in browser.get("/shop/monitor").text
    answer = browser.post(f"/shop/alerts/{alert.id}/close")
    assert "The alert was closed." in answer.text
    assert alerts.open_alerts(ws, "shop") == []


def test_the_audit_page_checks_the_chain(browser: Any, shop: Any, ws: Workspace) -> None:
    import sqlalchemy as sa

    from keepsight.store import schema

    assert "the chain is whole" in browser.get("/audit").text
    with ws.database.write() as connection:
        connection.execute(sa.text("DROP TRIGGER audit_no_update"))
        connection.execute(sa.update(schema.audit).where(schema.audit.c.seq == 2).values(actor="somebody"))
    text = browser.get("/audit").text
    assert "The audit record 2 does not continue the chain." in text


def test_pictures_are_scaled_without_the_originals_metadata(browser: Any, shop: Any, ws: Workspace) -> None:
    import io

    from PIL import Image

    from keepsight.review import queue

    item = queue.get(ws, "shop", shop.audits[0])
    answer = browser.client.get(f"/shop/pictures/{item.picture_id}?side=160")
    image = Image.open(io.BytesIO(answer.content))
    assert image.size == (160, 120)
    assert not image.getexif()
    assert answer.headers["cache-control"] == "private, max-age=300"
    assert browser.client.get(f"/shop/pictures/{item.picture_id}?side=5000").status_code == 422
    # A project shows its own pictures only.
    assert browser.client.get(f"/empty/pictures/{item.picture_id}").status_code == 404


def test_errors_are_pages_for_people_and_json_for_programs(browser: Any, shop: Any) -> None:
    answer = browser.get("/shpo/review")
    assert answer.status_code == 404
    assert "What to do" in answer.text
    assert "keepsight init shpo" in answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert browser.get("/shop/nothing/here").status_code == 404
    answer = browser.get("/v1/shpo/models")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_an_error_for_htmx_goes_into_the_notice(browser: Any, shop: Any) -> None:
    answer = browser.post("/shop/models/9/promote", headers={"hx-request": "true"})
    assert answer.status_code == 404
    assert answer.headers["hx-retarget"] == "#notice"
    assert "<html" not in answer.text


def test_static_files_are_kept_until_they_change(browser: Any) -> None:
    from keepsight.web.render import static

    answer = browser.client.get(static("keepsight.css"))
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    assert browser.client.get("/static/keepsight.css").headers["cache-control"] == "no-cache"
    assert browser.client.get(static("widgets/classification.js")).status_code == 200
    assert browser.client.get("/static/widgets/classification.py").status_code == 404
    assert browser.client.get("/static/widgets/__init__.js").status_code == 404
