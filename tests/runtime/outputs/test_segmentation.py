"""Mattes become masks in the picture's own pixels, with a chance that they are good."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from keepsight.errors import BadInputError, BundleError
from keepsight.runtime import rle
from keepsight.runtime.outputs import segmentation
from keepsight.runtime.predictor import Predictor
from tests.matting import bundle, disc, photo

INFO = bundle().info


def test_the_mask_has_the_pictures_size_and_place() -> None:
    mask = disc((200, 120), at=(0.25, 0.5), radius=0.4)
    output = Predictor(bundle()).predict(photo(mask)).output
    found = output.as_dict()
    assert found["mask"]["size"] == [120, 200]
    seen = rle.decode(found["mask"])
    # A matte of 32 x 32 cells: a cell is some 6 pixels wide.
    assert (seen & mask).sum() / (seen | mask).sum() > 0.85
    assert found["covered"] == pytest.approx(seen.mean())
    assert found["label"] == segmentation.share_in_words(seen.mean())
    assert segmentation.read_matte(found["matte"]).shape == (32, 32)


def test_a_matte_survives_its_way_as_text() -> None:
    matte = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
    assert (segmentation.read_matte(segmentation.write_matte(matte)) == matte).all()
    for text in ("?", "aGVsbG8="):
        with pytest.raises(BadInputError, match="matte"):
            segmentation.read_matte(text)


def test_confidence_grows_with_the_mattes_certainty_and_follows_the_calibration() -> None:
    sharp, soft, empty = disc((32, 32)).astype(np.float32), np.full((32, 32), 0.6), np.zeros((32, 32))
    chances = [segmentation.confidence(matte, info=INFO) for matte in (sharp, soft, empty)]
    assert chances[0] > 0.99
    assert chances[0] > chances[1] > chances[2]
    assert chances[2] < 0.001
    learned = replace(INFO, thresholds={"even": 0.6}, temperature=0.5)
    assert segmentation.confidence(soft, info=learned) == pytest.approx(0.5, abs=0.01)


def test_every_label_is_among_the_summaries() -> None:
    names = segmentation.summaries(INFO)
    assert len(set(names)) == len(names)
    assert {segmentation.share_in_words(share) for share in np.linspace(0, 1, 101)} == set(names)


def test_mattes_that_do_not_fit_the_bundle_are_refused() -> None:
    with pytest.raises(BundleError, match="shape"):
        segmentation.decode({"alpha": np.zeros((1, 1, 4, 4), np.float32)}, info=INFO, sizes=[(4, 4)])
    with pytest.raises(BundleError, match="not finite"):
        segmentation.decode({"alpha": np.full((1, 4, 4), np.nan, np.float32)}, info=INFO, sizes=[(4, 4)])
