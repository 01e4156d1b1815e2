"""Who is let in, and that forms belong to the session that got them."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Any

import httpx

from keepsight.review import queue
from keepsight.store import tokens
from keepsight.store.workspace import Workspace
from keepsight.web.session import COOKIE, LIFETIME_S, Sessions

POSTS = (
    "/shop/review/undo",
    "/shop/models/2/promote",
    "/shop/models/2/discard",
    "/shop/models/rollback",
    "/shop/runs",
    "/shop/settings",
    "/shop/data/versions/1/tag",
    "/logout",
)


def _token(ws: Workspace, *scopes: str, name: str = "ana") -> str:
    return tokens.create(ws.database, name, scopes=scopes, actor="test", now=ws.clock())


def test_on_this_machine_the_os_user_is_in(browser: Any, shop: Any, ws: Workspace) -> None:
    assert getpass.getuser() in browser.get("/").text
    browser.post(f"/shop/review/{shop.uncertain[0]}/answer", {"label": "fig"})
    assert queue.get(ws, "shop", shop.uncertain[0]).author == getpass.getuser()


def test_a_form_without_its_key_changes_nothing(browser: Any, shop: Any, ws: Workspace) -> None:
    browser.get("/")
    wrong: tuple[dict[str, str], ...] = ({}, {"form_key": ""}, {"form_key": "0" * 64}, {"form_key": "ä"})
    for path in POSTS:
        for fields in wrong:
            answer = browser.client.post(path, data=fields, headers={"accept": "text/html"})
            assert answer.status_code == 403, path
            assert "not made for your session" in answer.text
    assert queue.counts(ws, "shop").waiting == 7


def test_the_key_of_one_session_is_of_no_use_in_another(
    browser: Any, new_browser: Callable[[], Any], shop: Any
) -> None:
    other = new_browser()
    key = other.form_key()
    browser.get("/")
    answer = browser.client.post("/shop/runs", data={"form_key": key})
    assert answer.status_code == 403


def test_a_page_of_another_site_cannot_send_anything(browser: Any, shop: Any) -> None:
    answer = browser.post("/shop/runs", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403


def test_with_a_token_everybody_logs_in(
    browser: Any, shop: Any, ws: Workspace, wait_until: Callable[..., None]
) -> None:
    secret = _token(ws, "operate")
    # The guard notices within its two seconds; a new server would at once.

    wait_until(lambda: browser.client.get("/", follow_redirects=False).status_code != 200)
    answer = browser.get("/shop/models")
    assert answer.url.path == "/login"
    assert answer.url.params["next"] == "/shop/models"
    wrong = browser.post("/login", {"token": "ks_wrong", "to": "/shop/models"})
    assert wrong.status_code == 401
    assert "no valid token" in wrong.text
    answer = browser.post("/login", {"token": secret, "to": "/shop/models"})
    assert answer.url.path == "/shop/models"
    assert "ana" in answer.text
    browser.post(f"/shop/review/{shop.uncertain[0]}/answer", {"label": "fig"})
    assert queue.get(ws, "shop", shop.uncertain[0]).author == "ana"
    tokens.revoke(ws.database, "ana", actor="test", now=ws.clock())
    _token(ws, "operate", name="ben")
    wait_until(lambda: browser.get("/").url.path == "/login")


def test_the_cookie_is_closed_to_scripts_and_other_sites(browser: Any) -> None:
    cookie = browser.get("/login").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path=/" in cookie


def test_logging_out_ends_the_session(browser: Any, ws: Workspace) -> None:
    secret = _token(ws, "review")
    browser.post("/login", {"token": secret})
    assert browser.client.cookies[COOKIE]
    answer = browser.post("/logout")
    assert answer.url.path == "/login"


def test_a_reviewer_may_review_and_nothing_more(browser: Any, shop: Any, ws: Workspace) -> None:
    browser.post("/login", {"token": _token(ws, "review")})
    assert browser.get("/shop/review").status_code == 200
    assert browser.post(f"/shop/review/{shop.uncertain[0]}/answer", {"label": "fig"}).status_code == 200
    answer = browser.post("/shop/models/2/promote", {"reason": "I may not"})
    assert answer.status_code == 403
    assert "the scope operate" in answer.text


def test_a_camera_may_not_log_in(browser: Any, ws: Workspace) -> None:
    answer = browser.post("/login", {"token": _token(ws, "predict")})
    assert answer.status_code == 403
    assert "may only send pictures" in answer.text


def test_login_sends_nobody_elsewhere(browser: Any, ws: Workspace) -> None:
    secret = _token(ws, "review")
    for to in ("https://evil.example/", "//evil.example", "/\\evil.example", "evil", "/\r\nx"):
        answer = browser.post("/login", {"token": secret, "to": to})
        assert (answer.url.path, answer.url.host) == ("/", "127.0.0.1"), to


def test_a_changed_or_old_cookie_is_nobodys(ws: Workspace) -> None:
    sessions = Sessions(ws)
    secret = _token(ws, "operate")
    session = sessions.login(secret)
    value = sessions.header(session, secure=True).split("=", 1)[1].split(";")[0].strip('"')
    assert sessions.read(value) == session or sessions.read(value).token_id == session.token_id  # type: ignore[union-attr]
    assert sessions.read(value[:-1] + ("0" if value[-1] != "0" else "1")) is None
    assert sessions.read(value.replace(".", "x", 1)) is None
    assert sessions.read("") is None
    ws.clock = lambda: session.expires_at + 1
    assert sessions.read(value) is None
    assert LIFETIME_S > 0


def test_a_form_of_any_length_is_not_read(browser: Any) -> None:
    key = browser.form_key()
    for size, status in ((1_000, 401), (1_000_000, 413), (10_000_000, 413)):
        answer = browser.client.post("/login", data={"form_key": key, "token": "x" * size})
        assert answer.status_code == status, size


def test_a_project_called_review_is_no_way_around_the_scopes(browser: Any, ws: Workspace) -> None:
    reviewer = {"authorization": f"Bearer {_token(ws, 'review')}"}
    for path in ("/v1/review/rollback", "/v1/review/retrain", "/v1/review/models/1/promote"):
        assert browser.client.post(path, json={}, headers=reviewer).status_code == 403, path


def test_a_broken_cookie_is_nobodys_and_hides_no_other(browser: Any, ws: Workspace) -> None:
    for broken in (b'"a.\xe9"', b"a.b.c", b"", b"..."):
        answer = browser.client.get("/login", headers={"cookie": b"keepsight_session=" + broken})
        assert answer.status_code == 200, broken
    secret = _token(ws, "review")
    sessions = Sessions(ws)
    cookie = sessions.header(sessions.login(secret), secure=False).partition(";")[0]
    answer = httpx.get(f"{browser.client.base_url}/", headers={"cookie": f'theme={{"dark": true}}; {cookie}'})
    assert answer.status_code == 200
    assert "ana" in answer.text


def test_an_origin_that_is_no_address_is_foreign(browser: Any, shop: Any) -> None:
    for origin in ("http://[", "null", "", "http://evil.example"):
        answer = browser.client.post("/v1/shop/rollback", json={}, headers={"origin": origin})
        assert answer.status_code == 403, origin


def test_login_copes_with_any_way_back(browser: Any, shop: Any) -> None:
    for to in ("//[", "http://[", "/[", "/%0d%0a"):
        assert browser.client.get("/login", params={"next": to}).status_code == 200, to
