"""The file behind ``--where``: which machine, through which tool, and the bucket that lies between."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from keepsight.delivery.registry.stores import SCHEMES
from keepsight.errors import NotFoundError, SettingsError

Kind = Literal["skypilot", "kubernetes"]
RESOURCES: Mapping[str, tuple[type, ...]] = {
    "accelerators": (str,),
    "cpus": (str, int, float),
    "memory": (str, int, float),
    "disk_size": (int,),
    "infra": (str,),
    "use_spot": (bool,),
    "max_hourly_cost": (int, float),
}
# What a cluster decides by its nodes' labels and not by a wish.
SKYPILOT_ONLY = ("infra", "use_spot", "max_hourly_cost", "disk_size")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Wish:
    """A machine to rent.

    Attributes:
        kind: Which tool rents it.
        bucket: Pictures go in below it, models come out: s3://, gs:// or az://.
        resources: As SkyPilot names them: accelerators, cpus, memory, disk_size, infra, use_spot, max_hourly_cost.
        image: Container with Keepsight; Kubernetes needs one.
        install: What ``pip install`` gets first; empty with an image: nothing.
        eur_per_hour: Price of the machine, for what the run costs.
        env: Names of environment variables that SkyPilot hands over from yours; their values stand nowhere.
        secret: Kubernetes secret whose entries become environment variables.
        namespace: Of the Kubernetes job.
        node_selector: Labels of the Kubernetes nodes, such as those with a GPU or spot nodes.
    """

    kind: Kind
    bucket: str
    resources: Mapping[str, Any] = field(default_factory=dict)
    image: str | None = None
    install: str | None = None
    eur_per_hour: float | None = None
    env: tuple[str, ...] = ()
    secret: str | None = None
    namespace: str = "default"
    node_selector: Mapping[str, str] = field(default_factory=dict)


def load(path: Path) -> Wish:
    """Reads and checks the file.

    Raises:
        NotFoundError: There is none. SettingsError: A key or value is wrong; says which.
    """
    import yaml

    try:
        tree = yaml.safe_load(path.read_bytes())
    except OSError:
        raise NotFoundError(
            f"There is no file {path}.", expected="a file that says which machine to rent.", do="Check --where."
        ) from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} cannot be read as YAML: {error}", expected="YAML.", do="Correct it.") from None
    if not isinstance(tree, Mapping):
        raise _wrong(path, "It holds no map", "a map with kind and bucket")
    return parse(tree, path)


def parse(tree: Mapping[str, Any], path: Path) -> Wish:
    """The same from what the file holds."""
    names = [each.name for each in fields(Wish)]
    for name in tree:
        if name not in names:
            missing = NotFoundError.among("key", name, names)
            raise SettingsError(f"{path}: {missing.found}", expected=missing.expected, do=missing.do)
    if tree.get("kind") not in get_args(Kind):
        raise _wrong(path, f"kind is {tree.get('kind')!r}", "skypilot or kubernetes")
    bucket = str(tree.get("bucket", "")).rstrip("/")
    if not bucket.startswith(tuple(scheme for scheme in SCHEMES if scheme != "file://")):
        raise _wrong(path, f"bucket is {tree.get('bucket')!r}", "s3://, gs:// or az://, which the machine can reach")
    if "@" in urlsplit(bucket).netloc:
        raise _wrong(path, "bucket holds a password", "an address without one; credentials come by env or secret")
    resources = _map(tree, "resources", path)
    _check_resources(resources, str(tree["kind"]), path)
    env = tree.get("env") or []
    if not isinstance(env, list) or not all(isinstance(name, str) and _VARIABLE.fullmatch(name) for name in env):
        raise _wrong(path, "env is no list of names", "names of variables; values stay in your environment")
    price = tree.get("eur_per_hour")
    if price is not None and (isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price <= 1000):
        raise _wrong(path, f"eur_per_hour is {price!r}", "a number from 0 to 1000")
    for name in ("namespace", "secret"):
        if tree.get(name) is not None and not _LABEL.fullmatch(str(tree[name])):
            raise _wrong(path, f"{name} is {tree[name]!r}", "a name as Kubernetes takes it")
    wish = Wish(
        kind=tree["kind"],
        bucket=bucket,
        resources=resources,
        image=_text(tree, "image"),
        install=_text(tree, "install"),
        eur_per_hour=None if price is None else float(price),
        env=tuple(env),
        secret=_text(tree, "secret"),
        namespace=str(tree.get("namespace") or "default"),
        node_selector={str(key): str(value) for key, value in _map(tree, "node_selector", path).items()},
    )
    if wish.kind == "kubernetes" and wish.image is None:
        raise _wrong(path, "There is no image", "a container image with Keepsight, or with Python and `install`")
    return wish


def _check_resources(resources: Mapping[str, Any], kind: str, path: Path) -> None:
    for name, value in resources.items():
        if name not in RESOURCES:
            missing = NotFoundError.among("resource", name, RESOURCES)
            raise SettingsError(f"{path}: {missing.found}", expected=missing.expected, do=missing.do)
        kinds = RESOURCES[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise _wrong(path, f"resources.{name} is {value!r}", " or ".join(each.__name__ for each in kinds))
        if kind == "kubernetes" and name in SKYPILOT_ONLY:
            raise _wrong(path, f"resources.{name} means nothing to Kubernetes", "node_selector with your nodes' labels")
    count = str(resources.get("accelerators", "L4:1")).partition(":")[2] or "1"
    if not count.isdigit() or count == "0":
        raise _wrong(path, f"resources.accelerators is {resources['accelerators']!r}", "a name and a count: L4:1")


def _map(tree: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    found = tree.get(name) or {}
    if not isinstance(found, Mapping):
        raise _wrong(path, f"{name} is no map", "a map")
    return dict(found)


def _text(tree: Mapping[str, Any], name: str) -> str | None:
    return None if not tree.get(name) else str(tree[name])


def _wrong(path: Path, found: str, expected: str) -> SettingsError:
    return SettingsError(f"{path}: {found}.", expected=f"{expected}.", do=f"Correct {path.name}.")
