"""A run on a server, asked for and followed from a machine that has nothing but a token.

The server may be restarted and the connection may break: the run is a row there and goes on, so asking again is all
that is needed. The request for it carries an id of ours, so that one whose answer was lost does not start a second run.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import httpx

from keepsight import errors
from keepsight.errors import (
    BadInputError,
    ConflictError,
    ForbiddenError,
    KeepsightError,
    NotFoundError,
    NotReadyError,
    UnauthorizedError,
)
from keepsight.loop.runs import RunRow

TOKEN_VARIABLE = "KEEPSIGHT_TOKEN"  # noqa: S105 -- a variable's name
# How long a server may be away before the run was accepted; after that it is waited for as long as the run may take.
FIRST_PATIENCE_S = 15.0
REQUEST_TIMEOUT_S = 30.0
PASSING = {429, 502, 503, 504}
_REPORTED = {401: UnauthorizedError, 403: ForbiddenError, 404: NotFoundError, 409: ConflictError, 422: BadInputError}


def pauses(*, first_s: float = 0.25, longest_s: float = 5.0) -> Iterator[float]:
    """Waits between questions, each half as long again as the one before."""
    wait = first_s
    while True:
        yield wait
        wait = min(longest_s, wait * 1.5)


@dataclass
class Server:
    """One project of a Keepsight server.

    Args:
        url: Its address, such as https://keepsight.example.
        project: The project.
        token: With the scope ``operate``; None where the server asks for none.
        deadline: When (``time.monotonic``) nothing is worth waiting for any more.
        say: Told in a line what is going on.
    """

    url: str
    project: str
    token: str | None
    deadline: float
    say: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        self.url = self.url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise BadInputError(
                f'"{self.url}" is no address of a server.',
                expected="a URL such as https://keepsight.example.",
                do="Correct --server.",
            )
        headers = {"accept": "application/json"}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        self._client = httpx.Client(headers=headers, timeout=REQUEST_TIMEOUT_S)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def request(self, wishes: Mapping[str, Any], *, wait: bool) -> RunRow:
        """Asks for a run; with ``wait``, a run that is under way already is waited for first.

        Raises:
            ConflictError: A run is under way, and ``wait`` is False; or it did not end in time.
            UnauthorizedError, ForbiddenError, NotFoundError, BadInputError: As the server says.
            NotReadyError: The server is away.
        """
        ours = uuid.uuid4().hex
        body = {**wishes, "trace_id": ours}
        first = min(self.deadline, time.monotonic() + FIRST_PATIENCE_S)
        while True:
            try:
                return _row(self._ask("POST", "retrain", json=body, until=first))
            except ConflictError as error:
                busy = error.details.get("run")
                if busy is None:
                    raise
                other = self.run(str(busy))
                if other.trace_id == ours:
                    return other
                if not wait:
                    raise
                self.say(f"Run {other.id[:8]} is under way; waiting for its end.")
                self._until_finished(other.id)
                first = self.deadline

    def run(self, run_id: str) -> RunRow:
        """Where a run stands; waits while the server is away."""
        return _row(self._ask("GET", f"runs/{run_id}", until=self.deadline))

    def cancel(self, run_id: str) -> None:
        """Stops a run."""
        self._ask("POST", f"runs/{run_id}/cancel", until=min(self.deadline, time.monotonic() + FIRST_PATIENCE_S))

    def text(self, run_id: str, name: str) -> str:
        """``report.md`` or ``junit.xml`` of a run."""
        return self._send("GET", f"runs/{run_id}/{name}", until=self.deadline).text

    def check_time(self, run_id: str) -> None:
        """Makes sure that there is time left.

        Raises:
            NotReadyError: There is none.
        """
        if time.monotonic() > self.deadline:
            raise NotReadyError(
                f"The run {run_id[:8]} has not ended within --timeout.",
                expected="a run that ends in that time.",
                do=f"It goes on: see {self.url}/{self.project}/runs. Allow more time, or a smaller budget.",
                run=run_id,
            )

    def _until_finished(self, run_id: str) -> None:
        for pause in pauses():
            if self.run(run_id).finished:
                return
            self.check_time(run_id)
            time.sleep(pause)

    def _ask(self, method: str, path: str, *, until: float, json: Mapping[str, Any] | None = None) -> dict[str, Any]:
        response = self._send(method, path, until=until, json=json)
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._stranger(response)
        return found

    def _send(self, method: str, path: str, *, until: float, json: Mapping[str, Any] | None = None) -> httpx.Response:
        """A good answer; while the server is away or busy, the question is asked again."""
        told = False
        for pause in pauses():
            try:
                response = self._client.request(method, f"{self.url}/v1/{self.project}/{path}", json=json)
            except httpx.TransportError as error:
                trouble = str(error) or type(error).__name__
            except httpx.InvalidURL as error:
                raise BadInputError(
                    f"{self.url} cannot be used: {error}.", expected="the address of a server.", do="Correct --server."
                ) from None
            else:
                if response.is_success:
                    return response
                if response.status_code not in PASSING:
                    raise self._error(response)
                trouble = f"status {response.status_code}"
            if time.monotonic() + pause > until:
                raise NotReadyError(
                    f"The server {self.url} cannot be reached: {trouble}.",
                    expected="a Keepsight server that answers.",
                    do="Check --server and the network, and whether the server runs.",
                )
            if not told:
                told = True
                self.say(f"The server does not answer ({trouble}); trying again.")
            time.sleep(pause)
        raise AssertionError("pauses never end")

    def _error(self, response: httpx.Response) -> KeepsightError:
        """The server's error as ours."""
        try:
            shape = response.json()["error"]
            found, expected, do = (str(shape[name]) for name in ("found", "expected", "do"))
        except (ValueError, KeyError, TypeError):
            return self._stranger(response)
        kind = _REPORTED.get(response.status_code, errors.KeepsightError)
        if kind in {UnauthorizedError, ForbiddenError}:
            do = f"Set {TOKEN_VARIABLE} to a token that `keepsight token create ci --scope operate` made on the server."
        error = kind(found, expected=expected, do=do)
        error.code, error.status = str(shape.get("code", error.code)), response.status_code
        error.details = dict(shape.get("details") or {})
        return error

    def _stranger(self, response: httpx.Response) -> KeepsightError:
        return BadInputError(
            f"{self.url} answered with status {response.status_code}, and not as Keepsight does.",
            expected="the address of a Keepsight server.",
            do="Correct --server.",
        )


def _row(values: Mapping[str, Any]) -> RunRow:
    """The run; what a newer server says beyond it is passed over."""
    names = {item.name for item in fields(RunRow)}
    missing = names - values.keys()
    if missing:
        raise BadInputError(
            f"The server's run lacks {', '.join(sorted(missing))}.",
            expected="a server of this version or a newer one.",
            do="Update the server.",
        )
    return RunRow(**{name: values[name] for name in names})
