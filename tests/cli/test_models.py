"""``keepsight models compare`` and what follows it: the person who decides sees both models, and has to say why."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepsight.delivery import deployments
from keepsight.loop import runs
from keepsight.store.workspace import Workspace
from keepsight.training import gate
from keepsight.training.gate import Evidence, Judged
from tests.tiny import bundle, register, release
from tests.training.gate.settings import settings


@pytest.fixture
def asked(shop: Path) -> Path:
    """A workspace whose gate leaves model 2 to a person; on 40 pictures it gains two knives and loses a spoon."""
    with closing(Workspace.open(shop, environment={})) as ws:
        release(ws)
        place = np.arange(40)
        evidence = Evidence(
            trigger="hand",
            test=Judged([("knife",), ("spoon",)] * 20, place != 1, ~np.isin(place, [0, 2])),
            latency_ms=8.0,
            champion_latency_ms=9.5,
        )
        run_id = runs.enqueue(ws, "shop", trigger="hand", reason="r", actor="ana")
        number = register(ws, bundle(1), run_id=run_id).number
        result = gate.decide(evidence, settings(min_pictures=100)).as_dict()
        said = {**result, "champion": 1, "challenger": number, "sides": gate.side_by_side(evidence)}
        runs.update(ws, run_id, gate=said, model_number=number)
        runs.finish(ws, run_id, status="done")
    return shop


def test_both_models_side_by_side_in_plain_words(asked: Path, run: Any) -> None:
    told = run("models", "compare", "shop", 2, "--workspace", asked)
    assert told.code == 0
    assert told.out.startswith("Shall model 2 replace model 1, which is live?")
    for words in (
        "gets 97.5% right and the live one 95.0%",
        '"knife": 20 of 20 pictures right instead of 18 (may be chance)',
        '"spoon": 19 of 20 pictures right instead of 20 (may be chance)',
        "pictures: There are only 40 test pictures to judge by",
        'keepsight models promote shop 2 --reason "..."',
    ):
        assert words in told.out
    card = run("models", "compare", "shop", 2, "--workspace", asked, "--json").json
    assert (card["decision"], card["needs_reason"], card["stale"]) == ("ask", True, False)
    assert card["unsure"][1]["pictures_needed"] == 100


def test_a_comparison_that_is_out_of_date_says_so(asked: Path, run: Any) -> None:
    with closing(Workspace.open(asked, environment={})) as ws:
        release(ws, bundle(2))
    told = run("models", "compare", "shop", 2, "--workspace", asked)
    assert "The comparison is out of date: model 3 is live by now." in told.out


def test_overruling_from_the_command_line_needs_a_reason(asked: Path, run: Any) -> None:
    refused = run("models", "promote", "shop", 2, "--workspace", asked, "--json")
    assert refused.code == 2
    assert refused.json["error"]["code"] == "bad_input"
    made = run("models", "promote", "shop", 2, "--reason", "knives matter", "--workspace", asked, "--json").json
    assert made["kind"] == "override"
    with closing(Workspace.open(asked, environment={})) as ws:
        live = deployments.current(ws, "shop")
    assert live is not None
    assert live.model_number == 2


def test_a_model_that_does_not_exist_is_named(asked: Path, run: Any) -> None:
    answer = run("models", "compare", "shop", 9, "--workspace", asked, "--json")
    assert answer.json["error"]["code"] == "not_found"
