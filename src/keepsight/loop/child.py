"""Runs one function in a child process of low priority that dies with its parent (Linux).

Training happens this way: its libraries read their thread settings when they load, its memory goes back when it ends,
and the server keeps answering beside it. The child is ``python -m keepsight.loop.child_main``; it reads one JSON line
from stdin, and writes progress and result as JSON lines to a pipe of its own, because libraries print to stdout.
"""

from __future__ import annotations

import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from keepsight.errors import CancelledError, TrainingError
from keepsight.loop.wire import error_from_json

Progress = Callable[[Mapping[str, Any]], None]

_POLL_S = 0.2
_GRACE_S = 5.0
_TAIL_BYTES = 16 * 1024
_TAIL_LINES = 40
_READ_BYTES = 64 * 1024
# A pipe holds 64 KiB, 1 MiB at most; more than that is not the ended child's.
_LAST_READS = 16


def run_child(
    target: str,
    payload: Mapping[str, Any],
    *,
    cancel: Callable[[], bool],
    on_progress: Progress,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    nice: int = 10,
    threads: int | None = None,
    cores: int | None = None,
    timeout_s: float | None = None,
) -> dict[str, Any]:
    """What ``target`` answers, run in a child process.

    Args:
        target: ``"package.module:function"``, called as ``function(payload, progress)``; ``progress`` takes JSON dicts.
        payload: JSON dict for it.
        cancel: Asked five times a second, in the calling thread.
        on_progress: Called in the calling thread with each progress dict.
        env: Environment variables added to this process's and to the thread settings made here.
        cwd: Working folder, this process's where None.
        nice: How much the child yields to other processes (0 to 19).
        threads: Threads for numerical libraries; None for the processors that this process may use.
        cores: Processors that the child may use at all; None for those that this process may use.
        timeout_s: Longest run; None for no limit.

    Raises:
        CancelledError: ``cancel`` answered True; the child got SIGTERM and, five seconds later, SIGKILL.
        TrainingError: The child was killed, crashed, took too long or raised something that is not a KeepsightError.
        KeepsightError: Whatever of the tree ``target`` raised, whole.
    """
    reading, writing = os.pipe()
    try:
        child = _spawner.start(
            # -P: a file in the working folder must not shadow a library.
            [sys.executable, "-P", "-X", "faulthandler", "-m", "keepsight.loop.child_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(writing,),
            env=_environment(threads, env),
            cwd=cwd,
            start_new_session=True,
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    stdin = cast(IO[bytes], child.stdin)
    watch = _Watch(child, reading, cast(IO[bytes], child.stdout))
    try:
        header = {
            "target": target,
            "payload": payload,
            "parent": os.getpid(),
            "nice": nice,
            "cores": cores,
            "channel": writing,
        }
        _write_line(stdin, header)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while watch.step(on_progress):
            if cancel():
                watch.stop()
                raise CancelledError(
                    "Training was cancelled.",
                    expected="training that ends by itself.",
                    do="Start it again when you want.",
                )
            if deadline is not None and time.monotonic() > deadline:
                watch.stop()
                raise TrainingError(
                    f"Training took longer than {timeout_s:g} s and was stopped.",
                    expected=f"a result within {timeout_s:g} s.",
                    do="Allow more time, or train on fewer pictures.",
                    output=watch.tail(),
                )
        return watch.outcome()
    finally:
        watch.close()
        _close_quietly(stdin)


class _Watch:
    """A running child, whose channel and output are read without ever letting it wait.

    The child is not reaped before :meth:`close`: until then nobody else can have its process (group) number, so that
    killing the group is safe.
    """

    def __init__(self, child: subprocess.Popen[bytes], channel: int, output: IO[bytes]) -> None:
        self._child = child
        self._channel = channel
        self._output = output
        self._pending = bytearray()
        self._tail = bytearray()
        self._answer: dict[str, Any] | None = None
        self._exit_code: int | None = None
        self._selector = selectors.DefaultSelector()
        for source in (channel, output.fileno()):
            os.set_blocking(source, False)
            self._selector.register(source, selectors.EVENT_READ)

    def step(self, on_progress: Progress) -> bool:
        """Waits up to a fifth of a second for news and takes them; False once the child has answered or ended."""
        ended = self._ended()
        for key, _ in self._selector.select(0 if ended else _POLL_S):
            self._read(key.fd, on_progress)
        if ended:
            # What it wrote is in the pipes by now. Their end is not awaited: grandchildren may hold them open.
            for source in (self._channel, self._output.fileno()):
                for _ in range(_LAST_READS):
                    if not self._read(source, on_progress):
                        break
        elif not self._selector.get_map():
            time.sleep(_POLL_S / 20)
        return self._answer is None and not ended

    def outcome(self) -> dict[str, Any]:
        """The result; raises what the child raised or died of."""
        if self._answer is None:
            raise self._death()
        if "error" in self._answer:
            raise error_from_json(self._answer["error"])
        result: dict[str, Any] = self._answer["result"]
        return result

    def stop(self) -> None:
        """SIGTERM, so that ``finally`` blocks run, and time for it; :meth:`close` kills what is left."""
        os.kill(self._child.pid, signal.SIGTERM)
        self._await_end()

    def tail(self) -> str:
        """The last lines that the child printed."""
        lines = self._tail.decode("utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def close(self) -> None:
        """Leaves nothing behind: a child that has answered may end by itself, then its whole group is killed."""
        if self._answer is not None:
            self._await_end()
        os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._selector.close()
        os.close(self._channel)
        self._output.close()

    def _await_end(self) -> None:
        until = time.monotonic() + _GRACE_S
        while time.monotonic() < until and not self._ended():
            self.step(lambda _: None)

    def _ended(self) -> bool:
        if self._exit_code is None:
            state = os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if state is not None:
                self._exit_code = state.si_status if state.si_code == os.CLD_EXITED else -state.si_status
        return self._exit_code is not None

    def _read(self, source: int, on_progress: Progress) -> bool:
        try:
            data = os.read(source, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            if source in self._selector.get_map():
                self._selector.unregister(source)
            return False
        if source != self._channel:
            self._tail += data
            del self._tail[:-_TAIL_BYTES]
            return True
        self._pending += data
        *lines, rest = self._pending.split(b"\n")
        self._pending = bytearray(rest)
        for line in lines:
            message = json.loads(line)
            if "progress" in message:
                on_progress(message["progress"])
            else:
                self._answer = message
        return True

    def _death(self) -> TrainingError:
        code = self._exit_code or 0
        found, do = (
            f"The training process ended with exit code {code} and without a result.",
            "See what it printed last.",
        )
        if code < 0:
            name = signal.Signals(-code).name
            found, do = f"The training process was ended by a signal ({name}).", "Start it again."
            if -code == signal.SIGKILL:
                found = "The training process was killed (SIGKILL); the system does that when memory runs out."
                do = "Close other programs, or train with smaller batches, fewer threads or a smaller backbone."
            elif -code in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT, signal.SIGFPE):
                found = f"The training process crashed inside a native library ({name})."
                do = "Start it again; if it happens again, report what it printed last."
        return TrainingError(
            found, expected="a process that ends with a result.", do=do, output=self.tail(), exit_code=code
        )


class _Spawner:
    """Starts processes from one thread that lives as long as this process.

    Linux sends the parent-death signal when the *thread* that started the child ends (prctl(2), PR_SET_PDEATHSIG), so a
    child started by a worker thread would be killed with that thread.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[subprocess.Popen[bytes]], list[str], dict[str, Any]]]
        self._jobs = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        future: Future[subprocess.Popen[bytes]] = Future()
        with self._lock:
            # Not alive: never started, or this is a forked copy of the process, which has no such thread.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="keepsight-spawner", daemon=True)
                self._thread.start()
        self._jobs.put((future, command, options))
        return future.result()

    def _work(self) -> NoReturn:
        while True:
            future, command, options = self._jobs.get()
            try:
                future.set_result(subprocess.Popen(command, **options))  # noqa: S603 -- our own interpreter and module
            except (OSError, ValueError, TypeError, subprocess.SubprocessError) as error:
                future.set_exception(error)
            del future


_spawner = _Spawner()


def _environment(threads: int | None, extra: Mapping[str, str] | None) -> dict[str, str]:
    """This process's environment with the settings that numerical libraries read while they load."""
    count = str(threads if threads is not None else len(os.sched_getaffinity(0)))
    return {
        **os.environ,
        # Spinning threads beside a busy server make training tens of times slower than sleeping ones.
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        "OMP_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        # Sets iterate in the same order in every run, so that a run can be replayed.
        "PYTHONHASHSEED": "0",
        **(extra or {}),
    }


def _write_line(pipe: IO[bytes], message: Mapping[str, Any]) -> None:
    """Sends the line and leaves the pipe open: its end tells the child that the parent is gone."""
    try:
        pipe.write(json.dumps(message).encode() + b"\n")
        pipe.flush()
    except BrokenPipeError:
        return  # The child died first; its exit code tells why.


def _close_quietly(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        return  # What was buffered for a dead child is of no use to anyone.
