"""How much a request may carry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from keepsight.runtime.decode import Limits

LIMIT = 20_000


@pytest.fixture
def small(ws: Any, make_app: Any, make_bundle: Any, deployed: Any, running: Any) -> Any:
    """A server that takes at most 20,000 bytes."""
    deployed(ws, make_bundle())
    return running(make_app(ws, limits=Limits(max_bytes=LIMIT)))


def chunks(size: int) -> Iterator[bytes]:
    for start in range(0, size, 1000):
        yield b"\xff" * min(1000, size - start)


@pytest.mark.parametrize("size", [LIMIT + 1, 2 * LIMIT + 1, 10 * LIMIT])
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_is_refused_while_it_comes(small: Any, size: int, declared: bool) -> None:
    content = b"\xff" * size if declared else chunks(size)
    answer = small.client.post("/v1/shop/predict", content=content)
    assert answer.status_code == 413
    error = answer.json()["error"]
    assert (error["code"], error["details"]["max_bytes"]) == ("picture_too_large", LIMIT)


def test_forms_have_limits_too(small: Any, picture: Any) -> None:
    files = [("picture", (f"{number}.jpg", picture())) for number in range(101)]
    answer = small.client.post("/v1/shop/predict", files=files)
    assert answer.status_code in (413, 422)
    answer = small.client.post("/v1/shop/predict", files=[("picture", ("a.jpg", b"\xff" * 5 * LIMIT))])
    assert answer.status_code == 413
    answer = small.client.post("/v1/shop/predict", files=[("photo", ("a.jpg", picture()))])
    assert answer.status_code == 422
    assert "photo" in answer.json()["error"]["found"]
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for content in (b"", b"--x\r\nbroken", b"--y--"):
        answer = small.client.post("/v1/shop/predict", content=content, headers=headers)
        assert answer.status_code == 422
    answer = small.client.post("/v1/shop/predict", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert answer.status_code == 422


def test_feedback_is_short(small: Any) -> None:
    answer = small.client.post("/v1/shop/feedback", json={"prediction_id": "a" * 600_000})
    assert answer.status_code == 413
