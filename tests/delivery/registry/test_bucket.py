"""A registry in a folder: nothing half-released, nothing overwritten, and of two runners one is told."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keepsight.delivery.registry import Decision, Registry, Release, open_registry
from keepsight.errors import BadInputError, ConflictError, IntegrityError, NotFoundError, SettingsError
from tests import tiny


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry("models", root=tmp_path)


def release(seed: int, *, decision: Decision = "deploy", expected: int | None = None) -> Release:
    return Release(
        bundle=tiny.bundle(seed),
        decision=decision,
        expected=None if expected is None else tiny.bundle(expected).digest,
        report=f"# Model {seed}",
        splits={"ab" * 32: "test", "cd" * 32: "train"},
        facts={"run": f"run {seed}"},
    )


def push(registry: Registry, made: Release) -> int | None:
    return registry.push("shop", made, actor="ana", reason="new pictures")


def test_what_is_released_is_the_champion_of_the_next_run(registry: Registry, tmp_path: Path) -> None:
    assert registry.champion("shop") is None
    assert push(registry, release(1)) == 1
    assert push(registry, release(2, expected=1)) == 2
    found = open_registry(f"file://{tmp_path / 'models'}", root=Path("/nowhere")).champion("shop")
    assert found is not None
    assert (found.number, found.digest, found.actor) == (2, tiny.bundle(2).digest, "ana")
    assert found.bundle.model() == tiny.bundle(2).model()
    assert found.splits == {"ab" * 32: "test", "cd" * 32: "train"}
    assert registry.champion("other") is None


def test_a_model_that_was_compared_with_an_older_champion_waits_as_a_candidate(registry: Registry) -> None:
    push(registry, release(1))
    push(registry, release(2, expected=1))
    with pytest.raises(ConflictError, match="compared with"):
        push(registry, release(3, expected=1))
    champion = registry.champion("shop")
    assert champion is not None
    assert champion.digest == tiny.bundle(2).digest
    assert {item.digest for item in registry.candidates("shop")} == {tiny.bundle(1).digest, tiny.bundle(3).digest}


def test_of_runners_that_release_at_once_one_wins(registry: Registry) -> None:
    push(registry, release(0))

    def attempt(seed: int) -> bool:
        try:
            push(registry, release(seed, expected=0))
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(attempt, range(1, 7)))
    assert won.count(True) == 1
    champion = registry.champion("shop")
    assert champion is not None
    assert (champion.number, champion.digest) == (2, tiny.bundle(1 + won.index(True)).digest)


def test_pushing_again_after_a_cut_changes_nothing(registry: Registry) -> None:
    assert push(registry, release(1)) == 1
    assert push(registry, release(1)) == 1
    champion = registry.champion("shop")
    assert champion is not None
    assert champion.number == 1


def test_a_person_approves_what_the_gate_asked_about(registry: Registry) -> None:
    push(registry, release(1))
    assert push(registry, release(2, decision="ask", expected=1)) is None
    [waiting] = registry.candidates("shop")
    assert (waiting.decision, waiting.facts) == ("ask", {"run": "run 2"})
    with pytest.raises(BadInputError, match="no reason"):
        registry.approve("shop", waiting.digest[:10], actor="ben", reason=" ")
    with pytest.raises(NotFoundError):
        registry.approve("shop", "zz", actor="ben", reason="looked at them")
    assert registry.approve("shop", waiting.digest[:10], actor="ben", reason="looked at them") == 2
    with pytest.raises(ConflictError, match="live already"):
        registry.approve("shop", waiting.digest[:10], actor="ben", reason="again")
    # What was live before may come back, whatever it was compared with.
    assert registry.approve("shop", tiny.bundle(1).digest, actor="ben", reason="complaints") == 3
    champion = registry.champion("shop")
    assert champion is not None
    assert (champion.digest, champion.reason) == (tiny.bundle(1).digest, "complaints")


def test_an_approval_of_what_was_compared_with_another_is_refused(registry: Registry) -> None:
    push(registry, release(1))
    push(registry, release(2, decision="ask", expected=1))
    push(registry, release(3, expected=1))
    with pytest.raises(ConflictError, match="compared with"):
        registry.approve("shop", tiny.bundle(2).digest, actor="ben", reason="looked at them")


def test_a_damaged_registry_is_told(registry: Registry, tmp_path: Path) -> None:
    push(registry, release(1))
    folder = tmp_path / "models" / "shop" / "bundles" / tiny.bundle(1).digest
    (folder / "bundle.zip").write_bytes(tiny.bundle(2).zip_bytes())
    with pytest.raises(IntegrityError, match="another one"):
        registry.champion("shop")
    (folder / "bundle.zip").unlink()
    with pytest.raises(IntegrityError, match=r"no .*bundle\.zip"):
        registry.champion("shop")
    entry = tmp_path / "models" / "shop" / "champions" / "00000001.json"
    assert json.loads(entry.read_text())["kind"] == "promote"
    entry.write_text("[")
    with pytest.raises(IntegrityError, match="cannot be read"):
        registry.champion("shop")


@pytest.mark.parametrize("url", ["ftp://host/models", "nothing://x"])
def test_an_unknown_kind_of_store_is_told(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"registry\.url"):
        open_registry(url, root=tmp_path)
