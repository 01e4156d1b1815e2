"""A registry in a folder or a bucket.

``PROJECT/bundles/DIGEST/`` holds ``bundle.zip``, ``splits.json``, ``report.md`` and ``release.json``;
``PROJECT/champions/00000007.json`` names the bundle that the seventh release made live. The newest of these is the
champion. Each is written only if it is not there yet, which every store does atomically, folders too: of two runners
that release at once, one is told that the other was quicker. Nothing is ever overwritten, so the history stays.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from keepsight.delivery.registry import Candidate, RegisteredBundle, Release, another_champion
from keepsight.delivery.registry.stores import store_error
from keepsight.errors import BadInputError, ConflictError, IntegrityError, NotFoundError
from keepsight.runtime.bundle import Bundle

WHAT = "The registry"


class BucketRegistry:
    """A :class:`keepsight.delivery.registry.Registry` on an obstore store."""

    def __init__(self, store: Any, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    def champion(self, project: str) -> RegisteredBundle | None:
        """The live model, verified; None where none was released yet."""
        newest = self._newest(project)
        if newest is None:
            return None
        number, entry = newest
        digest = entry["bundle"]
        bundle = Bundle.from_bytes(self._read(_place(project, digest, "bundle.zip")))
        if bundle.digest != digest:
            raise IntegrityError(
                f"The registry's bundle {digest[:12]} of {project} is another one ({bundle.digest[:12]}).",
                expected="the bundle that was released.",
                do="Restore the object from a backup, or approve an earlier model.",
            )
        return RegisteredBundle(
            project=project,
            number=number,
            bundle=bundle,
            splits=self._json(_place(project, digest, "splits.json")),
            actor=entry["actor"],
            reason=entry["reason"],
            released_at=entry["at"],
        )

    def push(self, project: str, release: Release, *, actor: str, reason: str) -> int | None:
        """Stores a run's model; one that its gate lets pass becomes the champion, and its number is returned."""
        digest = release.bundle.digest
        record = Candidate(
            digest=digest,
            decision=release.decision,
            expected=release.expected,
            actor=actor,
            reason=reason,
            pushed_at=self._clock(),
            facts=dict(release.facts),
        )
        contents = {
            "bundle.zip": release.bundle.zip_bytes(),
            "splits.json": _json_bytes(dict(sorted(release.splits.items()))),
            "report.md": release.report.encode(),
            # The last: what is listed is complete.
            "release.json": _json_bytes(vars(record)),
        }
        for name, content in contents.items():
            self._create(_place(project, digest, name), content)
        if release.decision != "deploy":
            return None
        return self._release(project, digest, expected=release.expected, actor=actor, reason=reason, kind="promote")

    def candidates(self, project: str) -> list[Candidate]:
        """What was pushed and is not live, newest first."""
        newest = self._newest(project)
        live = None if newest is None else newest[1]["bundle"]
        paths = [path for path in self._list(f"{project}/bundles") if path.endswith("/release.json")]
        found = [Candidate(**self._json(path)) for path in paths]
        return sorted((item for item in found if item.digest != live), key=lambda item: -item.pushed_at)

    def approve(self, project: str, digest: str, *, actor: str, reason: str) -> int:
        """Makes a stored model the champion because a person says so; its number."""
        if not reason.strip():
            raise BadInputError(
                "There is no reason.", expected="why you decide in the gate's stead.", do="Say it (--reason)."
            )
        newest = self._newest(project)
        live = None if newest is None else newest[1]["bundle"]
        if live is not None and digest and live.startswith(digest):
            raise ConflictError(
                f"{live[:12]} of {project} is live already.", expected="another model.", do="Nothing needs doing."
            )
        candidate = self._find(project, digest)
        history = [entry["bundle"] for entry in self._history(project).values()]
        if candidate.digest in history:
            candidate, kind = replace(candidate, expected=live), "rollback"
        elif candidate.expected != live:
            raise another_champion(project, expected=candidate.expected, found=live)
        else:
            kind = "promote" if candidate.decision == "deploy" else "override"
        return self._release(
            project, candidate.digest, expected=candidate.expected, actor=actor, reason=reason.strip(), kind=kind
        )

    def _find(self, project: str, digest: str) -> Candidate:
        every = self.candidates(project)
        found = [item for item in every if digest and item.digest.startswith(digest)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConflictError(f"Several models begin with {digest}.", expected="one.", do="Give more letters.")
        raise NotFoundError.among(f"candidate of {project}", digest, [item.digest[:12] for item in every])

    def _release(self, project: str, digest: str, *, expected: str | None, actor: str, reason: str, kind: str) -> int:
        newest = self._newest(project)
        number, live = (0, None) if newest is None else (newest[0], newest[1]["bundle"])
        if live == digest:
            return number  # An earlier attempt came so far.
        if live != expected:
            raise another_champion(project, expected=expected, found=live)
        entry = {
            "bundle": digest,
            "previous": live,
            "kind": kind,
            "actor": actor,
            "reason": reason,
            "at": self._clock(),
        }
        if not self._create(_champion(project, number + 1), _json_bytes(entry)):
            found = self._json(_champion(project, number + 1))["bundle"]
            raise another_champion(project, expected=expected, found=found)
        return number + 1

    def _newest(self, project: str) -> tuple[int, dict[str, Any]] | None:
        numbers = self._numbers(project)
        return (numbers[-1], self._json(_champion(project, numbers[-1]))) if numbers else None

    def _history(self, project: str) -> dict[int, dict[str, Any]]:
        return {number: self._json(_champion(project, number)) for number in self._numbers(project)}

    def _numbers(self, project: str) -> list[int]:
        names = [path.rpartition("/")[2].removesuffix(".json") for path in self._list(f"{project}/champions")]
        return sorted(int(name) for name in names if name.isdigit())

    def _list(self, prefix: str) -> list[str]:
        try:
            return [str(item["path"]) for item in obstore.list(self._store, f"{prefix}/").collect()]
        except (BaseError, OSError) as error:
            raise store_error(WHAT, error) from error

    def _create(self, path: str, content: bytes) -> bool:
        """Whether it was written; False where it is there already."""
        try:
            obstore.put(self._store, path, content, mode="create")
        except AlreadyExistsError:
            return False
        except (BaseError, OSError) as error:
            raise store_error(WHAT, error) from error
        return True

    def _read(self, path: str) -> bytes:
        try:
            return bytes(obstore.get(self._store, path).bytes())
        except FileNotFoundError:
            raise IntegrityError(
                f"The registry has no {path}.", expected="every file of a release.", do="Restore it from a backup."
            ) from None
        except (BaseError, OSError) as error:
            raise store_error(WHAT, error) from error

    def _json(self, path: str) -> dict[str, Any]:
        try:
            found = json.loads(self._read(path))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise IntegrityError(
                f"{path} of the registry cannot be read.", expected="a JSON map.", do="Restore it from a backup."
            )
        return found


def _place(project: str, digest: str, name: str) -> str:
    return f"{project}/bundles/{digest}/{name}"


def _champion(project: str, number: int) -> str:
    return f"{project}/champions/{number:08d}.json"


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, default=str) + "\n").encode()
