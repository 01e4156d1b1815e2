"""The file behind --where: what is wrong in it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keepsight.delivery.where import wish
from keepsight.errors import NotFoundError, SettingsError

GOOD: dict[str, Any] = {"kind": "skypilot", "bucket": "s3://pictures/shop/"}


def test_a_wish_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "cloud.yaml"
    path.write_text(
        "kind: skypilot\nbucket: s3://pictures\nresources: {accelerators: 'L4:1', use_spot: true, cpus: 4+}\n"
        "eur_per_hour: 0.35\nenv: [AWS_ACCESS_KEY_ID]\n"
    )
    found = wish.load(path)
    assert found.resources == {"accelerators": "L4:1", "use_spot": True, "cpus": "4+"}
    assert (found.bucket, found.eur_per_hour, found.env) == ("s3://pictures", 0.35, ("AWS_ACCESS_KEY_ID",))
    with pytest.raises(NotFoundError, match="no file"):
        wish.load(tmp_path / "other.yaml")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "slurm"}, "slurm"),
        ({"buckets": 1}, "buckets"),
        ({"bucket": "/home/ana"}, "bucket is"),
        ({"bucket": "s3://ana:secret@host/b"}, "password"),
        ({"resources": {"gpus": 1}}, "gpus"),
        ({"resources": {"use_spot": "yes"}}, "use_spot"),
        ({"resources": {"cpus": True}}, "cpus"),
        ({"resources": {"accelerators": "L4:no"}}, "accelerators"),
        ({"env": ["KEY=value"]}, "env"),
        ({"eur_per_hour": -1}, "eur_per_hour"),
        ({"kind": "kubernetes"}, "no image"),
        ({"kind": "kubernetes", "image": "x", "resources": {"use_spot": True}}, "Kubernetes"),
        ({"secret": "Not A Name"}, "secret"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        wish.parse({**GOOD, **change}, Path("cloud.yaml"))
