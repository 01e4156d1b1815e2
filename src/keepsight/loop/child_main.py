"""The child's side of :func:`keepsight.loop.child.run_child`: reads its task, runs it, tells progress and result."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from keepsight.errors import KeepsightError, TrainingError
from keepsight.loop.wire import error_to_json

_PR_SET_PDEATHSIG = 1
_TRACE_CHARS = 16 * 1024


def _main() -> None:
    lifeline = os.dup(0)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    with os.fdopen(lifeline, "rb", closefd=False) as stdin:
        line = stdin.readline()
    if not line.endswith(b"\n"):
        sys.exit(1)
    header = json.loads(line)
    _die_with(header["parent"], lifeline)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    os.nice(header["nice"])
    if header["cores"] and sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: header["cores"]])
    channel: int = header["channel"]
    os.set_inheritable(channel, False)
    lock = threading.Lock()

    def send(message: Mapping[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        with lock:
            while data:
                data = data[os.write(channel, data) :]

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.__excepthook__(kind, error, trace)
        send({"error": json.loads(json.dumps(error_to_json(_as_keepsight_error(error)), default=str))})

    sys.excepthook = tell
    module, _, function = header["target"].partition(":")
    result = getattr(importlib.import_module(module), function)(
        header["payload"], lambda values: send({"progress": values})
    )
    if not isinstance(result, dict):
        raise TypeError(f"{header['target']} must answer a dict, got {type(result).__name__}")
    send({"result": result})


def _die_with(parent: int, lifeline: int) -> None:
    """Ends this process when the parent ends, however it ends."""
    if sys.platform == "linux":
        import ctypes

        # By the kernel: works also while a native call holds the interpreter.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)

    def watch() -> None:
        # Nothing is sent after the first line, so this returns when the parent's end of the pipe closes.
        os.read(lifeline, 1)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="keepsight-lifeline", daemon=True).start()


def _as_keepsight_error(error: BaseException) -> KeepsightError:
    if isinstance(error, KeepsightError):
        return error
    name, lines = type(error).__name__, traceback.format_exception(error)
    found, do = f"Training stopped with {name}: {error}", "This is a fault in the program; report the traceback."
    if isinstance(error, MemoryError):
        found, do = (
            "Training ran out of memory.",
            "Close other programs, or train with smaller batches or a smaller backbone.",
        )
    return TrainingError(
        found,
        expected="training that ends with a result.",
        do=do,
        exception=name,
        traceback="".join(lines)[-_TRACE_CHARS:],
    )


if __name__ == "__main__":
    _main()
