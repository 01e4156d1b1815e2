"""Works that tests send to workers, which find them by name."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keepsight.errors import BundleError, PictureError


class Doubling:
    """Twice the number, times what is shared; slow for even numbers, so that results come out of order."""

    def __init__(self, shared: Mapping[str, bytes]) -> None:
        self._factor = int(shared.get("factor", b"2"))

    def __call__(self, number: int) -> int:
        if number % 10 == 0:
            time.sleep(0.05)
        if number == 13:
            raise PictureError("It is 13.", expected="another number.", do="Leave it out.")
        return number * self._factor


class Refusing:
    """Refuses what is shared."""

    def __init__(self, shared: Mapping[str, bytes]) -> None:
        raise BundleError("The network is broken.", expected="a whole one.", do="Copy it again.")

    def __call__(self, number: int) -> int:
        return number


class Mistaken:
    """Has a mistake of its own."""

    def __init__(self, shared: Mapping[str, bytes]) -> None:
        pass

    def __call__(self, number: int) -> float:
        return 1 / number


class Where:
    """Which process worked, and on which node."""

    def __init__(self, shared: Mapping[str, bytes]) -> None:
        pass

    def __call__(self, number: int) -> tuple[int, str]:
        import ray

        time.sleep(0.2)
        return os.getpid(), str(ray.get_runtime_context().get_node_id())


class Dying:
    """Ends its process as often as is shared, then works; it counts in a folder."""

    def __init__(self, shared: Mapping[str, bytes]) -> None:
        values: dict[str, Any] = json.loads(shared["values"])
        self._times, self._folder = int(values["times"]), Path(values["folder"])

    def __call__(self, number: int) -> int:
        deaths = len(list(self._folder.iterdir()))
        if deaths < self._times:
            (self._folder / str(deaths)).touch()
            os._exit(1)
        return number
