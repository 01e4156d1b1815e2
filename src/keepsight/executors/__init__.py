"""Where work runs: on this machine, or on a Ray cluster.

``map`` is all there is to it: the same work over many items, with results in order and only so many items under way
that memory stays bounded. Embedding pictures, answering them in batches and the trials of a search go through it, so
the setting ``executor`` moves all three.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from keepsight.config import Config
from keepsight.errors import KeepsightError

Item = TypeVar("Item")
Result = TypeVar("Result")

Work = Callable[[Mapping[str, bytes]], Callable[[Any], Result]]
"""Prepares once, from what all items share, what then handles one item after the other.

A class does well: ``__init__`` takes the shared bytes and opens the network, ``__call__`` takes an item. It must be
found by its name in a module (not made inside a function), be usable from several threads, and answer alike everywhere.
"""


class Executor(Protocol):
    """A place where work runs; a context manager."""

    @property
    def text(self) -> str:
        """The place in words, such as "this machine, 2 threads"."""

    @property
    def parallel(self) -> int:
        """How many threads or CPUs work there."""

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
        """The result of each item, in the items' order, while later ones are under way.

        A ``KeepsightError`` of one item stands in that item's place; any other exception ends the map. Items are taken
        from the iterable only as results are fetched. Closing the iterator drops what has not begun.

        Args:
            work: See ``Work``.
            items: What is worked on, taken as results are fetched: at most two chunks for each thread or CPU ahead, so
                a search may choose its next trial from results that it has.
            shared: Given to ``work`` once per process: networks, cached inputs. Sent to each machine once.
            load: Turns an item into what the work gets. It always runs here, on several threads, for it may read what
                other machines cannot: the encrypted blobs, the database, local files.
            chunk: Items that travel together; more is quicker for short work, one is best for work of seconds.
            on_done: Called, in the thread that fetches the results, with how many items are finished; that may be
                before their results come up in the order.

        Raises:
            ExecutorError: The place cannot be reached, or lost the work more often than it was tried again.
        """

    def close(self) -> None:
        """Lets the place go; a second time does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def of(config: Config) -> Executor:
    """The executor that a workspace's settings name.

    Raises:
        MissingExtraError: It needs an extra that is not installed. ExecutorError: The cluster cannot be reached.
    """
    threads = threads_of(config)
    if config["executor"] == "ray":
        from keepsight.executors.cluster import RayExecutor

        return RayExecutor(config["ray.address"], threads=threads)
    from keepsight.executors.local import LocalExecutor

    return LocalExecutor(threads)


def threads_of(config: Config) -> int:
    """How many threads work may use on this machine: ``machine.threads``, or one for each core."""
    return int(config["machine.threads"] or 0) or os.cpu_count() or 1


def reference(work: Callable[..., Any]) -> tuple[str, str]:
    """Module and name by which a worker in another process finds the work.

    Raises:
        TypeError: It was made inside a function, or in the program that was started.
    """
    module, name = getattr(work, "__module__", None), getattr(work, "__qualname__", "")
    if module is None or module == "__main__" or not name or "<" in name:
        raise TypeError(f"{work!r} cannot be found by name from another process; define it at the top of a module")
    return module, name
