"""Starts a real two-node Ray cluster on loopback, works on it, and prints what happened as JSON.

A program of its own: Ray's processes, signals and warnings are not the test runner's.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from keepsight.errors import KeepsightError
from keepsight.executors.cluster import RayExecutor
from tests.executors.targets import Doubling, Dying, Mistaken, Refusing, Where


def code_of(call: Callable[[], Any]) -> dict[str, str]:
    """The error that a call ends with."""
    try:
        call()
    except KeepsightError as error:
        return {"code": error.code, "text": str(error)}
    except ZeroDivisionError as error:
        return {"code": "", "text": type(error).__mro__[-4].__name__ + str(error).strip().splitlines()[-1]}
    return {}


def counted(taken: list[int]) -> Iterator[int]:
    """Numbers from 20 on without end; those that were asked for stand in ``taken``."""
    for number in itertools.count(20):
        taken.append(number)
        yield number


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def work(address: str, folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = {}
    before = signal.getsignal(signal.SIGTERM)
    with RayExecutor(address, threads=1) as executor:
        told["text"] = executor.text
        told["signal kept"] = signal.getsignal(signal.SIGTERM) is before
        seen: list[int] = []
        numbers = executor.map(Doubling, range(100), shared={"factor": b"3"}, chunk=4, on_done=seen.append)
        told["numbers"] = [item.code if isinstance(item, KeepsightError) else item for item in numbers]
        told["seen"] = seen
        places: set[tuple[int, str]] = set()
        ends = time.monotonic() + 30
        # A node's first worker takes seconds to start, and meanwhile the other node is quick.
        while len({node for _, node in places}) < 2 and time.monotonic() < ends:
            places |= {place for place in executor.map(Where, range(4)) if not isinstance(place, KeepsightError)}
        told["nodes"] = len({node for _, node in places})
        told["own process"] = os.getpid() in {pid for pid, _ in places}
        taken: list[int] = []
        endless = executor.map(Doubling, counted(taken), chunk=2)
        told["first"] = [next(endless) for _ in range(4)]
        told["taken"] = len(taken)
        getattr(endless, "close")()  # noqa: B009 - an iterator's type has none
        told["refused"] = code_of(lambda: list(executor.map(Refusing, range(3))))
        told["mistaken"] = code_of(lambda: list(executor.map(Mistaken, [0])))
        for name, times in (("once", 1), ("always", 1000)):
            deaths = folder / name
            deaths.mkdir()
            values = {"values": json.dumps({"times": times, "folder": str(deaths)}).encode()}
            if times == 1:
                told[name] = list(executor.map(Dying, [7], shared=values))
            else:
                told[name] = code_of(lambda values=values: list(executor.map(Dying, [7], shared=values)))  # type: ignore[misc]
                told["tries"] = len(list(deaths.iterdir()))
        told["other"] = code_of(lambda: RayExecutor("local", threads=1))
    return told


def vectors(root: Path, executor: str, address: str) -> str:
    """The digest of all vectors that an executor makes of thirty pictures, two of which cannot be read."""
    from keepsight.data import vectors
    from keepsight.data.adding import NewSample, add
    from keepsight.data.samples import current
    from keepsight.store import schema
    from keepsight.store.workspace import Workspace
    from tests.tiny import backbone, picture

    root.mkdir()
    (root / "keepsight.yaml").write_text(
        f"executor: {executor}\nray: {{address: '{address}'}}\nprojects: {{shop: {{}}}}\n"
    )
    ws = Workspace.open(root, environment={"KEEPSIGHT_KEY": base64.b64encode(b"k" * 32).decode()})
    try:
        ws.ensure_project("shop")
        items = [NewSample(picture(seed), f"{seed}", {"label": "ab"[seed % 2]}, "train") for seed in range(30)]
        add(ws, "shop", items, author="ana")
        wanted = sorted(item.picture_id for item in current(ws, "shop"))
        for lost in wanted[:2]:
            next((ws.state / "blobs").rglob(f"{lost}-*")).unlink()
        report = vectors.ensure(ws, wanted, backbone())
        query = sa.select(schema.vector.c.picture_id, schema.vector.c.data, schema.vector.c.quality)
        with ws.database.read("derived") as connection:
            rows = connection.execute(query.order_by(schema.vector.c.picture_id)).all()
        content = b"".join(row.picture_id.encode() + row.data + row.quality for row in rows)
        return f"{report.computed} {len(report.unreadable)} {hashlib.sha256(content).hexdigest()}"
    finally:
        ws.close()


def main() -> None:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray then listens on loopback alone
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 1024**2}
    told: dict[str, Any] = {"unreachable": []}
    began = time.perf_counter()
    for address in (f"127.0.0.1:{closed_port()}", f"localhost:{closed_port()}", "http://127.0.0.1:80", "nothing"):
        told["unreachable"].append(code_of(lambda address=address: RayExecutor(address, threads=1)))  # type: ignore[misc]
    told["told within s"] = time.perf_counter() - began
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            told |= work(cluster.address, folder)
            told["vectors"] = [vectors(folder / kind, kind, cluster.address) for kind in ("local", "ray")]
    finally:
        cluster.shutdown()
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
