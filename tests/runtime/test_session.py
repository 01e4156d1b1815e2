"""Networks that can be run are opened quietly, the others are refused in words."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keepsight.errors import BundleError
from keepsight.runtime.session import check_contract, open_session, run

Make = Callable[..., bytes]
OUTPUTS = ("features", "logits")


def test_settings_of_a_session(make_model: Make) -> None:
    session = open_session(make_model(), threads=2)
    options = session.get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize("cut", [0, 40, -30])
def test_bytes_that_are_no_network(cut: int, make_model: Make, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BundleError, match="cannot be opened"):
        open_session(make_model()[:cut] if cut else b"no network at all")
    assert capfd.readouterr().err == ""


def test_run_by_name(make_model: Make) -> None:
    session = open_session(make_model())
    tensors = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1) * np.ones((1, 1, 16, 16), np.float32)
    answers = run(session, tensors, outputs=("logits", "features"))
    np.testing.assert_allclose(answers["features"], [[0, 1, 2], [3, 4, 5]], rtol=1e-6)
    np.testing.assert_allclose(answers["logits"], 4 * answers["features"], rtol=1e-6)


def test_an_input_that_does_not_fit_is_explained(make_model: Make) -> None:
    session = open_session(make_model())
    with pytest.raises(BundleError, match=r"shape \(1, 3, 8, 8\)"):
        run(session, np.zeros((1, 3, 8, 8), np.float32), outputs=OUTPUTS)
    with pytest.raises(BundleError, match="fails"):
        run(session, np.zeros((1, 3, 16, 16), np.float64), outputs=OUTPUTS)
    with pytest.raises(BundleError, match="fails"):
        run(session, np.zeros((1, 3, 16, 16), np.float32), outputs=("boxes",))


def test_contract(make_model: Make) -> None:
    check_contract(open_session(make_model()), size=16, outputs=OUTPUTS)
    check_contract(open_session(make_model(size="side")), size=224, outputs=OUTPUTS)
    with pytest.raises(BundleError, match="pixels tensor"):
        check_contract(open_session(make_model(name="pixels")), size=16, outputs=OUTPUTS)
    with pytest.raises(BundleError, match=r"\(n, 3, 224, 224\)"):
        check_contract(open_session(make_model()), size=224, outputs=OUTPUTS)
    with pytest.raises(BundleError, match="outputs features, logits"):
        check_contract(open_session(make_model(outputs=("features",))), size=16, outputs=OUTPUTS)


def test_one_session_serves_several_threads(make_model: Make) -> None:
    session = open_session(make_model())

    def answer(value: int) -> float:
        tensors = np.full((1, 3, 16, 16), value, np.float32)
        return float(run(session, tensors, outputs=("features",))["features"][0, 0])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, range(200))) == pytest.approx(list(range(200)))
