"""Work on this machine, in a pool of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from keepsight.errors import KeepsightError
from keepsight.executors import Item, Result, Work, reference
from keepsight.executors.order import in_order

# Chunks under way or waiting for each thread: none stands still while the caller writes the results so far.
AHEAD = 2


class LocalExecutor:
    """Threads of this process. onnxruntime and the decoders let other threads run meanwhile, so all cores work.

    Args:
        threads: How many items are worked on at once.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="executor")

    @property
    def text(self) -> str:
        """The place in words."""
        return f"this machine, {self._threads} {'thread' if self._threads == 1 else 'threads'}"

    @property
    def parallel(self) -> int:
        """How many threads work."""
        return self._threads

    def map(
        self,
        work: Work[Result],
        items: Iterable[Item],
        *,
        shared: Mapping[str, bytes] | None = None,
        load: Callable[[Item], Any] | None = None,
        chunk: int = 1,
        on_done: Callable[[int], None] | None = None,
    ) -> Iterator[Result | KeepsightError]:
        """See ``Executor.map``. Nothing travels, so items are worked on one by one whatever ``chunk`` says."""
        reference(work)
        handle = work(shared or {})

        def do(part: list[Item]) -> list[Result | KeepsightError]:
            (item,) = part
            try:
                return [handle(item if load is None else load(item))]
            except KeepsightError as error:
                return [error]

        ahead = AHEAD * self._threads * chunk
        return in_order(self._pool, do, items, chunk=1, ahead=lambda: ahead, on_done=on_done)

    def close(self) -> None:
        """Ends the threads; waits for the items under way."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
