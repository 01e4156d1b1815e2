"""Logits become calibrated answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from keepsight.errors import BundleError, NotFoundError
from keepsight.runtime.manifest import BundleInfo
from keepsight.runtime.outputs import output_module, tasks
from keepsight.runtime.outputs.classification import decode, probabilities

Make = Callable[..., BundleInfo]


def test_tasks_are_found_by_name() -> None:
    assert "classification" in tasks()
    assert output_module("classification").TENSORS == ("logits",)
    with pytest.raises(NotFoundError, match='Did you mean "classification"'):
        output_module("clasification")
    with pytest.raises(NotFoundError):
        output_module("..bundle")


def test_answers(make_info: Make) -> None:
    logits = np.array([[0.0, np.log(3.0), 0.0], [5.0, 1.0, 1.0]], np.float32)
    first, second = decode({"logits": logits}, info=make_info(temperature=1.0), top_k=2)
    assert first.label == "green"
    assert first.confidence == pytest.approx(0.6)
    assert [label for label, _ in first.alternatives] == ["red"]
    assert second.label == "red"
    assert first.as_dict() == {
        "label": "green",
        "confidence": pytest.approx(0.6),
        "alternatives": [{"label": "red", "confidence": pytest.approx(0.2)}],
    }


def test_top_k_bounds(make_info: Make) -> None:
    logits = {"logits": np.zeros((1, 3), np.float32)}
    assert [len(decode(logits, info=make_info(), top_k=k)[0].alternatives) for k in (0, 1, 2, 3, 99)] == [0, 0, 1, 2, 2]


def test_temperature_calibrates_without_changing_the_label(make_info: Make) -> None:
    logits = {"logits": np.array([[2.0, 1.0, 0.0]], np.float32)}
    sharp, soft = (decode(logits, info=make_info(temperature=value), top_k=3)[0] for value in (0.5, 5.0))
    assert sharp.label == soft.label == "red"
    assert sharp.confidence > 0.85
    assert soft.confidence < 0.45


def test_softmax_of_extreme_logits_is_stable() -> None:
    shares = probabilities([[1e30, 0.0, -1e30], [-1e4, -1e4, -1e4]], temperature=0.01)
    expected = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    assert np.abs(shares - expected).max() < 1e-12


def test_logits_that_do_not_fit(make_info: Make) -> None:
    with pytest.raises(BundleError, match="for 3 labels"):
        decode({"logits": np.zeros((1, 4), np.float32)}, info=make_info(), top_k=1)
    with pytest.raises(BundleError, match="not finite"):
        decode({"logits": np.full((1, 3), np.nan, np.float32)}, info=make_info(), top_k=1)
