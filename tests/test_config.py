"""Settings: the table, the file, where each value comes from, and adding a project without touching the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keepsight import config
from keepsight.errors import ConflictError, NotFoundError, SettingsError, StorageError


def write(folder: Path, content: str) -> Path:
    (folder / config.FILE_NAME).write_text(content, encoding="utf-8")
    return folder


def load(folder: Path, content: str, **environment: str) -> config.Config:
    return config.load(write(folder, content), environment=environment)


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", config.TABLE, ids=lambda setting: setting.name)
def test_every_setting_is_complete_and_its_default_fits(setting: config.Setting) -> None:
    assert setting.scope in {"workspace", "project"}
    assert setting.help.endswith(".")
    assert config.BY_NAME[setting.name] is setting
    if setting.default is not None:
        assert setting.parse(setting.default) == setting.default


def test_names_and_variables_are_unique() -> None:
    assert len(config.BY_NAME) == len(config.TABLE)
    assert len({config.environment_name(name) for name in config.BY_NAME}) == len(config.TABLE)
    assert config.environment_name("gate.min_accuracy") == "KEEPSIGHT_GATE_MIN_ACCURACY"


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("gate.margin", [0, 0.5, 1, "0.02"], [-0.01, 1.01, "much", True, [], None]),
        ("gate.min_accuracy", [None, 0.9], [1.5, "high"]),
        ("gate.min_recall", [{}, {"apple": 0.9}], [0.9, {"apple": 2}, ["apple"]]),
        ("serving.top_k", [1, 100, "5"], [0, 101, 2.5, True, "five"]),
        ("serving.log", ["durable", "relaxed"], ["fast", None, True]),
        ("retrain.on_drift", [True, False, "yes", "off", "1"], ["maybe", 2]),
        ("retrain.schedule", [None, "0 3 * * 1"], ["every Monday", "61 * * * *", 3]),
        ("train.backbone", ["mobilenet-v2"], ["", "  ", 3]),
        ("data.test_share", [0, 0.5], [0.51]),
        ("monitor.drift_alpha", [0.01], [0, 0.6]),
    ],
)
def test_values_are_checked(name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        config.parse_value(name, value, origin="a test")
    for value in bad:
        with pytest.raises(SettingsError) as caught:
            config.parse_value(name, value, origin="a test")
        assert name in caught.value.found
        assert "a test" in caught.value.found


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        config.parse_value("gate.marign", 1, origin="a test")
    assert "gate.margin" in caught.value.do


# --- the file ---------------------------------------------------------------------------------------------------------


def test_an_empty_or_missing_file_gives_the_defaults(tmp_path: Path) -> None:
    for loaded in (config.load(tmp_path, environment={}), load(tmp_path, "# nothing yet\n")):
        assert loaded.projects == {}
        assert loaded["serving.log"] == "durable"
        assert loaded.state == tmp_path / ".keepsight"


def test_nested_and_dotted_keys_are_the_same(tmp_path: Path) -> None:
    nested = load(tmp_path, "projects:\n  shop:\n    gate:\n      margin: 0.1\n      min_recall: {apple: 0.9}\n")
    dotted = load(tmp_path, "projects:\n  shop:\n    gate.margin: 0.1\n    gate.min_recall: {apple: 0.9}\n")
    for loaded in (nested, dotted):
        assert loaded.project("shop")["gate.margin"] == 0.1
        assert loaded.project("shop")["gate.min_recall"] == {"apple": 0.9}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("gate:\n  margin: 0.1\n", "gate.margin"),
        ("projects:\n  shop:\n    serving:\n      log: relaxed\n", "serving.log"),
        ("projects:\n  shop:\n    tusk: classification\n", "tusk"),
        ("projekts:\n  shop: {}\n", "projekts"),
        ("projects:\n  shop: classification\n", "projects"),
        ("projects:\n  shop:\n    serving:\n      top_k: 0\n", "serving.top_k"),
        ("a: [\n", "YAML"),
        ("just a line\n", "str"),
    ],
)
def test_what_does_not_belong_there_is_named(tmp_path: Path, content: str, named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, content)
    assert named in caught.value.found


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / config.FILE_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError):
        config.load(tmp_path, environment={})


def test_the_nearest_file_above_is_the_workspace(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    with pytest.raises(NotFoundError) as caught:
        config.find_root(deep)
    assert "keepsight init" in caught.value.do
    write(tmp_path, "")
    assert config.find_root(deep) == tmp_path
    write(tmp_path / "a", "")
    assert config.find_root(deep) == tmp_path / "a"


# --- where a value comes from -----------------------------------------------------------------------------------------


def test_file_wins_over_environment_over_database_over_default(tmp_path: Path) -> None:
    variable = config.environment_name("gate.margin")
    stored = {"gate.margin": 0.3, "serving.top_k": 3}
    everything = load(tmp_path, "projects: {shop: {gate: {margin: 0.1}}}\n", **{variable: "0.2"})
    assert everything.project("shop", stored).values["gate.margin"] == config.Value(0.1, "file")
    without_file = load(tmp_path, "projects: {shop: {}}\n", **{variable: "0.2"})
    assert without_file.project("shop", stored).values["gate.margin"] == config.Value(0.2, "environment")
    without_both = load(tmp_path, "projects: {shop: {}}\n")
    assert without_both.project("shop", stored).values["gate.margin"] == config.Value(0.3, "database")
    assert without_both.project("shop", stored).values["serving.top_k"] == config.Value(3, "database")
    assert without_both.project("shop").values["gate.margin"] == config.Value(0.02, "default")


def test_a_wrong_environment_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, "", KEEPSIGHT_SERVING_LOG="sometimes")
    assert "KEEPSIGHT_SERVING_LOG" in caught.value.found


def test_a_project_has_all_its_settings_and_none_of_the_workspace(tmp_path: Path) -> None:
    settings = load(tmp_path, "projects: {shop: {}}\n").project("shop")
    assert set(settings.as_dict()) == {setting.name for setting in config.TABLE if setting.scope == "project"}


def test_an_unknown_project_is_refused_and_one_of_the_database_taken(tmp_path: Path) -> None:
    loaded = load(tmp_path, "projects: {shop: {}}\n")
    with pytest.raises(NotFoundError) as caught:
        loaded.project("shpo")
    assert caught.value.details["existing"] == ["shop"]
    assert loaded.project("attic", {})["task"] == "classification"


# --- adding a project -------------------------------------------------------------------------------------------------

COMMENTED = """\
# Maria's shop
machine:
  eur_per_hour: 0.2   # the old laptop

