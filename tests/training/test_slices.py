"""Slices come from whatever the metadata holds, and nothing that it holds breaks them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keepsight.data.samples import Sample
from keepsight.training.material import Part
from keepsight.training.slices import slices_of


def part(
    metas: Sequence[dict[str, Any]],
    *,
    group: Callable[[int], str | None] = lambda place: None,
    quality: np.ndarray | None = None,
    side: int = 300,
    labels: Sequence[str] | None = None,
) -> Part:
    n = len(metas)
    classes = ["a"] * n if labels is None else labels
    samples = tuple(
        Sample(f"{place:032x}", f"p{place}", "test", group(place), f"{place}.png", meta, {"label": classes[place]})
        for place, meta in enumerate(metas)
    )
    return Part(
        task="classification",
        samples=samples,
        features=np.zeros((n, 2), np.float32),
        quality=np.tile(np.array([0.5, 120.0, 40.0], np.float32), (n, 1)) if quality is None else quality,
        sizes=np.full((n, 2), side, np.int64),
        groups=np.arange(n),
    )


def counts(found: Part, *keys: str) -> dict[str, int]:
    return {each.name: each.count for each in slices_of(found) if each.key in keys}


def test_each_value_of_a_column_is_a_slice_and_missing_is_one_too() -> None:
    cells = ["door", "shelf", None, "", math.nan, "NaN"]
    found = part([{"camera": cells[place % 6]} if place % 12 else {} for place in range(36)])
    by_name = {each.name: each for each in slices_of(found)}
    assert by_name["camera=shelf"].count == 6
    assert by_name["camera=(none)"].rows[0]
    assert by_name["camera=(none)"].count == 36 - 6 - 3
    # Three pictures say nothing.
    assert "camera=door" not in by_name


def test_many_numbers_make_quarters_and_few_are_names() -> None:
    found = part([{"weight": str(place / 2), "shop": place % 3} for place in range(40)])
    assert counts(found, "shop") == {"shop=0": 14, "shop=1": 13, "shop=2": 13}
    quarters = [each for each in slices_of(found) if each.key == "weight"]
    assert [each.count for each in quarters] == [10, 10, 10, 10]
    assert np.array_equal(sum(each.rows.astype(int) for each in quarters), np.ones(40))


def test_the_number_of_a_class_is_no_quantity() -> None:
    metas = [{"class_id": place // 5, "weight": place} for place in range(100)]
    found = part(metas, labels=[f"class {place // 5}" for place in range(100)])
    assert len(counts(found, "class_id")) == 20
    assert list(counts(found, "weight").values()) == [25, 25, 25, 25]


def test_names_of_single_pictures_make_no_slices() -> None:
    found = part([{"serial": f"no {place}", "event_id": "e", "selected_by": "audit"} for place in range(40)])
    assert counts(found, "serial", "event_id", "selected_by") == {}


def test_mixed_and_nested_values_break_nothing() -> None:
    odd = [1, "one", True, [1, 2], {"a": 1}, 10**400, math.inf, None]
    found = part([{"odd": odd[place % 8]} for place in range(80)])
    assert len(counts(found, "odd")) == 7
    assert counts(found, "odd")["odd=yes"] == 10


def test_groups_and_what_is_measured_make_slices() -> None:
    quality = np.tile(np.array([0.5, 120.0, 40.0], np.float32), (20, 1))
    quality[:6, 1], quality[6:12, 0], quality[12, 1] = 30.0, 0.01, np.nan
    found = part([{} for _ in range(20)], group=lambda place: "north" if place < 8 else None, quality=quality, side=100)
    assert counts(found, "group") == {"group=north": 8, "group=(none)": 12}
    assert counts(found, "light", "sharpness", "size") == {
        "light=dark": 6,
        "light=normal": 13,
        "sharpness=blurred": 6,
        "sharpness=sharp": 14,
        "size=small": 20,
    }


def test_a_column_of_the_metadata_comes_before_what_is_measured() -> None:
    found = part([{"light": "lamp"} for _ in range(6)])
    assert counts(found, "light") == {"light=lamp": 6}


def test_no_pictures_no_slices() -> None:
    assert slices_of(part([])) == []
