"""Leases: one holder at a time, and a higher fence for each new holding."""

from __future__ import annotations

from keepsight.store import leases
from keepsight.store.workspace import Workspace


def test_one_holder_until_it_expires(workspace: Workspace) -> None:
    def take(holder: str, now: float) -> int | None:
        return leases.acquire(workspace.database, "leader", holder=holder, now=now, ttl_s=5)

    assert take("a", 0) == 1
    assert take("b", 4) is None
    assert take("a", 4) == 1  # renewed
    assert take("b", 8) is None
    assert leases.holder_of(workspace.database, "leader", now=8) == "a"
    assert take("b", 9.5) == 2
    assert take("a", 10) is None


def test_a_holder_that_slept_over_its_lease_gets_a_new_fence(workspace: Workspace) -> None:
    assert leases.acquire(workspace.database, "leader", holder="a", now=0, ttl_s=5) == 1
    assert leases.acquire(workspace.database, "leader", holder="a", now=6, ttl_s=5) == 2


def test_release_lets_the_next_in_at_once(workspace: Workspace) -> None:
    leases.acquire(workspace.database, "leader", holder="a", now=0, ttl_s=100)
    leases.release(workspace.database, "leader", holder="b", now=1)
    assert leases.holder_of(workspace.database, "leader", now=1) == "a"
    leases.release(workspace.database, "leader", holder="a", now=1)
    assert leases.holder_of(workspace.database, "leader", now=1) is None
    assert leases.acquire(workspace.database, "leader", holder="b", now=1, ttl_s=5) == 2


def test_leases_of_different_names_are_independent(workspace: Workspace) -> None:
    assert leases.acquire(workspace.database, "x", holder="a", now=0, ttl_s=5) == 1
    assert leases.acquire(workspace.database, "y", holder="b", now=0, ttl_s=5) == 1
