"""Starting and stopping real server processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from keepsight.errors import BadInputError, ConflictError, ForbiddenError, SettingsError
from keepsight.serving.bundles import named_paths
from keepsight.serving.run import bind, serve, serve_bundles, url_of

START = """
import sys
from pathlib import Path
from keepsight.errors import KeepsightError
from keepsight.serving.run import serve_bundles
bundle, port, workers, spool = sys.argv[1:5]
try:
    serve_bundles([f"shop={bundle}"], host="127.0.0.1", port=int(port), workers=int(workers), spool=Path(spool),
                  on_ready=lambda url: print(url, flush=True))
except KeepsightError as error:
    print(f"refused: {error}", flush=True)
    sys.exit(2)
print("ended well", flush=True)
"""

Start = Callable[..., subprocess.Popen[str]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Any) -> Path:
    path: Path = make_bundle().to_zip(tmp_path / "shop.zip")
    return path


@pytest.fixture
def start(tmp_path: Path, bundle: Path) -> Iterator[Start]:
    """``start(port, workers)``: a server process, killed at the end if it still runs."""
    processes: list[subprocess.Popen[str]] = []

    def begin(port: int, *, workers: int = 1, path: Path = bundle) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", START, str(path), str(port), str(workers), str(tmp_path / "spool")]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("KEEPSIGHT_SERVE")}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_signal_ends_the_server_well(start: Start, picture: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        process = start(free_port())
        url = first_line(process)
        answer = httpx.post(f"{url}/v1/shop/predict", content=picture("green"))
        assert answer.json()["label"] == "green"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert out.strip() == "ended well"
        assert "Traceback" not in err


def test_workers_share_the_port_and_each_keeps_its_events(start: Start, picture: Any, tmp_path: Path) -> None:
    process = start(free_port(), workers=2)
    url = first_line(process)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: httpx.post(f"{url}/v1/shop/predict", content=picture()), range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert sorted(path.name for path in (tmp_path / "spool").glob("slot-*")) == ["slot-0", "slot-1"]


def test_workers_end_when_their_parent_is_killed(start: Start) -> None:
    port = free_port()
    process = start(port, workers=2)
    first_line(process)
    process.kill()
    process.wait(timeout=30)
    deadline = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            connection.getresponse()
        except OSError:
            break
        finally:
            connection.close()
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_keeps_a_server_from_starting_is_told_without_a_traceback(
    start: Start, tmp_path: Path, workers: int
) -> None:
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"no bundle")
    process = start(free_port(), workers=workers, path=bad)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "refused:" in out
    assert "zip" in out + err
    assert "Traceback" not in err


def test_a_port_in_use_is_named(start: Start) -> None:
    port = free_port()
    first_line(start(port))
    second = start(port)
    out, _ = second.communicate(timeout=30)
    assert second.returncode == 2
    assert f"Port {port} on 127.0.0.1 is in use" in out
    assert "--port" in out


def test_addresses_that_cannot_be_bound() -> None:
    with pytest.raises(SettingsError, match="cannot listen"):
        bind("203.0.113.7", 8000)
    with bind("::1", 0) as listener:
        assert url_of(listener).startswith("http://[::1]:")
        with pytest.raises(ConflictError):
            bind("::1", listener.getsockname()[1])


def test_the_network_is_not_served_without_a_token(bundle: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("KEEPSIGHT_TOKEN", raising=False)
    with pytest.raises(ForbiddenError, match="anybody"):
        serve_bundles([f"shop={bundle}"], host="0.0.0.0", port=0)


def test_settings_that_make_no_sense(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no spool"):
        serve_bundles([f"shop={bundle}"], host="127.0.0.1", port=0, forward="http://127.0.0.1:9")
    with pytest.raises(SettingsError, match="cannot be named"):
        serve(lambda: None, host="127.0.0.1", port=0, workers=2, have_token=False)  # type: ignore[arg-type,return-value]
    assert named_paths(["shop=a/b.zip", "office.zip"]) == {"shop": Path("a/b.zip"), "office": Path("office.zip")}
    with pytest.raises(BadInputError, match="Two bundles"):
        named_paths(["shop=a.zip", "shop.zip"])


def test_serving_bundles_needs_no_database(tmp_path: Path, bundle: Path) -> None:
    """Everything that the small install leaves out is refused; the server answers all the same."""
    program = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"sqlalchemy", "alembic", "obstore", "dbos", "scipy", "sklearn", "onnx", "httpx",
                                  "jinja2", "yaml", "croniter", "typer", "rich"} or name == "keepsight.store":
            raise ImportError(f"{name} is not part of the small install")

sys.meta_path.insert(0, Refuse())
import json, os
from keepsight.serving import run
os.environ[run.BUNDLES_VARIABLE] = json.dumps(
    {"paths": {"shop": sys.argv[1]}, "host": "127.0.0.1", "spool": sys.argv[2], "forward": None})
app = run.bundle_app()
services = app.state.services
services.source.start(); services.sink.start()
print(services.source.current("shop").labels[0])
services.answerer.close(); services.sink.close()
"""
    command = [sys.executable, "-c", program, str(bundle), str(tmp_path / "spool")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "red"), done.stderr


def test_without_a_spool_answers_are_given_and_feedback_is_refused(
    bundle: Path, running: Any, picture: Any, monkeypatch: Any
) -> None:
    from keepsight.serving import run

    values = {"paths": {"shop": str(bundle)}, "host": "127.0.0.1", "spool": None, "forward": None}
    monkeypatch.setenv(run.BUNDLES_VARIABLE, json.dumps(values))
    server = running(run.bundle_app())
    body = server.predict(picture("blue")).json()
    assert body["label"] == "blue"
    answer = server.client.post("/v1/shop/feedback", json={"prediction_id": body["prediction_id"], "correct": True})
    assert answer.status_code == 409
    assert server.client.get("/readyz").json()["models"] == {"shop": 0}
