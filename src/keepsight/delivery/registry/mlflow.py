"""A registry in MLflow: bundles are versions of a registered model, the live one has the alias ``champion``.

MLflow cannot move an alias only if it stands where one thinks: of two runners that release within the same second both
may succeed, and the later one stays. Let your CI run one at a time for a project, or use a bucket.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keepsight.delivery.mlflow.store import BUNDLE_TAG, CHAMPION, KEY_TAG, NUMBER_TAG, MlflowStore
from keepsight.delivery.registry import Candidate, RegisteredBundle, Release, another_champion
from keepsight.errors import BadInputError, ConflictError, IntegrityError, NotFoundError, SettingsError

SCHEME = "mlflow"
RECORD_TAG = "keepsight.release"
RELEASED_TAG = "keepsight.released"
# Tags hold at most 100,000 characters; the whole record stands among the files of the version's run.
MOST_FACTS = ("run", "revision", "dataset", "pictures", "recipe")


def address(url: str, *, mlflow_url: str | None) -> str:
    """Where ``registry.url`` points: ``mlflow`` means ``mlflow.url``, ``mlflow+URL`` another address.

    Raises:
        SettingsError: It is ``mlflow``, and ``mlflow.url`` is not set.
    """
    found = mlflow_url if url == SCHEME else url.removeprefix(f"{SCHEME}+")
    if not found:
        raise SettingsError(
            "registry.url is mlflow, but no MLflow is named.",
            expected="the setting mlflow.url, or registry.url: mlflow+https://host.",
            do="Set one of them in keepsight.yaml, or KEEPSIGHT_MLFLOW_URL in the environment.",
        )
    return found


class MlflowRegistry:
    """A :class:`keepsight.delivery.registry.Registry` in MLflow."""

    def __init__(self, url: str, *, root: Path, clock: Callable[[], float] = time.time) -> None:
        self._store = MlflowStore(url, root=root)
        self._clock = clock

    def champion(self, project: str) -> RegisteredBundle | None:
        """The live model, verified; None where none was released yet."""
        version = self._store.alias(project, CHAMPION)
        if version is None:
            return None
        last = _releases(version)[-1:]
        if not last:
            raise IntegrityError(
                f"The champion of {project} in MLflow (version {version.version}) was not released by Keepsight.",
                expected="a version that `keepsight ci` stored.",
                do="Remove the alias champion, or use another registry.url than the one that is mirrored to.",
            )
        return RegisteredBundle(
            project=project,
            number=int(last[0]["number"]),
            bundle=self._store.read_bundle(version),
            splits=json.loads(self._store.read_text(version, "splits.json")),
            actor=last[0]["actor"],
            reason=last[0]["reason"],
            released_at=float(last[0]["at"]),
        )

    def push(self, project: str, release: Release, *, actor: str, reason: str) -> int | None:
        """Stores a run's model; one that its gate lets pass becomes the champion, and its number is returned."""
        digest = release.bundle.digest
        version = self._store.version_of(project, digest)
        if version is None:
            version = self._add(project, release, actor=actor, reason=reason)
        if release.decision != "deploy":
            return None
        return self._release(project, version, expected=release.expected, actor=actor, reason=reason, kind="promote")

    def candidates(self, project: str) -> list[Candidate]:
        """What was pushed and is not live, newest first."""
        live = self._live(project)
        found = [_candidate(version) for version in self._store.versions(project) if RECORD_TAG in version.tags]
        return sorted((item for item in found if item.digest != live), key=lambda item: -item.pushed_at)

    def approve(self, project: str, digest: str, *, actor: str, reason: str) -> int:
        """Makes a stored model the champion because a person says so; its number."""
        if not reason.strip():
            raise BadInputError(
                "There is no reason.", expected="why you decide in the gate's stead.", do="Say it (--reason)."
            )
        live = self._live(project)
        if live is not None and digest and live.startswith(digest):
            raise ConflictError(
                f"{live[:12]} of {project} is live already.", expected="another model.", do="Nothing needs doing."
            )
        every = self.candidates(project)
        found = [item for item in every if digest and item.digest.startswith(digest)]
        if len(found) > 1:
            raise ConflictError(f"Several models begin with {digest}.", expected="one.", do="Give more letters.")
        if not found:
            raise NotFoundError.among(f"candidate of {project}", digest, [item.digest[:12] for item in every])
        version = self._store.version_of(project, found[0].digest)
        if _releases(version):
            expected, kind = live, "rollback"
        else:
            expected, kind = found[0].expected, "promote" if found[0].decision == "deploy" else "override"
        return self._release(project, version, expected=expected, actor=actor, reason=reason.strip(), kind=kind)

    def _add(self, project: str, release: Release, *, actor: str, reason: str) -> Any:
        record = {
            "digest": release.bundle.digest,
            "decision": release.decision,
            "expected": release.expected,
            "actor": actor,
            "reason": reason,
            "pushed_at": self._clock(),
            "facts": dict(release.facts),
        }
        key = f"release-{release.bundle.digest}"
        run = self._store.find_run(project, key)
        if run is None:
            experiment = self._store.experiment(project)
            with self._store.told():
                run = self._store.client.create_run(experiment, tags={KEY_TAG: key}, run_name=f"{project} release")
        files = {
            "splits.json": _text(dict(sorted(release.splits.items()))),
            "report.md": release.report,
            "release.json": _text(record),
        }
        self._store.write_files(run, files, release.bundle)
        with self._store.told():
            self._store.client.set_terminated(run.info.run_id, status="FINISHED")
        short = {**record, "facts": {name: release.facts[name] for name in MOST_FACTS if name in release.facts}}
        # With the version: what is listed is complete.
        return self._store.add_version(
            project, run, {BUNDLE_TAG: release.bundle.digest, RECORD_TAG: json.dumps(short, default=str)}
        )

    def _live(self, project: str) -> str | None:
        version = self._store.alias(project, CHAMPION)
        return None if version is None else version.tags.get(BUNDLE_TAG)

    def _release(self, project: str, version: Any, *, expected: str | None, actor: str, reason: str, kind: str) -> int:
        digest, live = version.tags[BUNDLE_TAG], self._live(project)
        every = [entry["number"] for each in self._store.versions(project) for entry in _releases(each)]
        if live == digest:
            return int(_releases(version)[-1]["number"])  # An earlier attempt came so far.
        if live != expected:
            raise another_champion(project, expected=expected, found=live)
        number = 1 + max(every, default=0)
        entry = {
            "number": number,
            "previous": live,
            "kind": kind,
            "actor": actor,
            "reason": reason,
            "at": self._clock(),
        }
        # The alias last: what it names says who released it.
        entries = json.dumps([*_releases(version), entry])
        self._store.tag_version(project, version, {RELEASED_TAG: entries, NUMBER_TAG: str(number)})
        self._store.set_alias(project, CHAMPION, version)
        return number


def _releases(version: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(version.tags.get(RELEASED_TAG, "[]"))
    return found


def _candidate(version: Any) -> Candidate:
    return Candidate(**json.loads(version.tags[RECORD_TAG]))


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, default=str) + "\n"
