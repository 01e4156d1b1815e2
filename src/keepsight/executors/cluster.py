"""Work on a Ray cluster: chunks go out as tasks, at most two for each CPU at a time, and come back in order.

Workers need neither the database nor the key: what they work on is read and decrypted here and travels to them. They
need the same Keepsight and the same libraries that decide results; each one is checked before its first task.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import signal
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from keepsight.errors import ConflictError, ExecutorError, KeepsightError, MissingExtraError, SettingsError
from keepsight.executors import Item, Result, Work, reference
from keepsight.executors.order import in_order
from keepsight.executors.worker import versions

AHEAD = 2
# Each task under way has a thread here that waits for it.
MOST_TASKS = 256
# A task whose worker dies is tried so often again.
RETRIES = 3
# Shared inputs that stay in the cluster's memory between maps.
KEPT = 4
CONNECT_TIMEOUT_S = 5.0
RECOUNT_S = 5.0

# Set before Ray is imported: no usage reports, no warning about accelerators, no environments built at run time.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}

# Makes Ray listen on loopback alone; every other machine's cluster needs the network.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

# Ray has one connection a process; executors share it.
_lock = threading.Lock()
_users = 0
_connected_to: str | None = None
_ours = False


class RayExecutor:
    """A Ray cluster.

    Args:
        address: ``auto``, ``HOST:PORT`` of a cluster that this machine belongs to, ``ray://HOST:PORT`` of another; None
            starts one on this machine, which ends with the last executor.
        threads: CPUs of a cluster that is started here.

    Raises:
        MissingExtraError: Ray is not installed. SettingsError: The address is none.
        ExecutorError: The cluster cannot be reached. ConflictError: This process uses another one already.
    """

    def __init__(self, address: str | None, *, threads: int) -> None:
        self._address = address or "local"
        self._closed = False
        _connect(self._address, threads=threads)
        try:
            self._ray = _ray()
            self._pool = ThreadPoolExecutor(MOST_TASKS, thread_name_prefix="ray")
            self._counted_at = -RECOUNT_S
            self._cpus = 0
            self._shared: OrderedDict[str, list[Any]] = OrderedDict()
            self._task = self._ray.remote(max_retries=RETRIES, retry_exceptions=False)(_by_value())
            self._count()
        except BaseException:
            _disconnect()
            raise

    @property
    def text(self) -> str:
        """The place in words."""
        where = "on this machine" if self._address == "local" else self._address
        return f"Ray {where}, {self._cpus} {'CPU' if self._cpus == 1 else 'CPUs'}"

    @property
    def parallel(self) -> int:
        """How many CPUs the cluster has."""
        return self._cpus

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
        """See ``Executor.map``."""
        named = reference(work)
        given = dict(shared or {})
        key = _key(named, given)
        job = _Job(self, (versions(), key, named, list(given), self._put(key, given)), load=load)
        return self._results(job, items, chunk=chunk, on_done=on_done)

    def close(self) -> None:
        """Lets go of the cluster; one that was started here ends, unless another executor uses it."""
        if self._closed:
            return
        self._closed = True
        self._shared.clear()
        self._pool.shutdown(cancel_futures=True)
        _disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, arguments: tuple[Any, ...], *, under_way: set[Any]) -> Any:
        """What one task returns; its reference stands in ``under_way`` meanwhile.

        Raises:
            ExecutorError: The cluster went away, or the task's worker died too often.
        """
        with self._failures():
            ref = self._task.remote(*arguments)
            under_way.add(ref)
            try:
                return self._ray.get(ref)
            finally:
                under_way.discard(ref)

    def cancel(self, refs: Iterable[Any]) -> None:
        """Drops tasks that nobody waits for any more."""
        for ref in refs:
            with contextlib.suppress(self._ray.exceptions.RayError, ConnectionError, ValueError):
                self._ray.cancel(ref)

    def _results(
        self, job: _Job, items: Iterable[Item], *, chunk: int, on_done: Callable[[int], None] | None
    ) -> Iterator[Any]:
        try:
            yield from in_order(self._pool, job.do, items, chunk=chunk, ahead=self._ahead, on_done=on_done)
        finally:
            job.stop()

    def _ahead(self) -> int:
        if time.monotonic() - self._counted_at > RECOUNT_S:
            self._count()
        return min(AHEAD * self._cpus, MOST_TASKS)

    def _count(self) -> None:
        """Counts the CPUs anew: machines come and go."""
        with self._failures():
            self._cpus = int(self._ray.cluster_resources().get("CPU", 0))
        self._counted_at = time.monotonic()
        if not self._cpus:
            raise ExecutorError(
                f"The Ray cluster ({_named(self._address)}) has no CPUs to work on.",
                expected="at least one machine with CPUs.",
                do="Start one with `ray start --address=…`, or set executor to local.",
            )

    def _put(self, key: str, shared: Mapping[str, bytes]) -> list[Any]:
        """References to the shared bytes in the cluster, which get there once."""
        if key not in self._shared:
            with self._failures():
                refs = [self._ray.put(value) for value in shared.values()]
            while len(self._shared) >= KEPT:
                self._shared.popitem(last=False)
            self._shared[key] = refs
        self._shared.move_to_end(key)
        return self._shared[key]

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Tells Ray's own failures in our shape; what the work itself raised passes."""
        errors = self._ray.exceptions
        try:
            yield
        except errors.RayTaskError:
            raise
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            raise ExecutorError(
                f"The Ray cluster lost the same work {RETRIES + 1} times: {_short(error)}",
                expected="workers that live until their work is done.",
                do="Look into Ray's logs on that machine; most often its memory is too small for so many workers.",
            ) from error
        except (errors.RayError, ConnectionError) as error:
            raise ExecutorError(
                f"The Ray cluster ({_named(self._address)}) failed: {_short(error)}",
                expected="a cluster that answers until the work is done.",
                do="Check it with `ray status`, then start again: what was finished is kept.",
            ) from error


