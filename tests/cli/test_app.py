"""All commands: help, ``--json``, exit codes, and errors in one shape."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import typer

from keepsight.cli.app import app

WITHOUT_JSON = {"up", "serve"}
# These do their work, or tell what is wrong, without a workspace.
WITHOUT_WORKSPACE = {"init", "demo", "doctor", "zoo list", "zoo fetch", "predict"}


class Ran(Protocol):
    """See ``conftest.Ran``."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any: ...


class Run(Protocol):
    """See ``conftest.run``."""

    def __call__(self, *arguments: object) -> Ran: ...


def commands() -> dict[str, Any]:
    """Every command that does something, by its words: ``data import`` -> its parameters."""

    def walk(node: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, child in getattr(node, "commands", {}).items():
            yield from walk(child, (*words, name))
        if not hasattr(node, "commands"):
            yield " ".join(words), node

    return dict(walk(typer.main.get_command(app), ()))


COMMANDS = commands()


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("-")}


def dummies(command: Any) -> list[str]:
    """A value for each argument and option that must be given; "1" suits numbers, names and paths."""
    needed = [parameter for parameter in command.params if parameter.required]
    options = [word for each in needed if each.opts[0][0] == "-" for word in (each.opts[0], "1.csv")]
    arguments = [each for each in needed if each.opts[0][0] != "-"]
    return ["nosuch" if each.name == "project" else "1" for each in arguments] + options


def check_error(ran: Ran, code: str) -> dict[str, Any]:
    """The one JSON shape, alone on stdout, and exit code 2."""
    assert ran.code == 2
    assert set(ran.json) == {"error"}
    error: dict[str, Any] = ran.json["error"]
    assert set(error) == {"code", "found", "expected", "do", "details"}
    assert error["code"] == code
    for part in ("found", "expected", "do"):
        assert isinstance(error[part], str)
        assert error[part].strip()
    return error


def check_told(ran: Ran) -> None:
    """Three parts on stderr, no traceback, nothing on stdout."""
    assert ran.code == 2
    assert ran.out == ""
    assert "  Expected: " in ran.err
    assert "  What to do: " in ran.err
    assert "Traceback" not in ran.err


# --- every command ----------------------------------------------------------------------------------------------------


def test_the_commands_of_the_design_exist() -> None:
    wanted = {
        "init", "demo", "train", "retrain", "predict", "up", "serve", "doctor", "data import", "data versions",
        "data diff", "data show", "data tag", "data verify", "models list", "models show", "models promote",
        "models rollback", "models reproduce", "review next", "review answer", "monitor status", "monitor drift",
        "monitor accuracy", "privacy audit", "privacy erase", "zoo list", "zoo fetch", "settings show", "settings set",
        "token create", "token revoke",
    }  # fmt: skip
    assert wanted <= COMMANDS.keys()


@pytest.mark.parametrize("words", sorted({"", *COMMANDS, *(name.split()[0] for name in COMMANDS)}))
def test_help_explains(run: Run, words: str) -> None:
    ran = run(*words.split(), "--help")
    assert ran.code == 0
    usage = next(line for line in ran.out.splitlines() if "Usage:" in line)
    assert f" {words} [OPTIONS]".replace("  ", " ") in usage
    short = run(*words.split(), "-h")
    assert (short.code, short.out) == (0, ran.out)


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_every_option_and_command_says_what_it_does(words: str) -> None:
    command = COMMANDS[words]
    assert command.help
    silent = [parameter.opts[0] for parameter in command.params if not (parameter.help or "").strip()]
    assert silent == []


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_every_command_has_json(words: str) -> None:
    assert ("--json" in options_of(COMMANDS[words])) is (words not in WITHOUT_JSON)


@pytest.mark.parametrize("words", sorted(COMMANDS.keys() - WITHOUT_WORKSPACE - WITHOUT_JSON))
def test_without_a_workspace_every_command_says_so(run: Run, words: str) -> None:
    arguments = [*words.split(), *dummies(COMMANDS[words])]
    error = check_error(run(*arguments, "--json"), "not_found")
    assert "keepsight.yaml" in error["found"]
    assert "keepsight init" in error["do"]
    check_told(run(*arguments))


@pytest.mark.parametrize("words", sorted(WITHOUT_JSON))
def test_without_a_workspace_no_server_starts(run: Run, words: str) -> None:
    ran = run(words)
    check_told(ran)
    assert "keepsight.yaml" in ran.err


WITH_PROJECT = sorted(
    words
    for words, command in COMMANDS.items()
    if command.params and command.params[0].name == "project" and command.params[0].required and words != "init"
)


