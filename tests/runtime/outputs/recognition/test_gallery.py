"""A gallery: exact search, changes in place, readers that never wait, and its bytes."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from keepsight.errors import BundleError
from keepsight.runtime.outputs.recognition import gallery as module
from keepsight.runtime.outputs.recognition.calibration import Calibration
from keepsight.runtime.outputs.recognition.gallery import Entry, Gallery

DIM = 16
CALIBRATION = Calibration(false_accepts=0.01, usual=0.5)


def vector(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)


def unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values / np.linalg.norm(values)


def filled(count: int) -> Gallery:
    gallery = Gallery(DIM, CALIBRATION)
    gallery.put([Entry(f"n{number}", f"s{number}", vector(number)) for number in range(count)])
    return gallery


def test_the_most_similar_name_comes_first() -> None:
    gallery = filled(50)
    found = gallery.search(unit(vector(7)), top=3)
    assert found[0].name == "n7"
    assert found[0].similarity == pytest.approx(1.0, abs=1e-3)
    every = {f"n{number}": float(unit(vector(number)) @ unit(vector(7))) for number in range(50)}
    best = sorted(every, key=lambda name: -every[name])[:3]
    assert [item.name for item in found] == best
    assert len(gallery.search(unit(vector(7)), top=1000)) == 50


def test_a_name_is_the_mean_of_its_views() -> None:
    gallery = filled(3)
    gallery.put([Entry("n1", "another", vector(99))])
    centre = unit(unit(vector(1)) + unit(vector(99)))
    found = {item.name: item.similarity for item in gallery.search(unit(vector(5)), top=3)}
    assert found["n1"] == pytest.approx(float(centre @ unit(vector(5))), abs=2e-3)
    assert gallery.names() == {"n0": 1, "n1": 2, "n2": 1}
    assert (len(gallery), gallery.people) == (4, 3)


def test_what_is_dropped_is_gone_and_can_come_back_under_another_name() -> None:
    gallery = filled(3)
    gallery.drop(["s1", "never there"])
    assert "n1" not in [item.name for item in gallery.search(unit(vector(1)), top=10)]
    assert gallery.people == 2
    assert not gallery.centres()[1].any()
    gallery.put([Entry("other", "s1", vector(1))])
    assert gallery.search(unit(vector(1)), top=1)[0].name == "other"
    gallery.put([Entry("n1", "s1", vector(1))])
    assert gallery.search(unit(vector(1)), top=1)[0].name == "n1"
    assert "other" not in gallery.names()


def test_nobody_is_known_to_an_empty_gallery() -> None:
    gallery = Gallery(DIM, CALIBRATION)
    assert gallery.search(unit(vector(1)), top=5) == []
    assert Gallery.read(gallery.to_bytes()).dim == DIM


def test_blocks_fill_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 8)
    gallery = filled(30)
    assert [gallery.search(unit(vector(number)), top=1)[0].name for number in range(30)] == [
        f"n{number}" for number in range(30)
    ]


def test_it_survives_as_bytes() -> None:
    gallery = filled(5)
    gallery.put([Entry("n1", "more", vector(11))])
    again = Gallery.read(gallery.to_bytes())
    assert again.to_bytes() == gallery.to_bytes()
    assert again.names() == gallery.names()
    assert again.calibration.usual == 0.5
    with pytest.raises(BundleError, match="cannot be read"):
        Gallery.read(b"nothing")


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(BundleError, match=r"shape \(3,\)"):
        filled(2).put([Entry("x", "x", np.ones(3, np.float32))])


def test_readers_go_on_while_it_changes() -> None:
    gallery = filled(200)
    stop, troubles = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            found = gallery.search(unit(vector(7)), top=5)
            if found[0].name != "n7":
                troubles.append(found[0].name)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1000, 1400):
        gallery.put([Entry(f"n{number}", f"s{number}", vector(number))])
        gallery.drop([f"s{number - 100}"] if number >= 1100 else [])
    stop.set()
    for reader in readers:
        reader.join()
    assert troubles == []
    assert gallery.people == 300


class Some:
    """A shortlist that knows what it was made of and nothing since."""

    def __init__(self, centres: NDArray[np.float32]) -> None:
        self.rows = len(centres)
        self._centres = centres

    def best(self, query: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        return np.argsort(-(self._centres @ query))[:count]


def test_an_index_answers_the_same_and_knows_what_changed_since() -> None:
    gallery = filled(300)
    centres = gallery.centres()
    gallery.use(Some(centres), made_of=centres)
    assert gallery.beyond == 0
    assert gallery.search(unit(vector(7)), top=1)[0].name == "n7"
    gallery.put([Entry("new", "new", vector(1000)), Entry("n5", "again", vector(2000))])
    gallery.drop(["s7"])
    assert gallery.beyond == 3
    assert gallery.search(unit(vector(1000)), top=1)[0].name == "new"
    assert "n7" not in [item.name for item in gallery.search(unit(vector(7)), top=20)]
    changed = unit(unit(vector(5)) + unit(vector(2000)))
    assert gallery.search(changed, top=1)[0].name == "n5"
    # What changed between the copy and its use is found, too.
    gallery.use(Some(centres), made_of=centres)
    assert gallery.beyond == 3
