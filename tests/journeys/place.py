"""What a user works with: a workspace folder, the command line, a server."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from keepsight.cli.demo_pictures import DemoPicture

SETTINGS = """projects:
  shop:
    task: classification
    train: {recipe: head}
    evaluation: {robustness_pictures: 20}
    gate: {margin: 0.1}
    review: {audit_share: 0.2}
    retrain: {cooldown_minutes: 0, min_new_labels: 30, new_labels: 0}
"""


@dataclass
class Workplace:
    """A workspace folder and the commands that a user types in it."""

    root: Path
    environment: dict[str, str]

    def run(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """One command of the real command line."""
        done = subprocess.run(
            [sys.executable, "-m", "keepsight", *arguments],
            cwd=self.root,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"keepsight {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def json(self, *arguments: str, check: bool = True, **environment: str) -> Any:
        """What a command prints with ``--json``."""
        return json.loads(self.run(*arguments, "--json", check=check, **environment).stdout)

    @contextlib.contextmanager
    def up(self, command: str = "up", *options: str, **environment: str) -> Iterator[Server]:
        """``keepsight up`` (or ``serve``) on a free port."""
        server = Server(self, command, *options, **environment)
        try:
            server.wait_ready()
            yield server
        finally:
            server.stop()


class Server:
    """A running ``keepsight up`` or ``serve``."""

    def __init__(self, place: Workplace, command: str, *options: str, **environment: str) -> None:
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.log = place.root / f"{command}-{self.port}.log"
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "keepsight", command, "--port", str(self.port), *options],
                cwd=place.root,
                env={**place.environment, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.client = httpx.Client(base_url=self.base, timeout=30)

    def wait_ready(self) -> None:
        """Until it answers."""
        wait_for(self._answers, f"a server ({self.log})", timeout_s=60)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended: {self.log.read_text()}")
        try:
            return self.client.get("/healthz").is_success
        except httpx.TransportError:
            return False

    def predict(self, data: bytes, **params: str) -> dict[str, Any]:
        """One answer."""
        response = self.client.post("/v1/shop/predict", content=data, params=params)
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def get(self, path: str) -> Any:
        """JSON of a GET."""
        response = self.client.get(f"/v1/shop/{path}")
        assert response.is_success, response.text
        return response.json()

    def post(self, path: str, **body: Any) -> Any:
        """JSON of a POST."""
        response = self.client.post(f"/v1/shop/{path}", json=body)
        assert response.is_success, response.text
        return response.json()

    def kill(self) -> None:
        """SIGKILL, as when the power goes."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        """SIGTERM, as a service manager does."""
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"the server did not stop: {self.log.read_text()}") from None


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], what: str, *, timeout_s: float = 30) -> Any:
    """The first true answer of ``condition``."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come within {timeout_s} s")


def write_folder(folder: Path, pictures: list[DemoPicture]) -> Path:
    """A folder of class folders."""
    for picture in pictures:
        target = folder / picture.label / picture.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture.read())
    return folder