@pytest.mark.parametrize("words", WITH_PROJECT)
def test_an_unknown_project_is_named_with_those_that_exist(run: Run, shop: Path, words: str) -> None:
    arguments = [*words.split(), *dummies(COMMANDS[words]), "--workspace", shop]
    error = check_error(run(*arguments, "--json"), "not_found")
    assert "nosuch" in error["found"]
    assert error["details"]["existing"] == ["shop"]
    check_told(run(*arguments))


# --- mistakes in the arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["models", "list", "shop", "--nope"], "--nope"),
        (["nosuchcommand"], "nosuchcommand"),
        (["data", "nosuchcommand"], "nosuchcommand"),
        (["models", "list"], "project"),
        (["models", "promote", "shop", "seven"], "number"),
        (["privacy", "audit", "--limit", "0"], "--limit"),
    ],
)
def test_a_mistake_in_the_arguments_is_told_in_the_same_shape(run: Run, arguments: list[str], named: str) -> None:
    error = check_error(run(*arguments, "--json"), "bad_input")
    assert named.lower() in error["found"].lower()
    ran = run(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert named.lower() in ran.err.lower()
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("words", ["", "data", "models"])
def test_without_a_command_help_is_shown(run: Run, words: str) -> None:
    ran = run(*words.split())
    assert "Usage:" in ran.out + ran.err
    assert ran.code in {0, 2}


# --- mistakes in the workspace ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("projects: [shop]\n", "projects"),
        ("projects:\n  shop:\n    gate:\n      marign: 0.1\n", "gate.marign"),
        ("projects:\n  shop:\n    gate:\n      margin: much\n", "gate.margin"),
        ("projects:\n  shop:\n    gate:\n      margin: 7\n", "gate.margin"),
        ("serving:\n  log: sometimes\n", "serving.log"),
        ("projects: {shop: {task: [\n", "YAML"),
        ("- a\n- b\n", "list"),
        ("projects:\n  Shop Nord: {}\n", "Shop Nord"),
    ],
)
def test_a_bad_settings_file_is_told(run: Run, tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "keepsight.yaml").write_text(content)
    arguments = ["models", "list", "shop", "--workspace", tmp_path]
    assert named in check_error(run(*arguments, "--json"), "settings_invalid")["found"]
    check_told(run(*arguments))


def test_a_task_that_does_not_exist_makes_no_project(run: Run, tmp_path: Path) -> None:
    error = check_error(run("init", "shop", "--task", "clasification", "--workspace", tmp_path, "--json"), "not_found")
    assert "classification" in error["do"]
    assert not (tmp_path / "keepsight.yaml").exists()


@pytest.mark.parametrize("name", ["Shop", "shop nord", "-shop", "a" * 41, "späti"])
def test_a_project_name_must_fit_into_a_url(run: Run, tmp_path: Path, name: str) -> None:
    ran = run("init", "--workspace", tmp_path, "--json", "--", name)
    assert ran.code == 2
    assert ran.json["error"]["code"] == "settings_invalid"
    assert not (tmp_path / "keepsight.yaml").exists()


# --- what works -------------------------------------------------------------------------------------------------------


def test_init_makes_a_workspace_and_is_repeatable(run: Run, tmp_path: Path) -> None:
    first = run("init", "shop", "--workspace", tmp_path, "--json")
    assert (first.code, first.json["added"]) == (0, True)
    key = tmp_path / ".keepsight" / "workspace.key"
    assert key.stat().st_mode & 0o077 == 0
    secret = key.read_text()
    second = run("init", "shop", "--workspace", tmp_path, "--json")
    assert (second.code, second.json["added"]) == (0, False)
    assert key.read_text() == secret
    assert run("init", "office", "--workspace", tmp_path).code == 0
    assert (tmp_path / "keepsight.yaml").read_text().count("task: classification") == 2


