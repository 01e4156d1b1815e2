"""What bundles answer on a part's pictures: from kept vectors or from the pictures, alike either way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from keepsight.data import versions
from keepsight.data.adding import NewSample, add
from keepsight.errors import DataError
from keepsight.runtime import decode
from keepsight.runtime.bundle import Bundle
from keepsight.runtime.session import open_session
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.tasks.classification import probabilities
from keepsight.training import evaluation, material
from keepsight.training.material import Part
from tests.tiny import backbone, bundle, picture, workspace_with

CLASSES = ("a", "b", "c")


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with workspace_with(tmp_path / "ws") as opened:
        items = [
            NewSample(
                picture(seed, kind="JPEG" if seed % 3 else "PNG"),
                f"{seed}",
                {"label": "ab"[seed % 2]},
                "test" if seed < 24 else "train",
            )
            for seed in range(30)
        ]
        add(opened, "shop", items, author="ana")
        versions.commit(opened, "shop", message="m", author="ana")
        yield opened


@pytest.fixture
def test_part(ws: Workspace) -> Part:
    return material.load(ws, "shop", 1, backbone(), progress=lambda _: None)["test"]


def answers(ws: Workspace, made: Bundle, part: Part) -> evaluation.Answers:
    return evaluation.answers(ws, made, part, backbone=backbone(), progress=lambda _: None)


def lose(ws: Workspace, part: Part, place: int) -> None:
    """The object of a picture is gone from the store."""
    where = schema.blob.c.id == part.samples[place].picture_id
    with ws.database.read() as connection:
        location = connection.scalar(sa.select(schema.blob.c.location).where(where))
    assert location is not None
    ws.blobs.discard(location)


def test_vectors_and_pictures_give_the_same_answers(ws: Workspace, test_part: Part) -> None:
    quick, whole = bundle(1, labels=CLASSES), bundle(1, labels=CLASSES, extra={})
    assert evaluation.shares_features(quick, backbone())
    assert not evaluation.shares_features(whole, backbone())
    first, second = answers(ws, quick, test_part), answers(ws, whole, test_part)
    labels = [[output.label for output in found.outputs if output is not None] for found in (first, second)]
    assert labels[0] == labels[1]
    assert len(labels[0]) == 24
    tables = [probabilities(found.predictions, CLASSES) for found in (first, second)]
    assert np.abs(tables[0] - tables[1]).max() < 1e-2
    assert np.allclose(tables[1].sum(axis=1), 1.0, atol=1e-4)


def test_the_tail_of_the_graph_gives_the_logits_of_the_whole(ws: Workspace, test_part: Part) -> None:
    made = bundle(2, labels=CLASSES)
    images = []
    for sample in test_part.samples:
        image, _ = decode.read(ws.blobs.get(sample.picture_id), min_side=8)
        images.append(backbone().preprocessing.apply(image))
    whole = open_session(made.model()).run(["logits"], {"image": np.stack(images)})[0]
    tail = open_session(evaluation.tail(made.model(), outputs=("logits",)))
    quick = tail.run(["logits"], {"features": test_part.features})[0]
    assert np.abs(whole - quick).max() < 1e-2
    assert (whole.argmax(axis=1) == quick.argmax(axis=1)).all()


@pytest.mark.parametrize("change", [{"digest": "0" * 64}, {"name": "other"}])
def test_vectors_of_another_network_are_not_used(change: Mapping[str, Any]) -> None:
    other = replace(backbone(), **change)
    assert evaluation.shares_features(bundle(), other) == ("digest" not in change)


def test_a_class_that_the_model_lacks_counts_as_wrong(ws: Workspace, test_part: Part) -> None:
    found = answers(ws, bundle(labels=("x", "y")), test_part)
    assert not found.right(test_part).any()
    assert not found.scores(test_part).any()


@pytest.mark.parametrize("way", ["erased", "gone"])
def test_a_picture_that_cannot_be_read_any_more_counts_as_wrong(ws: Workspace, test_part: Part, way: str) -> None:
    whole = bundle(1, extra={})
    before = answers(ws, whole, test_part)
    truth = replace(
        test_part,
        samples=tuple(
            replace(sample, value={"label": output.label})
            for sample, output in zip(test_part.samples, before.outputs, strict=True)
            if output is not None
        ),
    )
    if way == "gone":
        lose(ws, test_part, 3)
    else:
        with ws.database.write() as connection:
            ws.blobs.erase(connection, test_part.samples[3].picture_id, now=0.0)
    after = answers(ws, whole, test_part)
    assert after.outputs[3] is None
    assert after.right(truth).tolist() == [place != 3 for place in range(24)]
    assert after.scores(truth).tolist() == [float(place != 3) for place in range(24)]
    # Where nothing is known every class is as likely.
    assert probabilities(after.predictions, ("a", "b"))[3].tolist() == [0.5, 0.5]
    assert evaluation.median_latency_ms(ws, whole, test_part) > 0
    with pytest.raises(DataError):
        evaluation.median_latency_ms(ws, whole, test_part.take(np.array([3])))


def test_no_pictures_no_answers(ws: Workspace, test_part: Part) -> None:
    nothing = answers(ws, bundle(), test_part.take(np.array([], np.int64)))
    assert nothing.predictions == []
