"""The base install's command line: it predicts with a bundle, and names the extra that anything else needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from keepsight import __version__
from keepsight.cli import base
from tests import matting

Printed = pytest.CaptureFixture[str]


def error_of(printed: Printed) -> dict[str, Any]:
    told = json.loads(printed.readouterr().out)
    assert set(told) == {"error"}
    assert set(told["error"]) == {"code", "found", "expected", "do", "details"}
    error: dict[str, Any] = told["error"]
    return error


def test_a_picture_is_answered(tiny_bundle: Path, red_picture: Path, capsys: Printed) -> None:
    assert base.run(["predict", str(tiny_bundle), str(red_picture), "--json", "--top-k", "2"]) == 0
    [answer] = json.loads(capsys.readouterr().out)["predictions"]
    assert answer["picture"] == str(red_picture)
    assert answer["label"] == "red"
    assert 0 <= answer["confidence"] <= 1
    assert len(answer["alternatives"]) == 1
    assert answer["decision"] in {"auto", "review"}


def test_a_bad_picture_costs_itself_alone(
    tiny_bundle: Path, red_picture: Path, tmp_path: Path, capsys: Printed
) -> None:
    missing = tmp_path / "missing.jpg"
    assert base.run(["predict", str(tiny_bundle), str(missing), str(red_picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{missing}: ")
    assert "cannot be read" in lines[0]
    assert lines[1].startswith(f"{red_picture}: red")
    assert base.run(["predict", str(tiny_bundle), str(missing)]) == 1


def test_a_folder_in_place_of_a_picture_is_told(tiny_bundle: Path, tmp_path: Path, capsys: Printed) -> None:
    assert base.run(["predict", str(tiny_bundle), str(tmp_path), "--json"]) == 1
    [answer] = json.loads(capsys.readouterr().out)["predictions"]
    assert answer["error"]["code"] == "bad_input"


@pytest.mark.parametrize("content", [b"", b"no zip at all"])
def test_a_damaged_bundle_is_told(content: bytes, red_picture: Path, tmp_path: Path, capsys: Printed) -> None:
    bundle = tmp_path / "model.zip"
    bundle.write_bytes(content)
    assert base.run(["predict", str(bundle), str(red_picture), "--json"]) == 2
    assert error_of(capsys)["code"] == "bundle_invalid"
    assert base.run(["predict", str(bundle), str(red_picture)]) == 2
    assert "What to do:" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "up", "serve", "data", "models", "demo", "nonsense"])
def test_every_other_command_names_its_extra(command: str, capsys: Printed) -> None:
    assert base.run([command, "shop", "--json"]) == 2
    error = error_of(capsys)
    assert error["code"] == "extra_missing"
    assert f"keepsight {command}" in error["found"]
    assert 'pip install "keepsight[' in error["do"]
    assert base.run([command]) == 2
    assert "pip install" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["predict"], ["predict", "x.zip"], ["predict", "x.zip", "y.jpg", "--nope"]])
def test_a_mistake_in_the_arguments_is_told_in_the_same_shape(arguments: list[str], capsys: Printed) -> None:
    assert base.run([*arguments, "--json"]) == 2
    assert error_of(capsys)["code"] == "bad_input"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["predict", "--help"]])
def test_help_and_version(arguments: list[str], capsys: Printed) -> None:
    with pytest.raises(SystemExit) as ended:
        base.run(arguments)
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert __version__ in told if arguments == ["--version"] else "predict" in told


def test_an_unsure_answer_asks_for_a_look() -> None:
    answers = [
        {"picture": "a.jpg", "label": "apple", "confidence": 0.97, "decision": "auto"},
        {"picture": "b.jpg", "label": "pear", "confidence": 0.41, "decision": "review"},
    ]
    assert base.render(answers, as_json=False) == "a.jpg: apple 97%\nb.jpg: pear 41%  (please check)\n"


def test_fields_and_lines_have_lines_of_their_own() -> None:
    answer = {
        "picture": "a.jpg",
        "label": "date: 1/2/2026, total: 9.00",
        "confidence": 0.93,
        "decision": "auto",
        "fields": {"date": "1/2/2026", "total": "9.00"},
        "found": {"date": {"confidence": 0.99}, "total": {"confidence": 0.94}},
        "lines": [{"text": "TOTAL 9.00"}],
    }
    told = base.render([answer], as_json=False)
    assert told == "a.jpg: date: 1/2/2026, total: 9.00 93%\n  date   1/2/2026  (99%)\n  total  9.00  (94%)\n"
    told = base.render([{**answer, "fields": {}, "label": "TOTAL 9.00"}], as_json=False)
    assert told == "a.jpg: TOTAL 9.00 93%\n  TOTAL 9.00\n"


@pytest.fixture
def cutting(tmp_path: Path) -> tuple[str, str, str]:
    """A bundle that cuts out, and two pictures of one name."""
    places = [tmp_path / "a" / "cup.png", tmp_path / "b" / "cup.png"]
    for number, place in enumerate(places):
        place.parent.mkdir()
        place.write_bytes(matting.photo(matting.disc((60, 40)), seed=number))
    return str(matting.bundle().to_zip(tmp_path / "cut.zip")), str(places[0]), str(places[1])


def test_answers_are_saved_as_pictures(cutting: tuple[str, str, str], tmp_path: Path, capsys: Printed) -> None:
    bundle, first, second = cutting
    folder = tmp_path / "out"
    missing = str(tmp_path / "missing.png")
    arguments = ["predict", bundle, first, missing, second, "--save", str(folder)]
    assert base.run([*arguments, "--background", "white", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["predictions"]
    assert [answer.get("saved") for answer in answers] == [str(folder / "cup.png"), None, str(folder / "cup-2.png")]
    image = Image.open(folder / "cup.png")
    assert (image.mode, image.size) == ("RGB", (60, 40))
    assert image.getpixel((1, 1)) == (255, 255, 255)
    assert base.run(["predict", bundle, first, "--save", str(folder), "--background", second]) == 0
    assert f"-> {folder / 'cup.png'}" in capsys.readouterr().out
    assert Image.open(folder / "cup.png").getpixel((1, 1)) == Image.open(second).getpixel((1, 1))


def test_what_cannot_be_saved_is_told_before_any_work(
    cutting: tuple[str, str, str], tiny_bundle: Path, red_picture: Path, tmp_path: Path, capsys: Printed
) -> None:
    bundle, first, _ = cutting
    for arguments, told in (
        (["predict", str(tiny_bundle), str(red_picture), "--save", str(tmp_path / "x")], "are no pictures"),
        (["predict", bundle, first, "--save", str(tmp_path / "x"), "--background", "whiteish"], "no colour"),
        (["predict", bundle, first, "--save", first], "cannot be made"),
    ):
        assert base.run([*arguments, "--json"]) == 2
        assert told in error_of(capsys)["found"]