def test_the_workspace_is_found_from_a_folder_below(run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = shop / "photos" / "monday"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert run("models", "list", "shop").code == 0


@pytest.mark.parametrize("words", ["models list", "runs list", "data versions", "monitor alerts"])
def test_empty_lists_are_no_error(run: Run, shop: Path, words: str) -> None:
    as_json = run(*words.split(), "shop", "--workspace", shop, "--json")
    assert (as_json.code, as_json.json) == (0, [])
    told = run(*words.split(), "shop", "--workspace", shop)
    assert told.code == 0
    assert told.out.strip()


def test_a_project_without_a_model_says_how_to_get_one(run: Run, shop: Path, red_picture: Path) -> None:
    ran = run("predict", "shop", red_picture, "--workspace", shop, "--json")
    assert ran.code == 2
    assert "keepsight train" in ran.json["error"]["do"]


def test_predict_answers_with_a_bundle(run: Run, tiny_bundle: Path, red_picture: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("this is no picture")
    ran = run("predict", tiny_bundle, red_picture, text, "--json")
    assert ran.code == 0
    good, bad = ran.json["predictions"]
    assert good["label"] == "red"
    assert bad["error"]["code"] == "picture_unreadable"
    assert run("predict", tiny_bundle, text).code == 1
    told = run("predict", tiny_bundle, red_picture)
    assert "red.jpg: red" in told.out


def test_settings_are_set_shown_with_their_origin_and_refused_where_git_has_them(run: Run, shop: Path) -> None:
    place = ["--workspace", shop, "--json"]
    assert run("settings", "set", "shop", "gate.margin", "0.03", *place).code == 0
    rows = {row["name"]: row for row in run("settings", "show", "shop", *place).json}
    assert (rows["gate.margin"]["value"], rows["gate.margin"]["origin"]) == (0.03, "database")
    assert rows["task"]["origin"] == "file"
    check_error(run("settings", "set", "shop", "task", "ocr", *place), "conflict")
    check_error(run("settings", "set", "shop", "gate.margn", "1", *place), "settings_invalid")
    assert (
        "cannot be read"
        in check_error(run("settings", "set", "shop", "gate.margin", ": [", *place), "bad_input")["found"]
    )
    check_error(run("settings", "set", "shop", "gate.margin", "7", *place), "settings_invalid")
    actions = [record["action"] for record in run("privacy", "audit", *place).json["records"]]
    assert "setting.change" in actions


def test_a_token_is_shown_once_and_can_be_revoked(run: Run, shop: Path) -> None:
    place = ["--workspace", shop, "--json"]
    secret = run("token", "create", "till", "--scope", "predict", *place).json["token"]
    assert secret.startswith("ks_")
    listed = run("token", "list", *place)
    assert [row["name"] for row in listed.json] == ["till"]
    assert secret not in listed.out
    check_error(run("token", "create", "till", *place), "conflict")
    check_error(run("token", "create", "other", "--scope", "everything", *place), "bad_input")
    assert run("token", "revoke", "till", *place).code == 0
    assert run("token", "list", *place).json == []
    assert secret not in run("privacy", "audit", *place).out


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 101])
def test_a_token_has_a_name_that_can_be_shown(run: Run, shop: Path, name: str) -> None:
    ran = run("token", "create", name, "--workspace", str(shop), "--json")
    assert "no name" in check_error(ran, "bad_input")["found"]


def test_a_wrong_key_is_told_and_nothing_is_changed(run: Run, shop: Path) -> None:
    key = shop / ".keepsight" / "workspace.key"
    right = key.read_text()
    key.write_text("A" * 43 + "=\n")
    check_error(run("models", "list", "shop", "--workspace", shop, "--json"), "workspace_key_wrong")
    key.unlink()
    check_error(run("models", "list", "shop", "--workspace", shop, "--json"), "workspace_key_wrong")
    assert not key.exists(), "no new key may be made for pictures that another one encrypted"
    key.write_text(right)
    assert run("models", "list", "shop", "--workspace", shop).code == 0


def test_doctor_tells_what_is_wrong_without_stopping(run: Run, shop: Path) -> None:
    fine = run("doctor", "--workspace", shop, "--json")
    assert (fine.code, fine.json["ok"]) == (0, True)
    assert {"workspace", "database", "blob store", "disk", "audit log"} <= {row["name"] for row in fine.json["checks"]}
    elsewhere = run("doctor", "--json")
    assert (elsewhere.code, elsewhere.json["ok"]) == (1, False)
    assert "keepsight init" in elsewhere.json["checks"][0]["text"]


def test_the_demo_replaces_nothing_but_a_demo(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("three years of work")
    check_error(run("demo", "--folder", mine, "--exit", "--json"), "conflict")
    assert (mine / "thesis.txt").read_text() == "three years of work"


def test_the_zoo_names_licence_and_source(run: Run) -> None:
    rows = {row["name"]: row for row in run("zoo", "list", "--json").json}
    lite0 = rows["efficientnet-lite0"]
    assert lite0["licence"] == "Apache-2.0"
    assert lite0["available"] is True
    assert lite0["sha256"].startswith("579344248a93e230")
    error = check_error(run("zoo", "fetch", "efficientnet-lite9", "--json"), "not_found")
    assert "efficientnet-lite" in error["do"]


def test_the_program_itself_ends_with_the_code_and_prints_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "keepsight", "models", "list", "shop"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "What to do:" in done.stderr
    assert "Traceback" not in done.stderr
