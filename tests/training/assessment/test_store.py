"""A model's evaluation is kept, replaced, and forgets erased pictures, on either database."""

from __future__ import annotations

from typing import Any

from keepsight.data.adding import NewSample, add
from keepsight.data.erase import erase_picture
from keepsight.store import schema
from keepsight.store.workspace import Workspace
from keepsight.training.assessment import store
from tests.tiny import picture


def test_nothing_is_there_before_and_the_last_evaluation_counts(workspace: Workspace) -> None:
    assert store.load(workspace, "shop", 1) is None
    for pictures in (3, 4):
        store.save(workspace, "shop", 1, {"pictures": pictures, "mistakes": []})
    assert store.load(workspace, "shop", 1) == {"pictures": 4, "mistakes": [], "evaluated_at": 1000.0}
    assert store.load(workspace, "other", 1) is None
    assert store.load(workspace, "shop", 2) is None


def test_erased_pictures_are_gone_from_mistakes_and_neighbours(workspace: Workspace) -> None:
    blobs = [workspace.blobs.put(picture(seed), now=1.0) for seed in range(3)]
    items = [NewSample(picture(seed), f"{seed}.png", {"label": "a"}, "train") for seed in range(3)]
    add(workspace, "shop", items, author="ana")
    store.save(workspace, "shop", 1, {"mistakes": [mistake(blobs[0], [blobs[2], "gone"]), mistake(blobs[1], [])]})
    assert shown(workspace) == [(blobs[0], [blobs[2]]), (blobs[1], [])]
    erase_picture(workspace, blobs[1], actor="ana", reason="asked")
    assert shown(workspace) == [(blobs[0], [blobs[2]])]
    erase_picture(workspace, blobs[2], actor="ana", reason="asked")
    assert shown(workspace) == [(blobs[0], [])]
    # Nothing of them is left in the row either.
    with workspace.database.read() as connection:
        row = str(connection.scalar(schema.evaluation.select().with_only_columns(schema.evaluation.c.data)))
    assert blobs[0] in row
    assert blobs[1] not in row
    assert blobs[2] not in row


def mistake(picture_id: str, nearest: list[str]) -> dict[str, Any]:
    near = [{"sample_id": "s", "picture_id": name, "label": "a", "cosine": 0.9} for name in nearest]
    return {
        "sample_id": "s",
        "picture_id": picture_id,
        "label": "a",
        "predicted": "b",
        "confidence": 1,
        "nearest": near,
    }


def shown(ws: Workspace) -> list[tuple[str, list[str]]]:
    found = store.load(ws, "shop", 1)
    assert found is not None
    return [(row["picture_id"], [near["picture_id"] for near in row["nearest"]]) for row in found["mistakes"]]
