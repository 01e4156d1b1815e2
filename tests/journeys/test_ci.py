"""Continuous integration as a forge's runner does it: an empty clone, one command, an exit code and a report."""

from __future__ import annotations

import hashlib
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from keepsight.cli.demo_pictures import DemoPicture
from tests.journeys import place
from tests.journeys.place import Workplace, wait_for, write_folder

pytestmark = pytest.mark.journey

SETTINGS = """projects:
  shop:
    task: classification
    data: {source: photos}
    registry: {url: %s}
    train: {recipe: head}
    gate: {margin: 0.2, min_pictures: %d}
"""


@dataclass
class Forge:
    """A repository, the runners that clone it, and a registry that outlives them."""

    folder: Path
    environment: dict[str, str]
    runners: int = 0

    def commit(self, pictures: list[DemoPicture], *, min_pictures: int = 0) -> None:
        """Settings and pictures of the repository."""
        repository = self.folder / "repository"
        if not repository.exists():
            subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
        subprocess.run(["git", "rm", "-r", "--quiet", "--ignore-unmatch", "."], cwd=repository, check=True)
        (repository / "keepsight.yaml").write_text(SETTINGS % (self.folder / "registry", min_pictures))
        write_folder(repository / "photos", pictures)
        who = ["-c", "user.name=Ana", "-c", "user.email=ana@example.com"]
        subprocess.run(["git", "add", "."], cwd=repository, check=True)
        subprocess.run(["git", *who, "commit", "--quiet", "-m", "pictures"], cwd=repository, check=True)

    def runner(self) -> Workplace:
        """An empty machine with a fresh clone."""
        self.runners += 1
        clone = self.folder / f"runner{self.runners}"
        subprocess.run(["git", "clone", "--quiet", str(self.folder / "repository"), str(clone)], check=True)
        assert not (clone / ".keepsight").exists()
        return Workplace(clone, self.environment)

    def champions(self) -> list[dict[str, Any]]:
        """What the registry released, in order."""
        return [json.loads(path.read_text()) for path in sorted((self.folder / "registry/shop/champions").glob("*"))]


@pytest.fixture
def forge(tmp_path: Path, environment: dict[str, str]) -> Forge:
    return Forge(tmp_path, environment)


def ci(runner: Workplace, *options: str) -> tuple[int, dict[str, Any], str, ElementTree.Element]:
    """Exit code, JSON, report and JUnit of ``keepsight ci shop``."""
    done = runner.run("ci", "shop", "--report", "report.md", "--junit", "junit.xml", "--json", *options, check=False)
    value = json.loads(done.stdout)
    report = (runner.root / "report.md").read_text()
    return done.returncode, value, report, ElementTree.parse(runner.root / "junit.xml").getroot()


def mislabelled(pictures: list[DemoPicture], splits: dict[str, str]) -> list[DemoPicture]:
    """The same pictures; those that are not for testing lie in the folders of other classes."""
    turned = {"one": "four", "four": "seven", "seven": "one"}
    tested = {sha for sha, split in splits.items() if split == "test"}
    return [
        picture
        if hashlib.sha256(picture.read()).hexdigest() in tested
        else DemoPicture(picture.name, turned[picture.label], picture.read)
        for picture in pictures
    ]


