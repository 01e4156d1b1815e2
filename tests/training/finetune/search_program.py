"""Searches in this process and on a real two-node Ray cluster on loopback; prints both results as JSON.

A program of its own: Ray's processes, signals and warnings are not the test runner's.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keepsight.executors import Executor
from keepsight.executors.cluster import RayExecutor
from keepsight.training.finetune.search import search
from tests.training.finetune.searched import bench


def found(place: Callable[[], Executor] | None) -> dict[str, Any]:
    """The plan and the trials."""
    with tempfile.TemporaryDirectory() as folder:
        result = search(
            bench(),
            trials=4,
            folder=Path(folder),
            left_s=lambda: math.inf,
            progress=lambda done, total: None,
            place=place,
        )
    return {"plan": result.plan.as_dict(), "trials": result.trials}


def main() -> None:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray then listens on loopback alone
    import torch
    from ray.cluster_utils import Cluster

    torch.set_num_threads(1)
    told = {"here": found(None)}
    node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 1024**2}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        told["cluster"] = found(lambda: RayExecutor(cluster.address, threads=1))
    finally:
        cluster.shutdown()
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
