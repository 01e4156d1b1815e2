"""Places at which a test can kill the process, to prove that nothing is lost there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

FAULT = "KEEPSIGHT_FAULT"
FAULT_ONCE = "KEEPSIGHT_FAULT_ONCE"


def fault_point(name: str) -> None:
    """Kills this process with SIGKILL where ``KEEPSIGHT_FAULT`` is ``name``; otherwise nothing happens.

    With ``KEEPSIGHT_FAULT_ONCE`` set to a path, the file is created before the kill and its presence disarms the point,
    so that a restarted process passes. Child processes inherit both variables, so a point inside a trainer works.
    """
    if os.environ.get(FAULT) != name:
        return
    once = os.environ.get(FAULT_ONCE)
    if once:
        try:
            Path(once).touch(exist_ok=False)
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
