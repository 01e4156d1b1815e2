"""The error tree: stable codes, three parts, one JSON shape, whole across process borders."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from keepsight import errors
from keepsight.errors import KeepsightError, NotFoundError

# A program may depend on these: a code is never renamed, and a status never changes.
STABLE = {
    "error": 500,
    "bad_input": 422,
    "picture_unreadable": 422,
    "picture_too_large": 413,
    "annotation_invalid": 422,
    "data_insufficient": 422,
    "settings_invalid": 422,
    "bundle_invalid": 422,
    "weights_unavailable": 500,
    "extra_missing": 501,
    "plugin_invalid": 500,
    "not_found": 404,
    "conflict": 409,
    "not_ready": 503,
    "unauthorized": 401,
    "forbidden": 403,
    "storage_failed": 507,
    "workspace_key_wrong": 500,
    "integrity_broken": 500,
    "training_failed": 500,
    "cancelled": 409,
}


def tree(kind: type[KeepsightError] = KeepsightError) -> Iterator[type[KeepsightError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


KINDS = [kind for kind in tree() if kind.__module__ == errors.__name__]


def test_codes_and_statuses_are_stable_and_each_is_used_once() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)
    assert {code: status for code, status in STABLE.items() if code in {kind.code for kind in KINDS}} == STABLE
    assert {kind.code: kind.status for kind in KINDS if kind.code in STABLE} == STABLE


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_its_shape_and_travels_whole(kind: type[KeepsightError]) -> None:
    error = kind("The till is closed.", expected="an open till.", do="Open it.", till=3)
    assert kind.__doc__
    assert HTTPStatus(kind.status) >= 400
    assert str(error) == "The till is closed. Expected: an open till. What to do: Open it."
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert copy.as_dict() == error.as_dict()
    assert json.loads(json.dumps(error.as_dict())) == {
        "error": {
            "code": kind.code,
            "found": "The till is closed.",
            "expected": "an open till.",
            "do": "Open it.",
            "details": {"till": 3},
        }
    }


def test_a_name_that_does_not_exist_is_answered_with_the_nearest() -> None:
    error = NotFoundError.among("project", "shpo", ["office", "shop"])
    assert error.found == 'There is no project "shpo".'
    assert error.expected == "one of: office, shop."
    assert error.do == 'Did you mean "shop"?'
    assert error.details == {"kind": "project", "name": "shpo", "existing": ["office", "shop"]}


def test_many_names_are_cut_and_none_is_said_plainly() -> None:
    many = NotFoundError.among("class", "x", [f"class {number}" for number in range(150)])
    assert "class 19 and 130 more." in many.expected
    assert len(many.details["existing"]) == 100
    none = NotFoundError.among("project", "shop", [], do="Add it.")
    assert (none.expected, none.do) == ("an existing project; there is none yet.", "Add it.")
