"""Fields learned from documents: shipment labels with field names of their own, of senders not seen before."""

from __future__ import annotations

import numpy as np
import pytest

from keepsight.errors import BundleError, DataError
from keepsight.runtime.outputs.ocr.fields import Document, FieldModel, find
from keepsight.runtime.outputs.ocr.text import normalised, pieces
from keepsight.training.documents.alignment import locate
from keepsight.training.documents.fields import learn, platt

NAMES = ("recipient", "tracking", "weight")
STREETS = ("Mill Road", "High Street", "Church Lane", "Park Avenue", "Station Road", "Green Lane")
PEOPLE = ("Anna Schmidt", "Tom Jones", "Maria Rossi", "Jan Novak", "Lena Berg", "Omar Aziz", "Eva Lind", "Paul Roy")


def label(number: int) -> tuple[Document, dict[str, str]]:
    """A shipment label; where things stand, and what else is on it, differs."""
    random = np.random.default_rng(number)
    person, sender = random.choice(PEOPLE, 2, replace=False)
    street = f"{random.integers(1, 99)} {random.choice(STREETS)}"
    tracking = f"{random.choice(['JD', 'RR', 'LX'])}{random.integers(10**8, 10**9)}DE"
    weight = f"{random.integers(1, 30)}.{random.integers(10, 99)}"
    top = [
        "PARCEL EXPRESS",
        f"From: {sender}",
        f"{random.integers(1, 99)} {random.choice(STREETS)}",
        "Deliver to:",
        str(person),
        street,
        f"{random.integers(10000, 99999)} Berlin",
    ]
    facts = [f"Weight: {weight} kg", f"Pieces: {random.integers(1, 9)}", f"Tracking no. {tracking}"]
    if random.random() < 0.5:
        facts = facts[::-1]
    lines = [*top, *facts, "www.parcel.example"]
    boxes = [(20.0, 40.0 * row, 20.0 + 9 * len(text), 40.0 * row + 24) for row, text in enumerate(lines)]
    return Document(lines, boxes, (400, 600)), {
        "recipient": f"{person}, {street}",
        "tracking": tracking,
        "weight": weight,
    }


@pytest.fixture(scope="module")
def learned() -> FieldModel:
    made = [label(number) for number in range(40)]
    found = learn([one for one, _ in made], [two for _, two in made], names=NAMES, groups=np.arange(40), seed=0)
    assert found.located == 1.0
    right = [
        all(normalised(values[name].text) == normalised(text) for name, text in true.items() if name in values)
        and len(values) == len(true)
        for values, (_, true) in zip(found.held_out, made, strict=True)
    ]
    assert np.mean(right) >= 0.9
    # The chance that all is right is what it says, on documents that were held out.
    assert abs(found.confidence.mean() - np.mean(right)) < 0.1
    return found.model


def test_fields_of_new_labels_are_found(learned: FieldModel) -> None:
    right = 0
    for number in range(1000, 1020):
        document, true = label(number)
        found = find(learned, document)
        right += sum(normalised(found[name].text) == normalised(true[name]) for name in NAMES if name in found)
    assert right >= 54
    assert document.lines[found["tracking"].line].endswith(true["tracking"])


def test_the_same_seed_learns_the_same_and_it_survives_storing(learned: FieldModel) -> None:
    made = [label(number) for number in range(40)]
    again = learn([one for one, _ in made], [two for _, two in made], names=NAMES, groups=np.arange(40), seed=0).model
    assert again.parts() == learned.parts()
    parts = learned.parts()
    stored = FieldModel.from_parts(parts["fields.json"], parts["fields.npz"])
    document, _ = label(2000)
    assert find(stored, document) == find(learned, document)
    with pytest.raises(BundleError, match="learned fields cannot be read"):
        FieldModel.from_parts(b"{}", parts["fields.npz"])


def test_a_field_that_most_documents_lack_is_left_empty_where_it_is_not() -> None:
    made = []
    for number in range(40):
        document, true = label(number)
        if number % 3 == 0:
            lines = [*document.lines, "Deposit code Q7"]
            boxes = [*document.boxes, (20.0, 480.0, 180.0, 504.0)]
            document, true = Document(lines, boxes, document.size), {**true, "deposit": "Q7"}
        made.append((document, true))
    model = learn(
        [one for one, _ in made], [two for _, two in made], names=("deposit", *NAMES), groups=np.arange(40), seed=0
    ).model
    document, _ = label(3000)
    assert "deposit" not in find(model, document)
    with_code = Document([*document.lines, "Deposit code Q7"], [*document.boxes, (20, 480, 180, 504)], document.size)
    assert find(model, with_code)["deposit"].text == "Q7"


def test_too_little_to_learn_from_is_told() -> None:
    document, true = label(0)
    with pytest.raises(DataError, match="1 independent documents"):
        learn([document], [true], names=NAMES, groups=np.zeros(1, int), seed=0)
    with pytest.raises(DataError, match="0 of their"):
        learn([document] * 2, [{"weight": "999999"}] * 2, names=("weight",), groups=np.arange(2), seed=0)


def test_an_empty_page_has_no_fields(learned: FieldModel) -> None:
    assert find(learned, Document([], [], (10, 10))) == {}
    assert find(learned, Document(["..."], [(0, 0, 9, 9)], (10, 10))) is not None


def test_values_are_located_exactly_or_nearly() -> None:
    lines = ["TOTAL RM 9.00", "CASH 9.00", "NO.2, JALAN METR0 PERDANA", "TIMUR 11"]
    found = [piece for place, text in enumerate(lines) for piece in pieces(text, line=place)]

    def said(run: tuple[int, int]) -> str:
        return " ".join(piece.text for piece in found[run[0] : run[1] + 1])

    assert [said(run) for run in locate(found, "9.00")] == ["9 . 00", "9 . 00"]
    assert [said(run) for run in locate(found, "No.2, Jalan Metro Perdana Timur 11")] == [
        "no . 2 , jalan metr 0 perdana timur 11"
    ]
    assert locate(found, "SOMETHING ELSE ALTOGETHER") == []
    assert locate(found, "9.0") == []
    assert locate([], "9.00") == []


def test_platt_follows_what_was_right() -> None:
    random = np.random.default_rng(0)
    odds = random.normal(0, 2, 2000)
    hits = random.random(2000) < 1 / (1 + np.exp(-(0.5 * odds - 1)))
    slope, shift = platt(odds, hits)
    assert slope == pytest.approx(0.5, abs=0.1)
    assert shift == pytest.approx(-1, abs=0.15)
    assert platt(odds, np.zeros(2000, bool))[1] < -3
