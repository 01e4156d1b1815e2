"""A run on an empty machine: pictures and champion come in, nothing that trained judges, and what passes goes out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import obstore
import pytest
from obstore.store import MemoryStore

from keepsight.data import samples, versions
from keepsight.delivery import deployments
from keepsight.delivery.registry import Release, open_registry
from keepsight.errors import ConflictError, DataError, NotFoundError, SettingsError
from keepsight.loop import runs
from keepsight.loop.ci import junit, report, source, standalone
from keepsight.store import audit
from keepsight.store.workspace import Workspace
from keepsight.training import models
from tests import tiny

CHECKS = [
    {"name": "test", "status": "pass", "reason": "As good | as before.", "binding": True},
    {"name": "slice camera=<door>", "status": "fail", "reason": "Worse \x00there.", "binding": True},
    {"name": "latency", "status": "fail", "reason": "Slower.", "binding": False},
    {"name": "recent", "status": "cannot_tell", "reason": "No pictures.", "binding": True},
]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Any]:
    """``machines()``: an empty machine with the same photos and registry as the others."""
    with ExitStack() as stack:
        names = (f"machine{number}" for number in range(10))

        def machine(settings: str = "", **more: str) -> Workspace:
            said = {"data.source": tmp_path / "photos", "registry.url": tmp_path / "registry", **more}
            text = ", ".join(f"{name}: {str(value)!r}" for name, value in said.items())
            return stack.enter_context(tiny.workspace_with(tmp_path / next(names), text))

        yield machine


def photos(folder: Path, count: int, *, split: str = "") -> None:
    for seed in range(count):
        place = folder / split / "ab"[seed % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{seed}.png").write_bytes(tiny.picture(seed))


def released(tmp_path: Path, splits: dict[str, str], *, seed: int = 1) -> str:
    made = tiny.bundle(seed)
    release = Release(bundle=made, decision="deploy", expected=None, report="", splits=splits)
    open_registry("registry", root=tmp_path).push("shop", release, actor="ana", reason="first")
    return made.digest


def ended(ws: Workspace, prepared: standalone.Prepared, *, outcome: str, decision: str, seed: int = 2) -> runs.RunRow:
    """A run that trained this model and ended so."""
    params = {"ci": prepared.facts}
    run_id = runs.enqueue(ws, "shop", trigger="ci", reason="new pictures", actor="ben", params=params)
    for sample in samples.current(ws, "shop"):
        with ws.database.write() as connection:
            if sample.split == "pending":
                samples.move(connection, ws, "shop", sample.sample_id, "train", actor="ben")
    versions.commit(ws, "shop", message="new pictures", author="ben")
    latest = versions.latest(ws, "shop")
    assert latest is not None
    model = tiny.register(ws, tiny.bundle(seed), run_id=run_id)
    gate = {"decision": decision, "checks": CHECKS, "champion": None, "challenger": model.number}
    runs.update(ws, run_id, gate=gate, model_number=model.number, dataset_version=latest.number, outcome=outcome)
    runs.add_record(ws, run_id, {"bundle_digest": model.bundle_digest})
    runs.add_step(ws, run_id, name="version", began=1000.0, ended=1002.5)
    runs.finish(ws, run_id, status="done")
    return runs.get(ws, run_id)


def test_the_registrys_champion_is_live_and_its_pictures_keep_their_sides(machines: Any, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 6)
    known = {hashlib.sha256(tiny.picture(seed)).hexdigest(): split for seed, split in ((0, "test"), (1, "val"))}
    gone = {"ab" * 32: "test"}
    digest = released(tmp_path, {**known, **gone})
    first, second = machines(), machines()
    for ws in (first, second):
        prepared = standalone.prepare(ws, "shop", actor="ben")
        assert prepared.expected == digest
        assert prepared.facts["pictures"] == {"knew": 2, "new": 4, "gone": 1}
        assert prepared.facts["imported"]["added"] == 6
        champion = models.champion(ws, "shop")
        assert champion is not None
        assert champion.bundle_digest == digest
        [made] = deployments.history(ws, "shop")
        assert (made.kind, made.actor) == ("registry", "ben")
        assert "release 1 of the registry, by ana: first" in made.reason
        found = {sample.name: sample.split for sample in samples.current(ws, "shop")}
        assert (found["a/0.png"], found["b/1.png"], found["a/2.png"]) == ("test", "val", "pending")
    audit.verify(first.database)
    # Again on the same machine: nothing is there twice.
    assert standalone.prepare(first, "shop", actor="ben").facts["imported"]["unchanged"] == 6
    assert len(models.list_models(first, "shop")) == len(deployments.history(first, "shop")) == 1


def test_a_split_that_the_folders_say_is_kept(machines: Any, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 4, split="train")
    photos(tmp_path / "photos", 2, split="test")
    ws = machines()
    standalone.prepare(ws, "shop", actor="ben")
    assert {sample.split for sample in samples.current(ws, "shop")} <= {"train", "test"}


@pytest.mark.parametrize(("outcome", "decision", "number"), [("deployed", "deploy", 1), ("ask", "ask", None)])
def test_what_a_run_made_goes_into_the_registry(
    machines: Any, tmp_path: Path, outcome: str, decision: str, number: int | None
) -> None:
    photos(tmp_path / "photos", 4)
    ws = machines()
    prepared = standalone.prepare(ws, "shop", actor="ben")
    row = ended(ws, prepared, outcome=outcome, decision=decision)
    told = standalone.publish(ws, row, prepared, report="# Report", revision="abc")
    assert told == {"bundle": tiny.bundle(2).digest, "decision": decision, "release": number}
    registry = open_registry("registry", root=tmp_path)
    champion = registry.champion("shop")
    if number is None:
        assert champion is None
        [waiting] = registry.candidates("shop")
        assert waiting.facts["revision"] == "abc"
        registry.approve("shop", waiting.digest, actor="ana", reason="looked")
        champion = registry.champion("shop")
    assert champion is not None
    assert champion.splits == {hashlib.sha256(tiny.picture(seed)).hexdigest(): "train" for seed in range(4)}


def test_a_run_that_only_tries_stores_nothing(machines: Any, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 4)
    ws = machines()
    prepared = standalone.prepare(ws, "shop", actor="ben")
    row = ended(ws, prepared, outcome="kept", decision="deploy")
    assert standalone.publish(ws, row, prepared, report="") is None
    assert open_registry("registry", root=tmp_path).candidates("shop") == []


def test_a_champion_released_meanwhile_is_not_replaced(machines: Any, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 4)
    ws = machines()
    prepared = standalone.prepare(ws, "shop", actor="ben")
    row = ended(ws, prepared, outcome="deployed", decision="deploy")
    quicker = released(tmp_path, {}, seed=5)
    with pytest.raises(ConflictError, match="compared with none"):
        standalone.publish(ws, row, prepared, report="")
    champion = open_registry("registry", root=tmp_path).champion("shop")
    assert champion is not None
    assert champion.digest == quicker
    # The next run on this machine is compared with what is live elsewhere.
    standalone.prepare(ws, "shop", actor="ben")
    live = models.champion(ws, "shop")
    assert live is not None
    assert live.bundle_digest == quicker


def test_only_a_registry_that_is_set_may_say_what_is_live(tmp_path: Path) -> None:
    with tiny.workspace_with(tmp_path / "ws") as ws:
        model = tiny.register(ws)
        with pytest.raises(ConflictError, match="no registry"):
            deployments.promote(ws, "shop", model.number, actor="eve", reason="mine", kind=deployments.REGISTRY)


def test_a_bucket_is_downloaded(tmp_path: Path) -> None:
    store = MemoryStore()
    for path, content in {"a/1.png": b"one", "b/deep/2.png": b"two", "a": b"", "list.csv": b""}.items():
        obstore.put(store, path, content)
    seen: list[tuple[int, int]] = []
    source.download(store, tmp_path, progress=lambda done, total: seen.append((done, total)))
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"a/1.png": b"one", "b/deep/2.png": b"two", "list.csv": b""}
    assert seen[-1] == (3, 3)
    with pytest.raises(DataError, match="nothing"):
        source.download(MemoryStore(), tmp_path, progress=lambda *_: None)


def test_sources_may_be_tables_and_urls_of_folders(machines: Any, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 4)
    lines = ["path,label,split", *(f"photos/{'ab'[seed % 2]}/{seed}.png,x,test" for seed in range(4))]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    for url in (str(tmp_path / "list.csv"), f"file://{tmp_path}/photos", "../photos"):
        ws = machines(**{"data.source": url})
        assert standalone.prepare(ws, "shop", actor="ben").facts["imported"]["added"] == 4
    with pytest.raises(NotFoundError):
        standalone.prepare(machines(**{"data.source": "nowhere"}), "shop", actor="ben")
    with pytest.raises(SettingsError, match=r"data\.source"):
        standalone.prepare(machines(**{"data.source": "ftp://host/photos"}), "shop", actor="ben")


def test_the_report_tells_verdict_checks_and_data(machines: Any, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 4)
    released(tmp_path, {})
    ws = machines()
    prepared = standalone.prepare(ws, "shop", actor="ben")
    text = report.of_run(ws, ended(ws, prepared, outcome="ask", decision="ask"))
    assert text.startswith("# Keepsight: shop\n")
    assert "**A person must decide." in text
    assert "keepsight ci approve shop" in text
    assert "As good" in text
    assert "4 pictures added" in text
    assert "0 the same, 4 new, 0 gone" in text
    assert "| version | 2 s |" in text


def test_the_report_of_a_failed_run_says_what_to_do(machines: Any) -> None:
    ws = machines()
    run_id = runs.enqueue(ws, "shop", trigger="ci", reason="push", actor="ben")
    runs.update(ws, run_id, status="running", step="version")
    error = DataError("shop has no pictures yet.", expected="some.", do="Import some.").as_dict()["error"]
    runs.finish(ws, run_id, status="failed", error=error)
    row = runs.get(ws, run_id)
    assert "Import some." in report.of_run(ws, row)
    [suite] = ElementTree.fromstring(junit.of_run(row))
    failed = {case.get("name"): case for case in suite.iter("testcase") if case.find("error") is not None}
    assert list(failed) == ["version"]
    assert suite.get("errors") == "1"


def test_what_failed_after_the_outcome_is_a_warning(machines: Any, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 4)
    ws = machines()
    row = ended(ws, standalone.prepare(ws, "shop", actor="ben"), outcome="deployed", decision="deploy")
    warning = {"found": "The disk is full.", "do": "Free some.", "step": "robustness"}
    row = replace(row, record={**(row.record or {}), "warnings": [warning]})
    text = report.of_run(ws, row)
    assert "robustness: The disk is full. What to do: Free some." in text
    assert "Error" not in text
    pipeline, _ = ElementTree.fromstring(junit.of_run(row))
    assert pipeline.get("errors") == "0"
    [skipped] = [case.find("skipped") for case in pipeline.iter("testcase") if case.get("name") == "robustness"]
    assert skipped is not None and skipped.get("message") == "The disk is full."


def test_junit_has_a_case_for_each_step_and_check(machines: Any, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 4)
    ws = machines()
    row = ended(ws, standalone.prepare(ws, "shop", actor="ben"), outcome="rejected", decision="reject")
    pipeline, gate = ElementTree.fromstring(junit.of_run(row))
    assert [case.get("name") for case in pipeline.iter("testcase")] == list(junit.STEPS)
    kinds = {case.get("name"): [child.tag for child in case] for case in gate.iter("testcase")}
    assert kinds == {"test": [], "slice camera=<door>": ["failure"], "latency": ["skipped"], "recent": ["skipped"]}
    assert (gate.get("tests"), gate.get("failures"), gate.get("errors"), gate.get("skipped")) == ("4", "1", "0", "2")
    # What the schema of Ant's JUnit task asks for, in its order.
    for number, suite in enumerate((pipeline, gate)):
        assert {"name", "package", "timestamp", "hostname", "tests", "failures", "errors", "time"} <= set(suite.keys())
        assert suite.get("id") == str(number)
        tags = [child.tag for child in suite]
        assert tags == ["properties", *["testcase"] * (len(tags) - 3), "system-out", "system-err"]
        for case in suite.iter("testcase"):
            assert {"name", "classname", "time"} == set(case.keys())
            assert all(child.tag == "skipped" or child.get("type") for child in case)
