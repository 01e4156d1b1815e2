"""``keepsight ci``: pipelines of forges that are what the forge expects, and errors that reach the report."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
import yaml

from keepsight import __version__
from keepsight.cli.ci import app
from keepsight.delivery.registry import Release, open_registry
from tests import tiny

from .conftest import Run

SETTINGS = """projects:
  shop: {task: classification, data: {source: photos}, registry: {url: s3://models/shop}, train: {recipe: head}}
"""
SECRETS = ("KEEPSIGHT_TOKEN", "KEEPSIGHT_SERVER")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What git gives: settings, and nothing else."""
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "keepsight.yaml").write_text(SETTINGS)
    return folder


def call_of(text: str) -> list[str]:
    """The arguments of ``keepsight ci`` in a pipeline."""
    [found] = re.findall(r"keepsight ci (shop (?:.|\n)*?)\n *(?:code=|after_script)", text)
    return shlex.split(found.replace("\\\n", " ").replace("$PROMOTE", "--no-promote"))


@pytest.mark.parametrize("mode", ["--server-mode", "--standalone"])
@pytest.mark.parametrize("forge", ["github", "gitlab"])
def test_the_pipeline_calls_what_exists(run: Run, clone: Path, forge: str, mode: str) -> None:
    done = run("ci", "init", forge, mode, "-w", clone)
    assert done.code == 0
    target = clone / {"github": ".github/workflows/keepsight.yml", "gitlab": ".gitlab-ci.yml"}[forge]
    text = target.read_text()
    assert "@" not in re.sub(r"@v\d+\.\d+\.\d+|body@report\.md", "", text), "every place is filled in"
    assert f'"keepsight[server]=={__version__}"' in text
    arguments = call_of(text)
    command: Any = typer.main.get_command(app)
    made = command.commands["run"].make_context("run", arguments)
    assert (made.params["project"], str(made.params["report"])) == ("shop", "report.md")
    assert (made.params["server"] is not None) == (mode == "--server-mode")
    assert all((name in text) == (mode == "--server-mode") for name in SECRETS)
    assert '"photos/**"' in text
    assert {".keepsight/", ".cache/"} <= set((clone / ".gitignore").read_text().splitlines())


def test_github_runs_on_changes_schedule_and_new_data(run: Run, clone: Path) -> None:
    run("ci", "init", "github", "-w", clone)
    found = yaml.safe_load((clone / ".github/workflows/keepsight.yml").read_text())
    # YAML 1.1 reads the key `on` as true.
    assert {"push", "pull_request", "schedule", "workflow_dispatch", "repository_dispatch"} == set(found[True])
    steps = found["jobs"]["keepsight"]["steps"]
    uses = [step["uses"] for step in steps if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", use) for use in uses), "actions are pinned"
    [ran] = [step for step in steps if step.get("id") == "run"]
    assert "--no-promote" in ran["env"]["PROMOTE"], "a change that is not merged releases nothing"
    assert "${{" not in ran["run"], "nothing that others write is pasted into the shell"


def test_gitlab_shows_a_question_as_a_warning(run: Run, clone: Path) -> None:
    run("ci", "init", "gitlab", "-w", clone)
    job = yaml.safe_load((clone / ".gitlab-ci.yml").read_text())["keepsight"]
    assert job["allow_failure"] == {"exit_codes": 3}
    assert job["artifacts"]["reports"] == {"junit": "junit.xml"}
    assert job["artifacts"]["when"] == "always"


def test_a_pipeline_that_is_there_stays(run: Run, clone: Path) -> None:
    target = clone / ".gitlab-ci.yml"
    target.write_text("mine: {}\n")
    (clone / ".gitignore").write_text("dist/\n.keepsight/")
    refused = run("ci", "init", "gitlab", "-w", clone)
    assert (refused.code, target.read_text()) == (2, "mine: {}\n")
    assert run("ci", "init", "gitlab", "--force", "-w", clone).code == 0
    assert "keepsight ci shop" in target.read_text()
    assert (clone / ".gitignore").read_text() == "dist/\n.keepsight/\n.cache/\n"


def test_init_says_what_is_missing(run: Run, clone: Path) -> None:
    (clone / "keepsight.yaml").write_text("projects: {shop: {train: {recipe: finetune}}, door: {}}\n")
    assert run("ci", "init", "github", "-w", clone).code == 2
    assert "svn" in run("ci", "init", "svn", "--project", "shop", "-w", clone).err
    done = run("ci", "init", "github", "--project", "shop", "-w", clone, "--json").json
    assert "Set data.source and registry.url" in done["next"][0]
    assert "keepsight[train]==" in (clone / ".github/workflows/keepsight.yml").read_text()


def test_an_error_stands_in_report_and_junit(run: Run, clone: Path, tmp_path: Path) -> None:
    report, junit = tmp_path / "out" / "report.md", tmp_path / "out" / "junit.xml"
    done = run("ci", "shop", "--recipe", "magic", "--report", report, "--junit", junit, "-w", clone, "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_found")
    assert "magic" in report.read_text()
    [case] = ElementTree.parse(junit).getroot().iter("testcase")
    assert case.find("error") is not None


def test_mistakes_in_options_are_told(run: Run, clone: Path) -> None:
    assert "--timeout" in run("ci", "shop", "--timeout", "soon", "-w", clone).err
    assert "shpo" in run("ci", "shpo", "-w", clone).err
    assert "no address" in run("ci", "shop", "--server", "nowhere", "-w", clone).err


def test_a_person_approves_a_candidate(run: Run, clone: Path) -> None:
    (clone / "keepsight.yaml").write_text("projects: {shop: {registry: {url: models}}, door: {}}\n")
    assert run("ci", "candidates", "shop", "-w", clone).out == "No candidates.\n"
    made = tiny.bundle(1)
    release = Release(bundle=made, decision="ask", expected=None, report="", splits={})
    open_registry("models", root=clone).push("shop", release, actor="ben", reason="new pictures")
    [waiting] = run("ci", "candidates", "shop", "-w", clone, "--json").json
    assert (waiting["digest"], waiting["decision"]) == (made.digest, "ask")
    assert run("ci", "approve", "shop", made.digest[:12], "-w", clone).code == 2, "a reason is needed"
    done = run("ci", "approve", "shop", made.digest[:12], "--reason", "looked", "-w", clone, "--json")
    assert done.json["release"] == 1
    assert not (clone / ".keepsight").exists(), "no workspace is made for it"
    assert "no registry" in run("ci", "candidates", "door", "-w", clone).err
