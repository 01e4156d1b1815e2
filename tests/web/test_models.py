"""A model's page: what it can and cannot do, how it was made, and what there is to decide about it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from PIL import Image

from keepsight.data import erase, samples
from keepsight.delivery import deployments
from keepsight.loop import decisions, runs
from keepsight.store import schema, tokens
from keepsight.store.workspace import Workspace
from keepsight.training import models
from keepsight.training.assessment import store


def classes_of(text: str) -> list[str]:
    """The classes of the table, from top to bottom."""
    return re.findall(r'<th scope="row"><a href="/shop/data\?label=(\w+)', text)


def test_the_page_tells_what_the_model_can_and_cannot_do(browser: Any, shop: Any) -> None:
    text = browser.get("/shop/models/2").text
    assert "Model 2 is right on 94 of 100 test pictures" in text
    assert "3 pictures of medlar" in text
    assert '<span class="badge look" title="-11.0 points (-15.0 to -7.0) against the rest">weaker</span>' in text
    # The worst first: darker before tilted.
    assert text.index("much darker (a third of the light)</th>") < text.index("tilted (by 20 degrees)</th>")
    assert "off by 3.1\u00a0% on average; before it was corrected, by 8.2\u00a0%" in text
    assert "One picture takes 9.1\u00a0ms" in text
    assert "<b>grape</b> is taken for <b>apple</b>" in text
    assert "auto: head was chosen, because finetune is 0.4% worse on 300 held-out pictures" in text
    assert "1 min 20 s, 0.0022\u00a0€" in text, "what was expected before"
    assert "1 min 35 s" in text, "what it took"
    assert text.count('class="mistake"') == 5
    assert "<h3>size</h3>" not in text, "all pictures are small: that tells nothing apart"


def test_classes_are_sorted_and_found_without_a_script(browser: Any, shop: Any) -> None:
    assert classes_of(browser.get("/shop/models/2").text) == ["grape", "fig", "cherry", "banana", "apple"]
    page = browser.get("/shop/models/2").text
    assert 'href="?sort=-recall#classes"' in page, "a second click turns the order round"
    assert classes_of(browser.get("/shop/models/2?sort=-recall").text)[0] == "apple"
    assert classes_of(browser.get("/shop/models/2?sort=name").text) == sorted(shop.labels)
    assert classes_of(browser.get("/shop/models/2?sort=nonsense").text)[0] == "grape"
    found = browser.get("/shop/models/2?sort=name&find=AP").text
    assert classes_of(found) == ["apple", "grape"]
    assert 'href="?sort=-name&amp;find=AP#classes"' in found, "the search stays when the order changes"
    assert "No class of this name" in browser.get("/shop/models/2?find=zzz").text


def test_many_classes_come_in_parts(browser: Any, fill: Callable[..., Any]) -> None:
    fill("empty", labels=[f"class {n}" for n in range(70)])
    text = browser.get("/empty/models/2").text
    assert text.count('scope="row"><a href="/empty/data?label=') == 60
    assert "Show 10 more" in text
    assert browser.get("/empty/models/2?all=1").text.count('scope="row"><a href="/empty/data?label=') == 70
    assert text.count('class="mistake"') == 12
    assert browser.get("/empty/models/2?mistakes=60").text.count('class="mistake"') > 12


def test_where_it_looked_is_a_picture(browser: Any, shop: Any, ws: Workspace) -> None:
    sample = next(item for item in samples.current(ws, "shop") if item.split == "test")
    answer = browser.client.get(f"/shop/models/2/looked/{sample.sample_id}?label=fig")
    assert answer.headers["content-type"] == "image/jpeg"
    assert max(Image.open(io.BytesIO(answer.content)).size) <= 320
    other = browser.client.get(f"/shop/models/2/looked/{sample.sample_id}?label=apple").content
    assert other != answer.content, "another class speaks elsewhere"
    assert browser.client.get(f"/shop/models/2/looked/{sample.sample_id}?label=figg").status_code == 404
    assert browser.client.get(f"/empty/models/2/looked/{sample.sample_id}").status_code == 404
    assert browser.client.get("/shop/models/2/looked/nothing").status_code == 404


def test_an_erased_picture_leaves_the_page(browser: Any, shop: Any, ws: Workspace) -> None:
    sample = next(item for item in samples.current(ws, "shop") if item.split == "test")
    assert sample.picture_id in browser.get("/shop/models/2").text
    erase.erase_picture(ws, sample.picture_id, actor="ana", reason="asked for")
    assert sample.picture_id not in browser.get("/shop/models/2").text
    assert browser.client.get(f"/shop/models/2/looked/{sample.sample_id}").status_code == 404


def test_the_report_is_a_file_to_keep(browser: Any, shop: Any) -> None:
    page = browser.client.get("/shop/models/2/report.html")
    assert page.headers["content-disposition"] == 'attachment; filename="shop-model-2.html"'
    assert "<html" in page.text
    assert "http://" not in page.text.replace("http://www.w3.org/2000/svg", "")
    text = browser.client.get("/shop/models/2/report.md")
    assert text.headers["content-type"].startswith("text/markdown")
    assert "Model 2 is right on 94 of 100 test pictures" in text.text
    assert browser.client.get("/shop/models/9/report.md").status_code == 404


def test_a_model_without_figures_says_so(browser: Any, shop: Any, ws: Workspace, world: Any) -> None:
    bundle = world.build_bundle(shop.labels, seed=5)
    models.register(ws, "shop", bundle, run_id=None, dataset_version=None, metrics={}, actor="ana")
    text = browser.get("/shop/models/3").text
    assert "never tried on test pictures" in text
    assert "was not looked at more closely" in text
    # No gate saw it: releasing it is a decision that needs a reason.
    assert "so say why you decide otherwise" in text


def test_the_card_puts_both_models_side_by_side(browser: Any, shop: Any) -> None:
    card = browser.get("/shop/models/2").text.split('id="decide"')[1].split("</section>\n\n")[0]
    assert "Shall model 2 replace model 1, which is live?" in card
    assert "Live: model 1" in card
    assert "New: model 2" in card
    assert "camera=door: 84 of 100 pictures right instead of 70" in card
    assert "About 180 pictures would do." in card
    assert "Release model 2</button>" in card
    assert "Discard model 2</button>" in card


def test_checks_show_what_they_rest_on(browser: Any, shop: Any, ws: Workspace) -> None:
    text = browser.get("/shop/models/2").text
    checks = text.split('id="checks"')[1].split("</section>")[0]
    order = ["recent, in figures", "No ledger of consent", "test, in figures", "latency ms, in figures"]
    assert sorted(order, key=checks.index) == order, "what decides stands before what only informs"
    assert "(only told; it does not decide)" in checks
    assert "<dt>pictures needed</dt><dd" in checks
    assert re.search(r"<th scope=\"col\">kept</th>.*<td>0.93</td>", checks, re.DOTALL), "lists of figures are tables"


def test_what_could_not_be_measured_does_not_break_the_page(browser: Any, shop: Any, ws: Workspace, world: Any) -> None:
    nothing: dict[str, Any] = {"latency_ms": None, "robustness": [], "slices": [], "mistakes": [], "explained_by": None}
    unknown: dict[str, Any] = {"ece": None, "bins": []}
    calibration = {"temperature": 1.0, "before": unknown, "after": unknown}
    data = {**world.evaluation_of(ws, "shop", shop.labels), **nothing, "calibration": calibration}
    store.save(ws, "shop", 2, data)
    row = runs.get(ws, shop.run_id)
    assert row.gate is not None
    gate = {name: value for name, value in row.gate.items() if name != "sides"}
    with ws.database.write() as connection:
        connection.execute(sa.update(schema.run).where(schema.run.c.id == shop.run_id).values(gate=gate))
    text = browser.get("/shop/models/2").text
    assert text.count("Not measured.") == 2
    assert "It got no test picture wrong." in text
    assert "The two were not compared on the same pictures." in text


def test_only_what_is_newer_than_the_live_model_waits(browser: Any, shop: Any, ws: Workspace, world: Any) -> None:
    assert "1 decision waits" in browser.get("/").text
    bundle = world.build_bundle(shop.labels, seed=7)
    metrics = world.metrics_of(shop.labels)
    made = models.register(ws, "shop", bundle, run_id=None, dataset_version=1, metrics=metrics, actor="ana")
    deployments.promote(ws, "shop", made.number, actor="ana", reason="newer", kind="override")
    assert "decision waits" not in browser.get("/").text
    text = browser.get("/shop/models/2").text
    assert "waits for a decision" not in text
    assert "Model 3 is live now, and the comparison is with model 1." in text
    assert "Yes, release model 2" in text, "it can be released all the same"


def test_a_discarded_model_waits_no_more(browser: Any, shop: Any, ws: Workspace) -> None:
    decisions.discard(ws, "shop", 2, actor="ana", reason="no")
    assert "decision waits" not in browser.get("/").text
    assert "Decide" not in browser.get("/shop/models").text
    text = browser.get("/shop/models/2").text
    assert 'id="decide"' not in text


def test_reviewers_see_no_button_that_they_may_not_use(
    browser: Any, shop: Any, ws: Workspace, wait_until: Callable[..., None]
) -> None:
    run = runs.enqueue(ws, "shop", trigger="hand", reason="under way", actor="ana")
    sample = samples.current(ws, "shop")[0].sample_id
    with_buttons = (
        "/shop/models/2",
        "/shop/runs",
        f"/shop/runs/{run}",
        "/shop/monitor",
        "/shop/settings",
        "/shop/data/versions/1",
        f"/shop/data/samples/{sample}",
    )
    posts = re.compile(r'<form\b[^>]*method="post" action="([^"]*)"')
    for path in with_buttons:
        assert posts.findall(browser.get(path).text), path
    secret = tokens.create(ws.database, "rita", scopes=("review",), actor="test", now=ws.clock())
    wait_until(lambda: browser.client.get("/", follow_redirects=False).status_code != 200)
    browser.post("/login", {"token": secret, "to": "/"})
    for path in (*with_buttons, "/", "/shop/models", "/shop/models/1"):
        answer = browser.get(path)
        assert answer.status_code == 200
        assert set(posts.findall(answer.text)) == {"/logout"}, path
    assert "Somebody with a token of the scope" in browser.get("/shop/models/2").text
    assert browser.post("/shop/models/2/promote", {"reason": "mine"}).status_code == 403


def test_a_run_may_be_given_its_own_limits(browser: Any, shop: Any, ws: Workspace) -> None:
    answer = browser.post("/shop/runs", {"reason": "quick", "minutes": "2,5", "euro": "0.5"})
    assert "of at most 2 min 30 s (asked for)" in answer.text
    assert "of at most 0.50\u00a0€" in answer.text
    run = runs.list_runs(ws, "shop")[0]
    assert run.params == {"budget_minutes": 2.5, "max_cost_eur": 0.5}
    runs.cancel(ws, run.id, actor="ana")
    for wrong in ({"minutes": "soon"}, {"minutes": "0"}, {"euro": "-1"}, {"minutes": "nan"}):
        answer = browser.post("/shop/runs", wrong)
        assert answer.status_code == 422, wrong
        assert "is no limit" in answer.text
    assert runs.list_runs(ws, "shop")[0].id == run.id


def test_a_run_shows_what_it_took_and_what_the_month_has_left(browser: Any, shop: Any, ws: Workspace) -> None:
    ws.set_setting("shop", "train.max_cost_eur_per_month", 5, actor="ana")
    text = browser.get(f"/shop/runs/{shop.run_id}").text
    assert "1 min 35 s, in several attempts" in text
    assert "of at most 5.00\u00a0€" in text
    assert "finetune is 0.4% worse" in text
    assert "Find out what it can and cannot do" in text
    assert "50 s to 2 min 20 s, from 2 earlier runs" in text
    assert "of at most 5.00\u00a0€" in browser.get("/shop/runs").text
