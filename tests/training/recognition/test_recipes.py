"""The recipes of recognition on made-up vectors: trials, calibration, a metric head, and what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keepsight.errors import TrainingError
from keepsight.runtime.outputs.recognition.gallery import Gallery
from keepsight.training.recipes import Material, get
from keepsight.training.recognition import metric as heads
from keepsight.training.recognition import trials as trying
from tests import tiny

DIM = tiny.DIMENSIONS


def views(names: int, each: int, *, noise: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Views around a centre for each name."""
    random = np.random.default_rng(seed)
    of = np.repeat(np.arange(names), each)
    centres = random.standard_normal((names, DIM))
    return (centres[of] + noise * random.standard_normal((len(of), DIM))).astype(np.float32), of


def nuisance(names: int, each: int, *, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Views of one name differ much in eight directions that say nothing about it, as light and distance do."""
    random = np.random.default_rng(seed)
    vectors, of = views(names, each, noise=0.3, seed=seed)
    directions = random.standard_normal((8, DIM))
    return (vectors + random.standard_normal((len(of), 8)) @ directions * 1.2).astype(np.float32), of


def material(folder: Path, vectors: NDArray[np.float32], labels: list[str], **settings: Any) -> Material:
    names = tuple(sorted(set(labels) - {"unknown"}))
    places = {name: number for number, name in enumerate(names)}
    made = tiny.material(
        vectors,
        np.array([places.get(label, 0) for label in labels]),
        folder=folder,
        names=names,
        settings={"task": "recognition", **settings},
        keys=[f"s{number}" for number in range(len(labels))],
    )
    values = [{"subjects": [{"label": label}]} for label in labels]
    return Material(**{**vars(made), "task": "recognition", "values": values})


def test_a_view_is_compared_without_its_own_group() -> None:
    vectors = np.eye(4, DIM, dtype=np.float32)[[0, 0, 1, 2]]
    vectors[1, 1] = 1.0
    found = trying.run(vectors, np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2]))
    assert found.own[:2] == pytest.approx([1 / np.sqrt(2)] * 2, abs=1e-6)
    assert np.isnan(found.own[2:]).all(), "both views of the second name are one group"
    assert found.judged.tolist() == [True, True, False, False]
    assert found.others == 1


def test_strangers_pass_as_often_as_was_asked() -> None:
    vectors, of = views(40, 6, noise=1.0)
    found = trying.run(vectors, of, np.arange(len(of)))
    made = trying.calibrated(found, false_accepts=0.05, usual=0.5, people=40)
    assert (found.best >= made.threshold(40)).mean() <= 0.06
    confidence, right = trying.answered(found, made, people=40)
    assert right.mean() > 0.9
    assert abs(confidence.mean() - right.mean()) < 0.1


def test_a_metric_head_helps_names_that_it_has_not_seen() -> None:
    vectors, of = nuisance(60, 6)
    groups = np.arange(len(of))
    plain = trying.run(vectors, of, groups)
    found = heads.fit(vectors[of < 40], of[of < 40], groups[of < 40], seed=0)
    later = of >= 40
    through = trying.run(found.projection.apply(vectors[later]), of[later] - 40, groups[later])
    without = trying.run(vectors[later], of[later] - 40, groups[later])
    assert through.first.mean() > without.first.mean() + 0.05
    assert found.trials.first.mean() > plain.first.mean()
    assert found.shrinkage in heads.SHRINKAGES


def test_few_names_teach_no_metric_head() -> None:
    vectors, of = views(4, 5, noise=0.5)
    with pytest.raises(TrainingError, match="4 names with several views"):
        heads.fit(vectors, of, np.arange(len(of)), seed=0)


def test_the_gallery_is_everybody_with_a_name(tmp_path: Path) -> None:
    vectors, of = views(5, 4, noise=0.5)
    labels = [f"name {number}" for number in of]
    labels[0] = "unknown"
    trained = get("recognition", "gallery")(material(tmp_path, vectors, labels))
    gallery = Gallery.read(trained.parts["gallery.npz"])
    assert gallery.names() == {f"name {number}": 3 if number == 0 else 4 for number in range(5)}
    assert "s0" not in gallery.samples()
    assert trained.labels == tuple(f"name {number}" for number in range(5))
    assert trained.held_out.judged.sum() == 19
    assert trained.figures["rank1"] == 1.0
    assert trained.thresholds["accept"] == pytest.approx(gallery.threshold)
    assert trained.plan["strangers"] == 20
    assert trained.frozen


def test_auto_keeps_the_better_one(tmp_path: Path) -> None:
    vectors, of = nuisance(40, 6)
    labels = [f"n{number:02}" for number in of]
    better = get("recognition", "auto")(material(tmp_path, vectors, labels))
    assert better.plan["chosen"] == "metric"
    assert Gallery.read(better.parts["gallery.npz"]).people == 40
    again = get("recognition", "auto")(Material(**{**vars(material(tmp_path, vectors, labels)), "plan": better.plan}))
    assert again.model == better.model
    few, of = views(3, 4, noise=0.5)
    kept = get("recognition", "auto")(material(tmp_path, few, [f"n{number}" for number in of]))
    assert kept.plan["chosen"] == "gallery"


def test_nobody_at_all_is_a_model_too(tmp_path: Path) -> None:
    trained = get("recognition", "pretrained")(material(tmp_path, np.zeros((0, DIM), np.float32), []))
    gallery = Gallery.read(trained.parts["gallery.npz"])
    assert (gallery.people, gallery.dim) == (0, DIM)
    assert trained.labels == ()
