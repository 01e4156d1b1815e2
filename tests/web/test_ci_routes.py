"""A run that a pipeline asks a server for: once, however bad the connection, with its report."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import httpx
import pytest

from keepsight.errors import BadInputError, ConflictError, NotFoundError, NotReadyError
from keepsight.loop import runs
from keepsight.loop.ci import junit, remote
from keepsight.store.workspace import Workspace


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as made:
        yield made


def whole_request(near: socket.socket) -> bytes:
    """Head and body, which may come in pieces; empty where the connection was closed."""
    question = b""
    while True:
        head, end, body = question.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and len(body) >= (int(length[1]) if length else 0):
            return question
        part = near.recv(65536)
        if not part:
            return b""
        question += part


class Line:
    """A connection to a server that swallows the first answers."""

    def __init__(self, url: str, *, lost: int) -> None:
        parts = urlsplit(url)
        self._there = (parts.hostname or "", parts.port or 0)
        self._lost = lost
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with near, socket.create_connection(self._there) as far:
                question = whole_request(near)
                if not question:
                    continue
                far.sendall(re.sub(rb"(?i)connection: keep-alive", b"connection: close", question))
                answer = b"".join(iter(lambda: far.recv(65536), b""))
                if self._lost:
                    self._lost -= 1
                    continue
                near.sendall(answer)

    def close(self) -> None:
        """Nothing is connected any more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def server(url: str) -> Iterator[remote.Server]:
    made = remote.Server(url, "shop", None, time.monotonic() + 60)
    yield made
    made.close()


def test_an_answer_that_was_lost_starts_no_second_run(url: str, shop: Any, ws: Workspace) -> None:
    before = len(runs.list_runs(ws, "shop"))
    line = Line(url, lost=1)
    there = remote.Server(line.url, "shop", None, time.monotonic() + 60)
    try:
        row = there.request({"reason": "push", "trigger": "ci", "budget_minutes": 5, "recipe": "head"}, wait=False)
    finally:
        there.close()
        line.close()
    assert (row.trigger, row.params["budget_minutes"], row.params["recipe"]) == ("ci", 5, "head")
    assert len(runs.list_runs(ws, "shop")) == before + 1


def test_a_run_under_way_is_waited_for_or_told(server: remote.Server, shop: Any, ws: Workspace) -> None:
    first = server.request({"reason": "first"}, wait=False)
    with pytest.raises(ConflictError, match="under way"):
        server.request({"reason": "second"}, wait=False)
    done = threading.Timer(0.5, runs.finish, args=(ws, first.id), kwargs={"status": "done"})
    done.start()
    second = server.request({"reason": "second"}, wait=True)
    done.join()
    assert (second.reason, second.status) == ("second", "queued")


def test_report_and_junit_of_a_run(server: remote.Server, shop: Any, client: httpx.Client) -> None:
    row = server.request({"reason": "push"}, wait=False)
    assert "The run is queued." in server.text(row.id, "report.md")
    cases = list(ElementTree.fromstring(server.text(row.id, "junit.xml")).iter("testcase"))
    assert len(cases) == len(junit.STEPS)
    assert client.get(f"/v1/shop/runs/{row.id}/report.md").headers["content-type"] == "text/markdown; charset=utf-8"
    for name in ("report.md", "junit.xml"):
        assert client.get(f"/v1/empty/runs/{row.id}/{name}").status_code == 404
    for finished in [run for run in client.get("/v1/shop/runs").json()["runs"] if run["model_number"]]:
        assert "Model" in server.text(finished["id"], "report.md")


def ask(url: str, project: str = "shop", **wishes: Any) -> runs.RunRow:
    with closing(remote.Server(url, project, None, time.monotonic() + 1)) as server:
        return server.request(wishes, wait=True)


def test_what_goes_wrong_is_told(shop: Any, url: str) -> None:
    with pytest.raises(NotFoundError, match="shpo"):
        ask(url, "shpo")
    with pytest.raises(NotFoundError, match="recipe"):
        ask(url, recipe="magic")
    with pytest.raises(BadInputError):
        ask(url, wish=1)
    with pytest.raises(BadInputError, match="no address"):
        ask("keepsight.example")
    with pytest.raises(NotReadyError, match="cannot be reached"):
        ask("http://127.0.0.1:9")


def test_another_kind_of_server_is_told() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            with pytest.raises(BadInputError, match="not as Keepsight"):
                ask(f"http://127.0.0.1:{other.server_port}")
        finally:
            other.shutdown()
            thread.join()
