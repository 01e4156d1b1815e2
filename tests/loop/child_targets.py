"""Functions that the tests run in a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keepsight.errors import DataError
from keepsight.loop.faults import fault_point

Progress = Callable[[Mapping[str, Any]], None]


class TroubleError(DataError):
    """A class that the parent process has never heard of."""

    code = "plugin_trouble"


def echo(payload: dict[str, Any], progress: Progress) -> dict[str, Any]:
    for step in range(payload.get("steps", 0)):
        progress({"step": step, "label": payload["label"]})
    return payload


def surroundings(payload: dict[str, Any], progress: Progress) -> dict[str, Any]:
    names = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "EXTRA")
    return {
        "nice": os.nice(0),
        "cores": len(os.sched_getaffinity(0)),
        "cwd": str(Path.cwd()),
        "stdin": sys.stdin.read(),
        **{name: os.environ.get(name) for name in names},
    }


def shout(payload: dict[str, Any], progress: Progress) -> dict[str, Any]:
    for _ in range(40):
        sys.stdout.write("o" * 100_000 + "\n")
        sys.stderr.write("e" * 100_000 + "\n")
    return {"shouted": True}


def refuse(payload: dict[str, Any], progress: Progress) -> dict[str, Any]:
    raise DataError("Only one class, “Äpfel”.", expected="two classes.", do="Add pictures.", classes=["Äpfel"], n=1)


def refuse_as_plugin(payload: dict[str, Any], progress: Progress) -> dict[str, Any]:
    raise TroubleError("Odd.", expected="even.", do="Add one.")


def stumble(payload: dict[str, Any], progress: Progress) -> dict[str, Any]:
    print("about to divide")
    return {"x": 1 / payload["zero"]}


def exhaust(payload: dict[str, Any], progress: Progress) -> dict[str, Any]:
    raise MemoryError


def answer_wrongly(payload: dict[str, Any], progress: Progress) -> Any:
    return [1, 2]


def kill_itself(payload: dict[str, Any], progress: Progress) -> dict[str, Any]:
    print("last words", flush=True)
    os.kill(os.getpid(), payload["signal"])
    time.sleep(60)
    return {}


def leave(payload: dict[str, Any], progress: Progress) -> dict[str, Any]:
    print("bye", flush=True)
    os._exit(3)


def pass_fault(payload: dict[str, Any], progress: Progress) -> dict[str, Any]:
    fault_point("trainer:fit")
    return {"passed": True}


def linger(payload: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Tells its pid and a grandchild's, then sleeps; ends in order on SIGTERM unless told to be stubborn."""
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    if payload.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        progress({"pid": os.getpid(), "grandchild": grandchild.pid})
        time.sleep(300)
    finally:
        if "cleaned" in payload:
            Path(payload["cleaned"]).touch()
    return {"lingered": True}


def hold_interpreter(payload: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Sleeps inside a native call that never gives the interpreter back."""
    import ctypes

    progress({"pid": os.getpid()})
    ctypes.PyDLL(None).sleep(300)
    return {}
