"""Writes entries and aliases into MLflow, so often as one likes: what is there already stays as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keepsight.delivery.mlflow.entry import MAX_DIGEST_CHARS, Entry
from keepsight.delivery.mlflow.store import BUNDLE_TAG, CHALLENGER, CHAMPION, KEY_TAG, NUMBER_TAG, MlflowStore
from keepsight.runtime.bundle import Bundle

# Set last: a run without it was cut off while it was written, and is written again.
COMPLETE_TAG = "keepsight.mirrored"
# What one request to MLflow may hold.
MOST_METRICS, MOST_PARAMS = 900, 90


def write(store: MlflowStore, entry: Entry, *, register: bool) -> str:
    """Writes a run, its files and its model; MLflow's id of the run.

    Args:
        store: Where to.
        entry: What.
        register: Whether its model becomes a version of the registered model.

    Raises:
        StorageError: MLflow cannot be reached or written.
    """
    run = store.find_run(entry.project, entry.key)
    if run is None:
        experiment = store.experiment(entry.project)
        with store.told():
            run = store.client.create_run(
                experiment,
                start_time=_ms(entry.started_at),
                tags={KEY_TAG: entry.key, **entry.tags},
                run_name=entry.name,
            )
    if run.data.tags.get(COMPLETE_TAG) != "yes":
        _log(store, run.info.run_id, entry)
        store.write_files(run, entry.files, None if entry.bundle is None else without_reference(entry.bundle))
        with store.told():
            store.client.set_terminated(run.info.run_id, status=entry.status, end_time=_ms(entry.ended_at))
            store.client.set_tag(run.info.run_id, COMPLETE_TAG, "yes")
    if register and entry.bundle is not None and store.version_of(entry.project, entry.bundle.digest) is None:
        store.add_version(entry.project, run, {BUNDLE_TAG: entry.bundle.digest, NUMBER_TAG: str(entry.model_number)})
    return str(run.info.run_id)


def aliases(store: MlflowStore, project: str, *, champion: str | None, challenger: str | None) -> dict[str, Any]:
    """Points ``champion`` and ``challenger`` to the versions of these bundles; which of them moved, and where to."""
    moved: dict[str, Any] = {}
    for alias, digest in ((CHAMPION, champion), (CHALLENGER, challenger)):
        version = None if digest is None else store.version_of(project, digest)
        if store.set_alias(project, alias, version):
            moved[alias] = None if version is None else str(version.version)
    return moved


def without_reference(bundle: Bundle) -> Bundle:
    """The bundle without the vectors of single pictures: what is erased here must not live on there."""
    return Bundle.create(
        bundle.info, model=bundle.model(), int8_model=bundle.model("int8") if "int8" in bundle.variants else None
    )


def _log(store: MlflowStore, run_id: str, entry: Entry) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    at = _ms(entry.ended_at)
    metrics = [Metric(name, value, at, 0) for name, value in entry.metrics.items()]
    params = [Param(name, value) for name, value in entry.params.items()]
    with store.told():
        store.client.log_batch(run_id, metrics=metrics[:MOST_METRICS], params=params[:MOST_PARAMS])
        for start in range(MOST_METRICS, len(metrics), MOST_METRICS):
            store.client.log_batch(run_id, metrics=metrics[start : start + MOST_METRICS])
        for start in range(MOST_PARAMS, len(params), MOST_PARAMS):
            store.client.log_batch(run_id, params=params[start : start + MOST_PARAMS])
        if entry.dataset is not None:
            version, digest = entry.dataset
            dataset = Dataset(
                name=f"{entry.project}@{version}",
                digest=digest[:MAX_DIGEST_CHARS],
                source_type="keepsight",
                source=_json({"project": entry.project, "version": version, "digest": digest}),
            )
            tag = InputTag("mlflow.data.context", "training")
            store.client.log_inputs(run_id, [DatasetInput(dataset, [tag])])


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)
