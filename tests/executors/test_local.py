"""Work on this machine: in order, bounded, and one bad item costs itself alone."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepsight import config, executors
from keepsight.errors import BundleError, MissingExtraError, NotFoundError, PictureError
from keepsight.executors.local import LocalExecutor

from .targets import Doubling, Mistaken, Refusing


@pytest.fixture
def local() -> Iterator[LocalExecutor]:
    with LocalExecutor(3) as executor:
        yield executor


@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_results_are_in_order(local: LocalExecutor, chunk: int) -> None:
    seen: list[int] = []
    found = list(local.map(Doubling, range(100), shared={"factor": b"3"}, chunk=chunk, on_done=seen.append))
    assert [item for item in found if item != found[13]] == [3 * number for number in range(100) if number != 13]
    assert isinstance(found[13], PictureError), "its error stands in its place"
    assert seen == list(range(1, 101))
    assert list(local.map(Doubling, [])) == []


def test_items_are_taken_only_as_results_are_fetched(local: LocalExecutor) -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        for number in itertools.count(20):
            taken.append(number)
            yield number

    results = local.map(Doubling, endless(), chunk=4)
    assert taken == []
    for number in range(20, 220):
        assert next(results) == 2 * number
        assert len(taken) <= number - 20 + 1 + 2 * 3 * 4


def test_a_choice_may_depend_on_results(local: LocalExecutor) -> None:
    """As a search does: at most two trials for each thread are chosen before the first result is known."""
    known: list[int] = []
    chosen_with: list[int] = []

    def choose() -> Iterator[int]:
        for number in range(30, 60):
            chosen_with.append(len(known))
            yield number

    for result in local.map(Doubling, choose()):
        assert isinstance(result, int)
        known.append(result)
    assert max(place - count for place, count in enumerate(chosen_with)) <= 2 * 3
    assert chosen_with[-1] >= 30 - 1 - 2 * 3


def test_items_are_loaded_where_they_lie(local: LocalExecutor) -> None:
    def load(name: str) -> int:
        if name == "x":
            raise NotFoundError.among("number", name, ["1", "2"])
        return int(name)

    found = list(local.map(Doubling, ["1", "x", "2"], load=load))
    assert found[0::2] == [2, 4]
    assert isinstance(found[1], NotFoundError)


def test_what_fails_for_all_ends_the_map(local: LocalExecutor) -> None:
    with pytest.raises(BundleError):
        list(local.map(Refusing, range(3)))
    results = local.map(Mistaken, [1, 2, 0, 4])
    assert [next(results), next(results)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_work_must_be_found_by_name(local: LocalExecutor) -> None:
    """Else it would work here and fail on a cluster."""
    with pytest.raises(TypeError, match="top of a module"):
        local.map(lambda shared: lambda item: item, [1])


def test_threads_end(tmp_path: Path) -> None:
    before = threading.active_count()
    with LocalExecutor(2) as executor:
        results = executor.map(Doubling, itertools.count(20))
        next(results)
    assert threading.active_count() == before


def test_the_settings_choose(tmp_path: Path) -> None:
    (tmp_path / "keepsight.yaml").write_text("machine: {threads: 3}\nprojects: {}\n")
    with executors.of(config.load(tmp_path, environment={})) as executor:
        assert executor.text == "this machine, 3 threads"


def test_ray_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keepsight.yaml").write_text("executor: ray\nprojects: {}\n")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError) as caught:
        executors.of(config.load(tmp_path, environment={}))
    assert "keepsight[ray]" in caught.value.do
