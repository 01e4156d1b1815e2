"""What tests need from outside the repository: PostgreSQL, pictures, Chromium. Each is used where it is found."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from keepsight.store import migrate
from keepsight.store.database import Database
from keepsight.store.workspace import Workspace
from tests.plugins.installed import install

REPOSITORY = Path(__file__).resolve().parent.parent
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
STRICT = os.environ.get("KEEPSIGHT_TEST_STRICT") == "1"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real pictures: ``KEEPSIGHT_TEST_DATA``, or ``shared/data`` beside the repository."""
    path = Path(os.environ.get("KEEPSIGHT_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"no pictures at {path}; set KEEPSIGHT_TEST_DATA")
    return path


@pytest.fixture(scope="session")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the task ``counting`` is installed, which comes from outside (``tests/plugins/counting``)."""
    return install("counting", tmp_path_factory.mktemp("counting"))


@pytest.fixture(scope="session")
def chromium() -> Path:
    """Chromium's executable, for playwright's ``executable_path``."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return Path(found)
    pytest.skip("Chromium is not installed")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a throw-away PostgreSQL server, on a socket in its own folder; gone after the session."""
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL's programs (initdb, postgres) are not installed")
    identity = _unprivileged()
    # Not tmp_path: pytest closes that folder to other users, and a socket's path has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="keepsight-pg-"))
    try:
        if identity:
            shutil.chown(folder, identity["user"], identity["group"])
        initdb: list[str | Path] = [programs / "initdb", "--pgdata", folder / "data", "--username", "tester"]
        initdb += ["--auth", "trust", "--encoding", "UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **identity)
        command: list[str | Path] = [programs / "postgres", "-D", folder / "data", "-k", folder]
        # Nothing of this outlives the session, so it need not survive a power cut.
        for setting in ("listen_addresses=", "fsync=off", "synchronous_commit=off", "full_page_writes=off"):
            command += ["-c", setting]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **identity)
        try:
            url = f"postgresql://tester@/postgres?host={folder}"
            _await_postgres(url, server, folder / "log")
            yield url
        finally:
            # The fast shutdown: open connections are closed.
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder)


def needs(*libraries: str) -> None:
    """Skips where a library of an extra is not installed; ``make extras`` installs them."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; `make extras` does that")


@pytest.fixture(scope="session")
def torch_installed() -> None:
    """For tests of the extra [train]."""
    needs("torch", "torchvision", "timm", "optuna")


@pytest.fixture(scope="session")
def ray_installed() -> None:
    """For tests of the extra [ray]."""
    needs("ray")


@pytest.fixture(scope="session")
def video_installed() -> None:
    """For tests of the extra [video]."""
    needs("av")


@pytest.fixture(scope="session")
def mlflow_installed() -> None:
    """For tests of the extra [mlflow]."""
    needs("mlflow")


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """URL of an empty database of its own on the throw-away server."""
    with _new_database(postgres_url, template="template1") as name:
        yield _named(postgres_url, name)


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> Iterator[str]:
    """Name of a database with all tables and no rows, which is copied quicker than it is made."""
    with _new_database(postgres_url, template="template1") as name:
        database = Database(Path(), url=_named(postgres_url, name))
        migrate.upgrade(database)
        database.close()
        yield name


@pytest.fixture
def migrated_database(postgres_url: str, postgres_template: str) -> Iterator[str]:
    """URL of a database of its own that has all tables."""
    with _new_database(postgres_url, template=postgres_template) as name:
        yield _named(postgres_url, name)


@contextmanager
def _new_database(postgres_url: str, *, template: str) -> Iterator[str]:
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield name
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _named(postgres_url: str, database: str) -> str:
    return postgres_url.replace("/postgres?", f"/{database}?")


def _await_postgres(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    for _ in range(600):
        if server.poll() is not None:
            break
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")


@pytest.fixture(params=["sqlite", "postgresql"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace with the projects shop and other, on either database; its clock stands at 1,000 s.

    Indirect parameters would hide what a test needs, so whoever wants other settings writes ``keepsight.yaml`` anew and
    opens ``workspace.config.root`` again.
    """
    root = tmp_path / "workspace"
    root.mkdir()
    place = ""
    if request.param == "postgresql":
        place = f"database: {request.getfixturevalue('migrated_database')}\n"
    (root / "keepsight.yaml").write_text(f"{place}projects: {{shop: {{}}, other: {{}}}}\n")
    opened = Workspace.open(root, environment={}, clock=lambda: 1000.0)
    for project in opened.config.projects:
        opened.ensure_project(project)
    yield opened
    opened.close()


def _postgres_programs() -> Path | None:
    """The folder of the newest server programs; Debian keeps them off the PATH."""
    on_path = shutil.which("postgres")
    if on_path and shutil.which("initdb"):
        return Path(on_path).resolve().parent
    installed = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(installed, key=lambda path: float(path.parent.name), default=None)


def _unprivileged() -> dict[str, Any]:
    """How to start a process as somebody else than root, whom PostgreSQL refuses; nothing where we are not root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ``KEEPSIGHT_TEST_STRICT=1`` a skipped test is a failed one: nothing is left out unseen."""
    report = yield
    return _strict(report, item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself as a whole."""
    report = yield
    return _strict(report, collector.nodeid)


def _strict(report: Report, name: str) -> Report:
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{name} was skipped, and KEEPSIGHT_TEST_STRICT=1 allows no skips: {reason}"
    return report
