"""Task files: what SkyPilot and Kubernetes read, with no secret in them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from keepsight import __version__
from keepsight.delivery.where import tasks, wish

JOB = tasks.Job(
    name="keepsight-shop-v3-abc123",
    settings="projects:\n  shop: {data.source: 's3://pictures/shop/data/pictures.csv'}\n",
    command=["keepsight", "ci", "shop", "--reason", "it's new; rm -rf $HOME"],
)


def wanted(**values: Any) -> wish.Wish:
    return wish.parse({"kind": "skypilot", "bucket": "s3://pictures", **values}, Path("cloud.yaml"))


def test_skypilot() -> None:
    chosen = wanted(resources={"accelerators": "L4:1", "use_spot": True, "max_hourly_cost": 1}, env=["AWS_KEY"])
    task = yaml.safe_load(tasks.render(chosen, JOB))
    assert task["resources"] == {"accelerators": "L4:1", "use_spot": True, "max_hourly_cost": 1}
    assert task["secrets"] == {"AWS_KEY": None}
    assert task["setup"] == f"pip install 'keepsight[train]=={__version__}'\n"
    command = tasks.start_command(chosen, JOB, "task.yaml")
    assert command[:3] == ["sky", "jobs", "launch"]
    assert command[-3:] == ["--secret", "AWS_KEY", "task.yaml"]


def test_what_skypilot_runs_is_what_was_asked(tmp_path: Path) -> None:
    program = tmp_path / "keepsight"
    program.write_text('#!/bin/sh\ncat keepsight.yaml\nfor word in "$@"; do echo "<$word>"; done\n')
    program.chmod(0o755)
    run = yaml.safe_load(tasks.render(wanted(), JOB))["run"]
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", run], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == JOB.settings + "".join(f"<{word}>\n" for word in JOB.command[1:])


def test_kubernetes() -> None:
    chosen = wanted(
        kind="kubernetes",
        image="registry.example/keepsight:1",
        resources={"accelerators": "L4:2", "cpus": "4+", "memory": 16},
        secret="bucket-access",
        namespace="ml",
        node_selector={"gpu": "l4"},
    )
    settings, job = yaml.safe_load_all(tasks.render(chosen, JOB))
    assert settings["data"] == {"keepsight.yaml": JOB.settings}
    assert (job["apiVersion"], job["kind"], job["metadata"]["namespace"]) == ("batch/v1", "Job", "ml")
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"] == {"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"nvidia.com/gpu": "2"}}
    assert container["envFrom"] == [{"secretRef": {"name": "bucket-access"}}]
    assert pod["nodeSelector"] == {"gpu": "l4"}
    # A node that is taken away counts as no failure; a gate that said no is not asked again.
    ignore, fail = job["spec"]["podFailurePolicy"]["rules"]
    assert ignore["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert fail["onExitCodes"]["values"] == [1, 2, 3]
    assert pod["restartPolicy"] == "Never"
    assert tasks.start_command(chosen, JOB, "task.yaml") == ["kubectl", "create", "-f", "task.yaml"]