class _Job:
    """One map: sends chunks out and puts what could not even be loaded in its place."""

    def __init__(self, executor: RayExecutor, fixed: tuple[Any, ...], *, load: Callable[[Any], Any] | None) -> None:
        self._executor = executor
        self._fixed = fixed
        self._load = load
        self._under_way: set[Any] = set()
        self._stopped = False

    def do(self, part: list[Any]) -> list[Any]:
        """The results of a chunk."""
        if self._stopped:
            return []
        results: list[Any] = []
        sent: list[Any] = []
        for item in part:
            try:
                sent.append(item if self._load is None else self._load(item))
                results.append(None)
            except KeepsightError as error:
                results.append(error)
        if not sent:
            return results
        kind, value = self._executor.run((self._fixed, sent), under_way=self._under_way)
        if kind != "results":
            raise _refusal(kind, value)
        answers = iter(value)
        return [next(answers) if result is None else result for result in results]

    def stop(self) -> None:
        """Drops what is under way."""
        self._stopped = True
        self._executor.cancel(list(self._under_way))


def _by_value() -> Callable[..., tuple[str, Any]]:
    """The task. Made in a function, so that it travels as code: a worker without Keepsight can say so."""

    def task(fixed: tuple[Any, ...], items: list[Any]) -> tuple[str, Any]:
        import importlib.metadata
        import platform

        expected, key, named, names, refs = fixed
        try:
            if importlib.metadata.version("keepsight") != expected["keepsight"]:
                return "other", (platform.node(), importlib.metadata.version("keepsight"))
            from keepsight.executors import worker
        except ImportError as error:
            return "missing", (platform.node(), str(error))
        from keepsight.errors import KeepsightError

        try:
            if not worker.prepared(key):
                worker.check_versions(expected, place=platform.node())
                import ray

                worker.prepare(key, named, dict(zip(names, ray.get(refs), strict=True)))
        except KeepsightError as error:
            return "refused", error
        return "results", worker.handle(key, items)

    return task


