"""Task files: a managed job of SkyPilot, or a Job of Kubernetes. No secret ever stands in them.

Both run ``keepsight ci`` on an empty machine, which takes pictures and live model from the bucket and leaves the new
model there. A machine that is taken away (spot) is replaced, and fine-tuning goes on from its last checkpoint in the
bucket; a gate that says no is final.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keepsight import __version__
from keepsight.delivery.where.wish import Wish

SETTINGS_FILE = "keepsight.yaml"
FOLDER = "keepsight-job"
# Exit codes of `keepsight ci` that another attempt would not change: gate failed, error, a person decides.
FINAL_EXIT_CODES = (1, 2, 3)
RETRIES = 3
KEPT_AFTER_END_S = 7 * 24 * 3600


@dataclass(frozen=True)
class Job:
    """What is to be run: a name, the text of its ``keepsight.yaml``, and the command's words."""

    name: str
    settings: str
    command: Sequence[str]


def render(wish: Wish, job: Job) -> str:
    """The task file."""
    import yaml

    documents = [_skypilot(wish, job)] if wish.kind == "skypilot" else _kubernetes(wish, job)
    return yaml.safe_dump_all(documents, sort_keys=False, width=120)


def start_command(wish: Wish, job: Job, path: str) -> list[str]:
    """What starts the task, word by word."""
    if wish.kind == "kubernetes":
        return ["kubectl", "create", "-f", path]
    return ["sky", "jobs", "launch", "--yes", "--name", job.name, *(w for n in wish.env for w in ("--secret", n)), path]


def _install(wish: Wish) -> str | None:
    if wish.install is None and wish.image is None:
        return f"keepsight[train]=={__version__}"
    return wish.install


def _skypilot(wish: Wish, job: Job) -> dict[str, Any]:
    resources = dict(wish.resources)
    if wish.image is not None:
        resources["image_id"] = f"docker:{wish.image}"
    install = _install(wish)
    task: dict[str, Any] = {"name": job.name, "resources": resources}
    if wish.env:
        task["secrets"] = dict.fromkeys(wish.env)
    if install is not None:
        task["setup"] = f"pip install {shlex.quote(install)}\n"
    task["run"] = (
        f"mkdir -p ~/{FOLDER} && cd ~/{FOLDER}\n"
        f"cat > {SETTINGS_FILE} <<'END_OF_SETTINGS'\n{job.settings}END_OF_SETTINGS\n{shlex.join(job.command)}\n"
    )
    return task


def _kubernetes(wish: Wish, job: Job) -> list[dict[str, Any]]:
    labels = {"app.kubernetes.io/name": "keepsight", "app.kubernetes.io/component": "training"}
    meta = {"name": job.name, "namespace": wish.namespace, "labels": labels}
    install = _install(wish)
    lines = [
        f"cp /settings/{SETTINGS_FILE} .",
        *([] if install is None else [f"pip install {shlex.quote(install)}"]),
        f"exec {shlex.join(job.command)}",
    ]
    container: dict[str, Any] = {
        "name": "train",
        "image": wish.image,
        "command": ["/bin/sh", "-ec", "\n".join(lines)],
        "workingDir": "/work",
        "volumeMounts": [
            {"name": "settings", "mountPath": "/settings", "readOnly": True},
            {"name": "work", "mountPath": "/work"},
        ],
    }
    if wish.secret is not None:
        container["envFrom"] = [{"secretRef": {"name": wish.secret}}]
    resources = _kubernetes_resources(wish)
    if resources:
        container["resources"] = resources
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "settings", "configMap": {"name": job.name}}, {"name": "work", "emptyDir": {}}],
    }
    if wish.node_selector:
        pod["nodeSelector"] = dict(wish.node_selector)
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "train", "operator": "In", "values": list(FINAL_EXIT_CODES)},
        },
    ]
    spec = {
        "backoffLimit": RETRIES,
        "ttlSecondsAfterFinished": KEPT_AFTER_END_S,
        "podFailurePolicy": {"rules": rules},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {SETTINGS_FILE: job.settings}},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec},
    ]


def _kubernetes_resources(wish: Wish) -> dict[str, Any]:
    requests: dict[str, str] = {}
    if "cpus" in wish.resources:
        requests["cpu"] = str(wish.resources["cpus"]).rstrip("+")
    if "memory" in wish.resources:
        requests["memory"] = f"{str(wish.resources['memory']).rstrip('+')}Gi"
    found: dict[str, Any] = {"requests": requests} if requests else {}
    if "accelerators" in wish.resources:
        found["limits"] = {"nvidia.com/gpu": str(wish.resources["accelerators"]).partition(":")[2] or "1"}
    return found
