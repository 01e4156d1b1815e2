"""Group commit: one thread writes what many requests hand over, a batch at a time, and tells each when it is safe.

A disk flush takes about as long for one record as for a hundred, so the records that come in during one flush share the
next. Nothing is dropped: where the queue is full the caller is refused before it has a promise.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from keepsight.errors import BadInputError, KeepsightError, StorageError
from keepsight.serving.answers import overloaded

Record = TypeVar("Record")

MAX_BATCH = 256
RETRY_S = 0.5

log = logging.getLogger(__name__)


class GroupCommit(Generic[Record]):
    """Writes records in order.

    Args:
        commit: Writes a batch whole or not at all. A ``BadInputError`` means that a record does not fit: the records of
            the batch are then tried one by one. Any other ``KeepsightError`` means that nothing can be written now.
        name: Of the thread.
        durable: Whether a record's future waits for its commit. Otherwise it is done at once, and what cannot be
            written is tried again until it can.
        capacity: Records that may wait.
    """

    def __init__(
        self, commit: Callable[[Sequence[Record]], None], *, name: str, durable: bool = True, capacity: int = 10_000
    ) -> None:
        self._commit = commit
        self._durable = durable
        self._capacity = capacity
        self._queue: deque[tuple[Record, Future[None]]] = deque()
        self._in_work: list[tuple[Record, Future[None]]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, record: Record) -> Future[None]:
        """Hands a record over; the future is done when it is written.

        Raises:
            NotReadyError: The queue is full. StorageError: The writer has ended.
        """
        future: Future[None] = Future()
        # From here on a caller that goes away cannot take the record back.
        future.set_running_or_notify_cancel()
        with self._changed:
            if self._closing or not self._thread.is_alive():
                raise _ended()
            if len(self._queue) >= self._capacity:
                raise overloaded("events wait to be written")
            self._queue.append((record, future))
            self._changed.notify_all()
        if not self._durable:
            future.set_result(None)
        return future

    def pending(self) -> list[Record]:
        """Records handed over and not yet written."""
        with self._changed:
            return [record for record, _ in (*self._in_work, *self._queue)]

    def waiting(self) -> int:
        """How many these are."""
        with self._changed:
            return len(self._in_work) + len(self._queue)

    def close(self) -> None:
        """Writes what is waiting, then ends the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._take():
                self._write([record for record, _ in self._in_work])
                with self._changed:
                    self._in_work = []
        finally:
            self._fail_rest()

    def _take(self) -> bool:
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            self._in_work = [self._queue.popleft() for _ in range(min(MAX_BATCH, len(self._queue)))]
            return bool(self._in_work)

    def _write(self, records: Sequence[Record]) -> None:
        error = self._attempt(records)
        while error is not None and not self._durable and not isinstance(error, BadInputError):
            log.warning("%d events wait for the disk: %s", self.waiting(), error)
            with self._changed:
                if self._closing:
                    break
                self._changed.wait(RETRY_S)
            error = self._attempt(records)
        if isinstance(error, BadInputError) and len(records) > 1:
            for record, future in self._in_work:
                self._settle([(record, future)], self._attempt([record]))
        else:
            self._settle(self._in_work, error)

    def _attempt(self, records: Sequence[Record]) -> KeepsightError | None:
        try:
            self._commit(records)
        except KeepsightError as error:
            return error
        return None

    def _settle(self, items: Sequence[tuple[Record, Future[None]]], error: KeepsightError | None) -> None:
        if error is not None and not self._durable:
            log.error("%d events are lost: %s", len(items), error)
        if self._durable:
            for _, future in items:
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

    def _fail_rest(self) -> None:
        """After an unforeseen error nobody may wait forever."""
        with self._changed:
            self._closing = True
            left = [*self._in_work, *self._queue]
            self._queue.clear()
            self._in_work = []
        for _, future in left:
            if not future.done():
                future.set_exception(_ended())


def _ended() -> StorageError:
    return StorageError(
        "The writer of events has ended.", expected="a running server.", do="Restart it; its log says what happened."
    )