projects:
  # the till
  shop:
    task: classification
    gate:
      margin: 0.1  # we are careful
"""


def test_adding_a_project_leaves_every_line_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, COMMENTED)
    assert config.add_project(tmp_path, "office", task="classification") is True
    lines = (tmp_path / config.FILE_NAME).read_text().splitlines()
    added = ["  office:", "    task: classification"]
    assert [line for line in lines if line not in added] == [
        line for line in COMMENTED.splitlines() if line not in added
    ]
    loaded = config.load(tmp_path, environment={})
    assert set(loaded.projects) == {"shop", "office"}
    assert loaded.project("shop")["gate.margin"] == 0.1


def test_adding_it_again_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, COMMENTED)
    assert config.add_project(tmp_path, "shop", task="classification") is False
    assert (tmp_path / config.FILE_NAME).read_text() == COMMENTED
    with pytest.raises(ConflictError):
        config.add_project(tmp_path, "shop", task="ocr")
    assert (tmp_path / config.FILE_NAME).read_text() == COMMENTED


@pytest.mark.parametrize("content", ["", "# mine\n", "machine: {threads: 2}\n", "projects:\n", "projects: \n"])
def test_the_first_project_of_any_file(tmp_path: Path, content: str) -> None:
    write(tmp_path, content)
    config.add_project(tmp_path, "shop", task="classification")
    assert set(config.load(tmp_path, environment={}).projects) == {"shop"}
    assert all(line in (tmp_path / config.FILE_NAME).read_text() for line in content.splitlines())


@pytest.mark.parametrize("indent", ["  ", "    ", "\t".expandtabs(3)])
def test_the_files_own_indentation_is_kept(tmp_path: Path, indent: str) -> None:
    write(tmp_path, f"projects:\n{indent}shop:\n{indent * 2}task: classification\n")
    config.add_project(tmp_path, "office", task="classification")
    assert set(config.load(tmp_path, environment={}).projects) == {"shop", "office"}


@pytest.mark.parametrize("line", ["projects: {}", "projects:  # what we look at", "projects: null"])
def test_a_projects_line_that_holds_more_is_not_broken(tmp_path: Path, line: str) -> None:
    write(tmp_path, f"{line}\n")
    try:
        config.add_project(tmp_path, "shop", task="classification")
    except SettingsError as error:
        assert (tmp_path / config.FILE_NAME).read_text() == f"{line}\n"
        assert "by hand" in error.do
    else:
        assert set(config.load(tmp_path, environment={}).projects) == {"shop"}


def test_projects_in_one_line_are_not_rewritten(tmp_path: Path) -> None:
    write(tmp_path, "projects: {shop: {}}\n")
    with pytest.raises(SettingsError) as caught:
        config.add_project(tmp_path, "office", task="classification")
    assert "by hand" in caught.value.do
    assert (tmp_path / config.FILE_NAME).read_text() == "projects: {shop: {}}\n"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        config.add_project(tmp_path / "file" / "shop", "shop", task="classification")


@pytest.mark.parametrize("name", ["shop", "shop-2", "a", "7eleven", "main_till"])
def test_project_names_that_fit(name: str) -> None:
    assert config.check_project_name(name) == name


@pytest.mark.parametrize("name", ["", "Shop", "shop nord", "../shop", "-shop", "_shop", "späti", "a" * 41, "shop/x"])
def test_project_names_that_do_not_fit(name: str) -> None:
    with pytest.raises(SettingsError):
        config.check_project_name(name)
