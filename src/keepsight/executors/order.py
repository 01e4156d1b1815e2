"""Results in order from threads that finish in any order, with a bounded number of chunks under way."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    pool: ThreadPoolExecutor,
    do: Callable[[list[Item]], list[Result]],
    items: Iterable[Item],
    *,
    chunk: int,
    ahead: Callable[[], int],
    on_done: Callable[[int], None] | None = None,
) -> Iterator[Result]:
    """What ``do`` gives for each chunk of items, one by one in the items' order.

    Args:
        pool: Runs the chunks.
        do: Gives one result for each item of a chunk; what it raises comes out here.
        items: Taken only as results are fetched.
        chunk: Items in one call of ``do``.
        ahead: How many chunks may be under way or finished and not fetched yet; asked before each wait.
        on_done: Called in this thread with the number of items finished so far.
    """
    source = iter(items)
    waiting: deque[tuple[Future[list[Result]], int]] = deque()
    finished: SimpleQueue[Future[list[Result]]] = SimpleQueue()
    sizes: dict[Future[list[Result]], int] = {}
    done = 0
    try:
        while True:
            while len(waiting) < max(1, ahead()) and (part := list(itertools.islice(source, chunk))):
                future = pool.submit(do, part)
                waiting.append((future, len(part)))
                sizes[future] = len(part)
                future.add_done_callback(finished.put)
            if not waiting:
                return
            head, _ = waiting[0]
            while head in sizes:
                ended = finished.get()
                done += sizes.pop(ended)
                if on_done is not None:
                    on_done(done)
            waiting.popleft()
            yield from head.result()
    finally:
        for future, _ in waiting:
            future.cancel()
