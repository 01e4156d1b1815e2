"""A server that records nothing, because its user chose no place for events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from keepsight.errors import ConflictError
from keepsight.runtime.decode import PictureInfo
from keepsight.serving.events import Event, Feedback


class UnloggedSink:
    """Takes events and forgets them; refuses feedback, which somebody meant to be kept."""

    def start(self) -> None:
        """Nothing has to be started."""

    def keep(self, data: bytes, *, info: PictureInfo) -> Mapping[str, Any]:  # noqa: ARG002 - the protocol's parameters
        """Keeps nothing."""
        return {}

    def write(self, event: Event) -> Future[None]:  # noqa: ARG002 - the protocol's parameters
        """Done at once."""
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def feedback(self, feedback: Feedback) -> Future[None]:  # noqa: ARG002 - the protocol's parameters
        """Refused.

        Raises:
            ConflictError: Always.
        """
        raise ConflictError(
            "This server records nothing, so it cannot take feedback.",
            expected="a server with a place for events.",
            do="Start it with --spool FOLDER, or send the feedback to the server of the workspace.",
        )

    def knows(self, project: str, event_ids: Sequence[str]) -> None:  # noqa: ARG002 - the protocol's parameters
        """Nobody can tell."""
        return

    def number_of(self, project: str, bundle_digest: str) -> int:  # noqa: ARG002 - the protocol's parameters
        """0: models have numbers only in a workspace."""
        return 0

    def waiting(self) -> int:
        """None."""
        return 0

    def close(self) -> None:
        """Nothing has to be stopped."""