def _refusal(kind: str, value: Any) -> KeepsightError:
    """Why a worker did not even begin."""
    if kind == "refused":
        error: KeepsightError = value
        return error
    place, what = value
    found = f"has Keepsight {what}" if kind == "other" else f"has no Keepsight that can be imported ({what})"
    return ConflictError(
        f"The machine {place} of the Ray cluster {found}.",
        expected=f"Keepsight {versions()['keepsight']} with the extra [ray], as on this machine.",
        do="Install the same versions on every machine of the cluster, then restart Ray there.",
    )


def _key(named: tuple[str, str], shared: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256("\0".join(named).encode())
    for name, value in shared.items():
        digest.update(f"\0{name}\0{len(value)}\0".encode())
        digest.update(value)
    return digest.hexdigest()


def _connect(address: str, *, threads: int) -> None:
    global _users, _connected_to, _ours  # noqa: PLW0603 - Ray's connection is the process's
    with _lock:
        if _users and _connected_to != address:
            raise ConflictError(
                f"This process works on the Ray cluster {_named(_connected_to or '')}.",
                expected="one cluster at a time.",
                do="Wait until that work is done, or give all workspaces the same ray.address.",
            )
        if not _users:
            os.environ.update(_ENVIRONMENT | (_LOOPBACK if address == "local" else {}))
            ray = _ray()
            # Whoever started Ray in this process also ends it.
            _ours = not ray.is_initialized()
            if _ours:
                _start(ray, address, threads=threads)
            _connected_to = address
        _users += 1


def _disconnect() -> None:
    global _users, _connected_to  # noqa: PLW0603 - Ray's connection is the process's
    with _lock:
        _users -= 1
        if not _users:
            _connected_to = None
            if _ours:
                _ray().shutdown()


def _start(ray: Any, address: str, *, threads: int) -> None:
    check_client(address)
    _check_reachable(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "keepsight"}
    if address == "local":
        options |= {"num_cpus": threads, "include_dashboard": False}
    try:
        with _own_signals():
            ray.init(address=address, **options)
        # log_to_driver leaves out what Ray's own processes say, and that would go to stdout among the results.
        ray._private.worker._worker_logs_enabled = False
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        raise _unreachable(address, _short(error)) from error


def check_client(address: str) -> None:
    """Refuses an address of Ray's client where that is not installed.

    Raises:
        MissingExtraError: Says how to install it.
    """
    # Without grpc Ray's client fails with an AttributeError of its own.
    if address.startswith("ray://") and importlib.util.find_spec("grpc") is None:
        raise MissingExtraError(
            f"ray.address is {address}, and Ray's client is not installed.",
            expected="Ray with its client, which addresses that begin with ray:// need.",
            do='Install it: pip install "ray[client]"; or run on a machine of the cluster with ray.address: auto.',
        )


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps what this process does on SIGTERM; Ray would put its own exit in its place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_reachable(address: str) -> None:
    """Tries the address for a few seconds; Ray itself would try for a minute."""
    if address in {"local", "auto"}:
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in {"", "ray"} or not host or not port:
        raise SettingsError(
            f'ray.address is "{address}".',
            expected="auto, HOST:PORT or ray://HOST:PORT.",
            do="Correct it in keepsight.yaml; leave it out for a cluster on this machine.",
        )
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise _unreachable(address, error.strerror or str(error)) from error


def _unreachable(address: str, why: str) -> ExecutorError:
    return ExecutorError(
        f"The Ray cluster ({_named(address)}) cannot be reached: {why}",
        expected="a running cluster of the same versions of Ray and Python.",
        do="Start it with `ray start --head`, correct ray.address, or set executor to local.",
        address=address,
    )


def _named(address: str) -> str:
    return "on this machine; ray.address is empty" if address == "local" else f"ray.address {address}"


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0][:300] if lines else type(error).__name__).rstrip(".") + "."


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise MissingExtraError(
            "executor is ray, and Ray is not installed.",
            expected="the extra [ray].",
            do='Install it: pip install "keepsight[ray]"; or set executor to local.',
        ) from None
    return ray
