"""A registry in MLflow keeps the promises of one in a folder, but for releases in the same second."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepsight.delivery.mlflow.store import MlflowStore
from keepsight.delivery.registry import Decision, Registry, Release, open_registry
from keepsight.errors import BadInputError, ConflictError, IntegrityError, NotFoundError, SettingsError
from tests import tiny
from tests.delivery.mlflow import sql

pytestmark = [
    pytest.mark.mlflow,
    pytest.mark.usefixtures("mlflow_installed"),
]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(f"mlflow+{sql.make(tmp_path)}", root=tmp_path)


def release(seed: int, *, decision: Decision = "deploy", expected: int | None = None) -> Release:
    return Release(
        bundle=tiny.bundle(seed),
        decision=decision,
        expected=None if expected is None else tiny.bundle(expected).digest,
        report=f"# Model {seed}",
        splits={"ab" * 32: "test", "cd" * 32: "train"},
        facts={"run": f"run {seed}", "gate": {"checks": []}},
    )


def push(registry: Registry, made: Release) -> int | None:
    return registry.push("shop", made, actor="ana", reason="new pictures")


def test_what_is_released_is_the_champion_of_the_next_run(registry: Registry, tmp_path: Path) -> None:
    assert registry.champion("shop") is None
    assert push(registry, release(1)) == 1
    assert push(registry, release(1)) == 1
    assert push(registry, release(2, expected=1)) == 2
    found = open_registry("mlflow", root=tmp_path, mlflow_url=sql.URL).champion("shop")
    assert found is not None
    assert (found.number, found.digest, found.actor) == (2, tiny.bundle(2).digest, "ana")
    assert found.splits == {"ab" * 32: "test", "cd" * 32: "train"}
    assert registry.champion("other") is None
    with pytest.raises(ConflictError, match="compared with"):
        push(registry, release(3, expected=1))
    assert {item.digest for item in registry.candidates("shop")} == {tiny.bundle(1).digest, tiny.bundle(3).digest}


def test_a_person_approves_and_goes_back(registry: Registry) -> None:
    push(registry, release(1))
    assert push(registry, release(2, decision="ask", expected=1)) is None
    [waiting] = registry.candidates("shop")
    assert (waiting.decision, waiting.facts) == ("ask", {"run": "run 2"})
    with pytest.raises(BadInputError, match="no reason"):
        registry.approve("shop", waiting.digest[:10], actor="ben", reason=" ")
    with pytest.raises(NotFoundError):
        registry.approve("shop", "zz", actor="ben", reason="looked at them")
    assert registry.approve("shop", waiting.digest[:10], actor="ben", reason="looked at them") == 2
    assert registry.approve("shop", tiny.bundle(1).digest, actor="ben", reason="complaints") == 3
    champion = registry.champion("shop")
    assert champion is not None
    assert (champion.digest, champion.reason) == (tiny.bundle(1).digest, "complaints")


def test_a_champion_that_nobody_released_is_told(registry: Registry, tmp_path: Path) -> None:
    push(registry, release(1, decision="ask"))
    store = MlflowStore(sql.URL, root=tmp_path)
    store.set_alias("shop", "champion", store.versions("shop")[0])
    with pytest.raises(IntegrityError, match="not released by Keepsight"):
        registry.champion("shop")


def test_no_address_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no MLflow is named"):
        open_registry("mlflow", root=tmp_path)
    with pytest.raises(SettingsError, match="no address"):
        open_registry("mlflow+nonsense", root=tmp_path)
