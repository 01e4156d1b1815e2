"""Group commit: order, batches, refusals, and what happens to waiting callers when writing fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from keepsight.errors import BadInputError, NotReadyError, StorageError
from keepsight.serving.commits import GroupCommit

FULL = StorageError("The disk is full.", expected="room.", do="Make room.")
ODD = BadInputError("The record is odd.", expected="an even one.", do="Add one.")


class Disk:
    """Remembers batches; waits and fails at will."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()
        self.error: Exception | None = None

    def commit(self, records: Sequence[int]) -> None:
        self.open.wait(30)
        if self.error is not None:
            raise self.error
        if any(record % 2 for record in records):
            raise ODD
        self.batches.append(list(records))


def test_records_that_come_during_a_flush_share_the_next_one() -> None:
    disk = Disk()
    writer = GroupCommit(disk.commit, name="test")
    writer.start()
    disk.open.clear()
    futures = [writer.put(number) for number in range(0, 20, 2)]
    assert not any(future.done() for future in futures)
    assert writer.waiting() == 10
    disk.open.set()
    for future in futures:
        future.result(timeout=30)
    writer.close()
    assert [number for batch in disk.batches for number in batch] == list(range(0, 20, 2))
    assert len(disk.batches) <= 2


def test_one_record_that_does_not_fit_costs_no_other() -> None:
    disk = Disk()
    writer = GroupCommit(disk.commit, name="test")
    writer.start()
    disk.open.clear()
    futures = [writer.put(number) for number in (0, 2, 3, 4)]
    disk.open.set()
    assert [type(future.exception(timeout=30)) for future in futures] == [
        type(None), type(None), BadInputError, type(None),
    ]  # fmt: skip
    writer.close()
    assert sorted(number for batch in disk.batches for number in batch) == [0, 2, 4]


def test_a_failure_reaches_all_who_wait_and_the_next_may_succeed() -> None:
    disk = Disk()
    writer = GroupCommit(disk.commit, name="test")
    writer.start()
    disk.error = FULL
    with pytest.raises(StorageError, match="full"):
        writer.put(2).result(timeout=30)
    disk.error = None
    writer.put(4).result(timeout=30)
    writer.close()
    assert disk.batches == [[4]]


def test_a_full_queue_refuses_before_it_promises() -> None:
    disk = Disk()
    writer = GroupCommit(disk.commit, name="test", capacity=2)
    writer.start()
    disk.open.clear()
    first = writer.put(0)
    while writer.pending() != [0] or len(writer._queue):
        pass
    waiting = [writer.put(2), writer.put(4)]
    with pytest.raises(NotReadyError) as refused:
        writer.put(6)
    assert refused.value.details["retry_after_s"] == 1
    disk.open.set()
    for future in (first, *waiting):
        future.result(timeout=30)
    writer.close()


def test_closing_writes_what_waits_and_refuses_the_rest() -> None:
    disk = Disk()
    writer = GroupCommit(disk.commit, name="test")
    writer.start()
    disk.open.clear()
    futures = [writer.put(number) for number in (0, 2)]
    closing = threading.Thread(target=writer.close)
    closing.start()
    disk.open.set()
    closing.join(timeout=30)
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(StorageError, match="ended"):
        writer.put(4)


def test_an_unforeseen_error_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    disk = Disk()
    writer = GroupCommit(disk.commit, name="test")
    writer.start()
    disk.error = RuntimeError("a fault of ours")
    with pytest.raises(StorageError, match="ended"):
        writer.put(0).result(timeout=30)
    writer.close()
    with pytest.raises(StorageError, match="ended"):
        writer.put(2)
    assert len(told) == 1


def test_relaxed_promises_at_once_and_tries_until_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepsight.serving.commits.RETRY_S", 0.01)
    disk = Disk()
    disk.error = FULL
    writer = GroupCommit(disk.commit, name="test", durable=False)
    writer.start()
    assert writer.put(2).done()
    assert writer.put(4).done()
    disk.error = None
    writer.close()
    assert [number for batch in disk.batches for number in batch] == [2, 4]