def test_runs_on_empty_machines_share_a_champion(forge: Forge, pictures: list[DemoPicture]) -> None:
    forge.commit(pictures[:100])
    code, run, report, cases = ci(forge.runner())
    assert (code, run["exit_code"], run["outcome"], run["trigger"]) == (0, 0, "deployed", "ci")
    assert run["registry"]["release"] == 1
    assert "Released: it is the live model now." in report
    assert "no model was live" in report
    assert {suite.get("name"): suite.get("failures") for suite in cases} == {"pipeline": "0", "gate": "0"}
    [first] = forge.champions()
    assert first["bundle"] == run["record"]["bundle_digest"]

    # Worse data: the gate holds it back, and says why.
    known = forge.folder / "registry/shop/bundles" / first["bundle"] / "splits.json"
    forge.commit(mislabelled(pictures[:100], json.loads(known.read_text())))
    code, worse, report, cases = ci(forge.runner())
    assert (code, worse["outcome"]) == (1, "rejected")
    assert "Not released" in report
    assert "❌" in report
    assert "release 1 of the registry" in report
    [gate] = [suite for suite in cases if suite.get("name") == "gate"]
    assert [case.get("name") for case in gate.iter("testcase") if case.find("failure") is not None] == ["test"]
    assert forge.champions() == [first]

    # Too little evidence: a person is asked, and releases it.
    forge.commit(pictures[:120], min_pictures=1000)
    runner = forge.runner()
    code, asked, report, cases = ci(runner)
    assert (code, asked["outcome"]) == (3, "ask")
    assert "100 the same, 20 new, 0 gone" in report
    # What the champion was tested on stays the test: a machine that dealt the pictures anew would flatter it.
    told = asked["gate"]["sides"]["parts"]["test"]
    tested, right = run["record"]["pictures"]["test"], run["record"]["metrics"]["accuracy"]["value"]
    assert tested <= told["n"] <= tested + 20
    assert abs(told["champion"]["value"] * told["n"] - right * tested) <= told["n"] - tested
    digest = asked["registry"]["bundle"][:12]
    assert f"keepsight ci approve shop {digest}" in report
    assert any(case.find("skipped") is not None for case in cases.iter("testcase"))
    assert digest in runner.run("ci", "candidates", "shop").stdout
    runner.run("ci", "approve", "shop", digest, "--reason", "looked at all of them")
    assert [entry["kind"] for entry in forge.champions()] == ["promote", "override"]


def test_a_runner_without_pictures_says_so(forge: Forge) -> None:
    forge.commit([])
    code, error, report, cases = ci(forge.runner())
    assert code == 2
    assert error["error"]["code"] == "not_found"
    assert "photos" in report
    assert cases.find("testsuite/testcase/error") is not None


def test_a_run_on_the_companys_server(trained: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner has nothing but the address and a token; the server is killed and restarted during the run."""
    token = trained.json("token", "create", "ci", "--scope", "operate")["token"]
    runner = Workplace(tmp_path / "runner", {**trained.environment, "KEEPSIGHT_TOKEN": token})
    runner.root.mkdir()
    with trained.up() as server:
        url, port = server.base, server.port
        wrong = runner.run("ci", "shop", "--server", url, check=False, KEEPSIGHT_TOKEN="ks_nonsense")
        assert wrong.returncode == 2
        assert "KEEPSIGHT_TOKEN" in wrong.stderr
        unknown = runner.run("ci", "shpo", "--server", url, "--json", check=False)
        assert (unknown.returncode, json.loads(unknown.stdout)["error"]["code"]) == (2, "not_found")
        options = ("--server", url, "--no-promote", "--recipe", "head", "--budget", "5m", "--timeout", "2m")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ci, runner, *options)
            server.client.headers["authorization"] = f"Bearer {token}"
            wait_for(lambda: [run for run in server.get("runs")["runs"] if run["trigger"] == "ci"], "the run")
            server.kill()
            monkeypatch.setattr(place, "free_port", lambda: port)
            with trained.up():
                code, run, report, cases = waiting.result()
    assert (run["status"], run["actor"], run["params"]["budget_minutes"]) == ("done", "ci", 5)
    assert (code, run["outcome"]) in {(0, "kept"), (1, "rejected"), (3, "ask")}
    assert "Live model and new model" in report
    assert len(list(cases.iter("testcase"))) > 6
    away = runner.run("ci", "shop", "--server", url, "--timeout", "3s", check=False)
    assert away.returncode == 2
    assert "cannot be reached" in away.stderr
