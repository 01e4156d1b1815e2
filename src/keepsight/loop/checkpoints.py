"""Checkpoints that travel (``train.checkpoints``): a run whose machine is taken away goes on on another one.

They lie under ``PROJECT/KEY/`` in a folder or bucket. The key names what is trained on and how, not the run or the
machine, so an empty machine that imports the same pictures finds them. Ids of pictures depend on each workspace's own
key; that is why pictures are told apart by their content here, and trained on in its order. What travels is small:
weights, plan, held-out pictures. The activations are computed again.

A checkpoint from elsewhere is data and nothing else: it is read without pickled code (``weights_only``), and only where
every file has the sha256 that was written after all of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

import keepsight
from keepsight.config import ProjectSettings
from keepsight.delivery.registry import stores
from keepsight.errors import StorageError
from keepsight.training.budget import Budget
from keepsight.training.material import Part

SETTING = "train.checkpoints"
MANIFEST = "manifest.json"
SEND_EVERY_S = 20.0
LARGEST_BYTES = 300_000_000
# Longest wait at the end of a run for an upload that is under way.
LAST_WAIT_S = 60.0
# Caches of activations: large, and quickly made again.
_STAYING_SUFFIXES = (".f16", ".u8")
_STAYING_NAMES = ("activations.json",)

log = logging.getLogger(__name__)


def in_order(
    part: Part, read: Callable[[str], bytes | None], *, progress: Callable[[Mapping[str, Any]], None]
) -> tuple[Part, list[str]]:
    """The pictures in the order of their content, which is the same on every machine, and the sha256 of each.

    Args:
        part: The pictures.
        read: The stored bytes of a picture by its id; None where they are gone.
        progress: Takes dicts with ``text``, ``done`` and ``total``.
    """
    hashes = []
    for place, sample in enumerate(part.samples):
        data = read(sample.picture_id)
        hashes.append(hashlib.sha256(sample.picture_id.encode() if data is None else data).hexdigest())
        progress({"text": "telling pictures apart", "done": place + 1, "total": len(part)})
    order = np.array(sorted(range(len(part)), key=hashes.__getitem__), np.int64)
    found = part.take(order)
    numbers: dict[int, int] = {}
    groups = np.array([numbers.setdefault(int(group), len(numbers)) for group in found.groups], np.int64)
    return replace(found, groups=groups), [hashes[place] for place in order]


def key_of(
    part: Part,
    hashes: list[str],
    *,
    project: str,
    settings: ProjectSettings,
    params: Mapping[str, Any],
    backbone_digest: str,
) -> str:
    """Names what is trained on and how; the same on every machine, another one where anything of it differs.

    Args:
        part: The training pictures, from :func:`in_order`.
        hashes: Likewise.
        project: Its name.
        settings: Its settings, of which those of training count.
        params: What the run was asked for: recipe and limits.
        backbone_digest: Of the pretrained network.
    """
    facts = {
        "keepsight": keepsight.__version__,
        "project": project,
        "task": settings["task"],
        "pictures": [
            [sha, sample.value, sample.split, sample.group] for sha, sample in zip(hashes, part.samples, strict=True)
        ],
        "backbone": backbone_digest,
        "settings": {
            name: value for name, value in settings.as_dict().items() if name.startswith("train.") and name != SETTING
        },
        "asked": {name: params.get(name) for name in ("recipe", "budget_minutes", "max_cost_eur")},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextmanager
def travelling(url: str, *, root: Path, project: str, key: str, folder: Path, budget: Budget) -> Iterator[None]:
    """Brings checkpoints into an empty folder, and new ones away while the block works; once it is through, they go.

    A store that is away is told once in the log, and training goes on without.

    Args:
        url: Folder (relative to ``root``) or bucket.
        root: Where folders start.
        project: Its name.
        key: From :func:`key_of`.
        folder: The run's own. Where something lies in it already, that is newer than what travelled.
        budget: Of the run; what other machines used of it counts.

    Raises:
        SettingsError: The URL is none.
    """
    try:
        store = stores.open_store(url, root=root, setting=SETTING)
    except StorageError as error:
        log.warning("Checkpoints stay on this machine: %s", error)
        yield
        return
    remote = _Remote(store, f"{project}/{key}", folder, budget)
    remote.bring()
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(SEND_EVERY_S):
            remote.send()

    thread = threading.Thread(target=follow, name="keepsight-checkpoints", daemon=True)
    thread.start()
    through = False
    try:
        yield
        through = True
    finally:
        stop.set()
        thread.join(LAST_WAIT_S)
        if not thread.is_alive():
            if through:
                remote.remove()
            elif not remote.away:
                remote.send()


class _Remote:
    """One run's files in the store: each named by its sha256, and a manifest that says which belong together."""

    def __init__(self, store: Any, prefix: str, folder: Path, budget: Budget) -> None:
        self.store, self.prefix, self.folder, self.budget = store, prefix, folder, budget
        self.away = False
        self._told = False
        self._sent: dict[str, tuple[int, int]] = {}

    def bring(self) -> None:
        """Puts the files of the last whole set into the folder, where it has none."""
        import obstore
        from obstore.exceptions import BaseError

        if self._local():
            return
        try:
            manifest = json.loads(bytes(obstore.get(self.store, f"{self.prefix}/{MANIFEST}").bytes()))
            files = [(str(each["path"]), str(each["sha256"])) for each in manifest["files"]]
            used_s = max(0.0, float(manifest["used_s"]))
            arrived = [(self._place(name), self._get(sha)) for name, sha in files]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            log.warning("Checkpoints of another machine are not whole, so this run begins at its start: %s", error)
            return
        except (BaseError, OSError) as error:
            self._tell(error)
            return
        # As they were written, oldest first: a cut in between leaves an earlier state.
        for place, data in arrived:
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = place.with_name(f"{place.name}.new")
            partial.write_bytes(data)
            partial.replace(place)
        self.budget.used_s += used_s
        log.info("Training goes on from a checkpoint of another machine, which used %.0f s.", used_s)

    def send(self) -> None:
        """Brings what is new into the store; the set before stays whole until this one is."""
        import obstore
        from obstore.exceptions import BaseError

        local = self._local()
        now = {name: (stat.st_mtime_ns, stat.st_size) for name, _, stat in local}
        if not local or now == self._sent:
            return
        used_s = self.budget.spent_s
        try:
            there = {str(item["path"]) for item in obstore.list(self.store, prefix=self.prefix).collect()}
            files, objects = [], set()
            # Newest first: what an older file says was there when the newer one was written.
            for name, path, _ in reversed(local):
                try:
                    data = path.read_bytes()
                except FileNotFoundError:
                    continue
                sha = hashlib.sha256(data).hexdigest()
                place = f"{self.prefix}/{sha}"
                if place not in there:
                    obstore.put(self.store, place, data)
                objects.add(place)
                files.append({"path": name, "sha256": sha})
            manifest = {"files": files[::-1], "used_s": used_s}
            obstore.put(self.store, f"{self.prefix}/{MANIFEST}", json.dumps(manifest).encode())
            gone = sorted(there - objects - {f"{self.prefix}/{MANIFEST}"})
            if gone:
                obstore.delete(self.store, gone)
        except (BaseError, OSError) as error:
            self._tell(error)
        else:
            self._sent, self.away = now, False

    def remove(self) -> None:
        """Removes everything of the run from the store, the manifest first."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            there = {str(item["path"]) for item in obstore.list(self.store, prefix=self.prefix).collect()}
            manifest = f"{self.prefix}/{MANIFEST}"
            for part in ([manifest] if manifest in there else [], sorted(there - {manifest})):
                if part:
                    obstore.delete(self.store, part)
        except (BaseError, OSError) as error:
            self._tell(error)

    def _get(self, sha: str) -> bytes:
        import obstore

        if len(sha) != 64 or not sha.isalnum():
            raise ValueError("a file has no sha256")
        data = bytes(obstore.get(self.store, f"{self.prefix}/{sha}").bytes())
        if hashlib.sha256(data).hexdigest() != sha:
            raise ValueError(f"{sha[:12]} is damaged")
        return data

    def _place(self, name: str) -> Path:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or not _travels(path.name):
            raise ValueError(f"{name} is no checkpoint")
        return self.folder / path

    def _local(self) -> list[tuple[str, Path, Any]]:
        """Name, path and state of what travels, oldest first."""
        found = []
        for path in self.folder.rglob("*"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if path.is_file() and _travels(path.name) and stat.st_size <= LARGEST_BYTES:
                found.append((path.relative_to(self.folder).as_posix(), path, stat))
        return sorted(found, key=lambda each: (each[2].st_mtime_ns, each[0]))

    def _tell(self, error: Exception) -> None:
        self.away = True
        if not self._told:
            self._told = True
            log.warning("Checkpoints do not travel now, training goes on: %s", stores.store_error(SETTING, error))


def _travels(name: str) -> bool:
    return not name.endswith(_STAYING_SUFFIXES) and name not in _STAYING_NAMES and ".new" not in name
