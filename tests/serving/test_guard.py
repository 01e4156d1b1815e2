"""Who gets in: hosts, foreign sites, tokens and scopes, over the real server."""

from __future__ import annotations

import getpass
import hashlib
from typing import Any

import pytest
import sqlalchemy as sa

from keepsight.errors import ForbiddenError, SettingsError
from keepsight.serving.database import DatabaseTokens
from keepsight.serving.guard import EnvironmentTokens, Guard, Identity, check_bind, is_loopback, rule
from keepsight.store import schema, tokens
from keepsight.store.workspace import Workspace

SECRET = "correct-horse-battery"


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def guarded(ws: Workspace, make_app: Any, make_bundle: Any, deployed: Any, running: Any) -> Any:
    """``guarded(guard)``: the server of ``ws`` behind a guard."""
    deployed(ws, make_bundle())
    return lambda guard: running(make_app(ws, guard=guard))


def test_without_any_token_the_person_at_the_machine_is_let_in_by_name(shop: Any, ws: Workspace, picture: Any) -> None:
    prediction = shop.predict(picture()).json()["prediction_id"]
    shop.client.post("/v1/shop/feedback", json={"prediction_id": prediction, "correct": True})
    with ws.database.read("events") as connection:
        assert connection.scalar(sa.select(schema.feedback.c.author)) == getpass.getuser()


def test_what_a_proxy_passes_on_is_not_from_the_person_at_the_machine(shop: Any, picture: Any) -> None:
    answer = shop.client.post("/v1/shop/predict", content=picture(), headers={"X-Forwarded-For": "203.0.113.9"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


def test_as_soon_as_there_is_a_token_every_request_needs_one(
    shop: Any, ws: Workspace, picture: Any, wait_until: Any
) -> None:
    assert shop.predict(picture()).status_code == 200
    secret = tokens.create(ws.database, "till", scopes=["predict"], actor="me", now=1.0)
    wait_until(lambda: shop.predict(picture()).status_code == 401)
    answer = shop.client.post("/v1/shop/predict", content=picture(), headers=bearer(secret))
    assert answer.status_code == 200
    assert shop.client.post("/v1/shop/predict", content=picture(), headers=bearer("ks_wrong")).status_code == 401
    assert shop.client.post("/v1/shop/predict", content=picture(), headers={"Authorization": "x"}).status_code == 401
    assert shop.client.get("/healthz").status_code == 200
    assert shop.client.get("/readyz").status_code == 200
    tokens.revoke(ws.database, "till", actor="me", now=2.0)
    headers = bearer(secret)
    wait_until(lambda: shop.client.post("/v1/shop/predict", content=b"", headers=headers).status_code == 401)


def test_a_token_reaches_only_what_its_scopes_name(guarded: Any, ws: Workspace, picture: Any) -> None:
    secrets = {
        name: tokens.create(ws.database, name, scopes=[name], actor="me", now=1.0)
        for name in ("predict", "review", "operate")
    }
    server = guarded(Guard(DatabaseTokens(ws)))

    def status(name: str, path: str) -> int:
        answer = server.client.post(path, content=picture(), headers=bearer(secrets[name]))
        return int(answer.status_code)

    assert status("predict", "/v1/shop/predict") == 200
    assert status("operate", "/v1/shop/predict") == 200
    assert status("review", "/v1/shop/predict") == 403
    assert status("predict", "/v1/shop/retrain") == 403
    assert status("operate", "/v1/shop/retrain") == 404


def test_other_names_for_this_machine_are_refused(shop: Any, picture: Any) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        answer = shop.client.post("/v1/shop/predict", content=picture(), headers={"Host": host})
        assert answer.status_code == 403, host
        assert answer.json()["error"]["code"] == "forbidden"
    for host in ("localhost", "localhost:9999", "127.0.0.1"):
        answer = shop.client.post("/v1/shop/predict", content=picture(), headers={"Host": host})
        assert answer.status_code == 200, host


def test_pages_of_other_sites_cannot_send_anything(shop: Any, picture: Any) -> None:
    def status(headers: dict[str, str], method: str = "POST", path: str = "/v1/shop/predict") -> int:
        content = picture() if method == "POST" else None
        return int(shop.client.request(method, path, content=content, headers=headers).status_code)

    assert status({"Sec-Fetch-Site": "cross-site"}) == 403
    assert status({"Sec-Fetch-Site": "same-site"}) == 403
    assert status({"Origin": "https://evil.example"}) == 403
    assert status({"Origin": "null"}) == 403
    assert status({"Sec-Fetch-Site": "same-origin", "Origin": shop.url}) == 200
    assert status({"Origin": shop.url}) == 200
    assert status({}) == 200
    assert status({"Sec-Fetch-Site": "cross-site"}, "GET", "/openapi.json") == 403
    assert status({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, "GET", "/openapi.json") == 200


def test_an_address_of_the_network_needs_a_token_from_the_start(guarded: Any, ws: Workspace, picture: Any) -> None:
    # The guard believes that the server listens on all addresses; the socket of the test is a local one.
    server = guarded(Guard(EnvironmentTokens({"KEEPSIGHT_TOKEN": SECRET}), host="0.0.0.0"))
    assert server.predict(picture()).status_code == 401
    assert server.client.get("/metrics").status_code == 401
    assert server.client.get("/metrics", headers=bearer(SECRET)).status_code == 200
    answer = server.client.post(
        "/v1/shop/predict", content=picture(), headers={**bearer(SECRET), "Host": "shop.example"}
    )
    assert answer.status_code == 200


def test_a_further_way_to_be_somebody_and_further_rules(guarded: Any, picture: Any) -> None:
    async def by_cookie(request: Any) -> Identity | None:
        return Identity("anna", ("predict",)) if request.cookies.get("session") == "good" else None

    guard = Guard(
        EnvironmentTokens({"KEEPSIGHT_TOKEN": SECRET}),
        rules=(rule(r"/public/.*", "open"),),
        authenticate=by_cookie,
    )
    server = guarded(guard)
    assert server.predict(picture()).status_code == 401
    assert server.client.get("/public/page").status_code == 404
    server.client.cookies.set("session", "good")
    assert server.predict(picture()).status_code == 200


def test_tokens_in_the_environment_are_secrets_or_their_hashes() -> None:
    digest = hashlib.sha256(b"another-long-secret").hexdigest()
    known = EnvironmentTokens({"KEEPSIGHT_TOKEN": f"{SECRET}, sha256:{digest}"})
    assert known.any
    assert not EnvironmentTokens({}).any
    with pytest.raises(SettingsError, match="Token 1"):
        EnvironmentTokens({"KEEPSIGHT_TOKEN": "short"})

    import asyncio

    async def find(secret: str) -> Identity | None:
        return await known.find(secret)

    assert asyncio.run(find(SECRET)) == Identity("token 1", ("predict",))
    assert asyncio.run(find("another-long-secret")) == Identity("token 2", ("predict",))
    assert asyncio.run(find("sha256:" + digest)) is None


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *[(host, True) for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]")],
        *[(host, False) for host in ("0.0.0.0", "::", "192.168.1.5", "shop.example")],
    ],
)
def test_only_loopback_addresses_may_be_bound_without_a_token(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    check_bind(host, have_token=True)
    if loopback:
        check_bind(host, have_token=False)
    else:
        with pytest.raises(ForbiddenError, match="anybody"):
            check_bind(host, have_token=False)
