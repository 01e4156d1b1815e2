"""``keepsight ci``: the pipeline once, for a forge's runner; ``ci init`` writes the forge's pipeline.

``keepsight ci shop`` is short for ``keepsight ci run shop``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from keepsight.cli.common import (
    Json,
    Project,
    Reason,
    WorkspaceOption,
    actor,
    opened,
    progress_bar,
    say,
    show,
    table,
    when,
)
from keepsight.cli.follow import POLL_S, exit_code, follow_run, limits, someone_leads, told_run
from keepsight.errors import BadInputError, ConflictError, KeepsightError, NotReadyError

if TYPE_CHECKING:
    from keepsight.delivery.registry import Registry
    from keepsight.loop.ci.standalone import Prepared
    from keepsight.loop.runs import RunRow
    from keepsight.store.workspace import Workspace

TOKEN_VARIABLE = "KEEPSIGHT_TOKEN"  # noqa: S105 -- a variable's name
# What forges call the change that they run on.
REVISION_VARIABLES = ("GITHUB_SHA", "CI_COMMIT_SHA")


class DefaultGroup(TyperGroup):
    """A group of which one command may be left out: ``ci shop`` is ``ci run shop``."""

    default_command = "run"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the default command before what is none."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=DefaultGroup, help="The pipeline once, for continuous integration: run, init, approve.", no_args_is_help=True
)


@dataclass
class _Files:
    """Where the report and the JUnit file go; each is written once, whatever happens."""

    report: Path | None
    junit: Path | None
    written: bool = False

    def write(self, report: Callable[[], str], junit: Callable[[], str]) -> None:
        """Writes those that were asked for.

        Raises:
            StorageError: One cannot be written.
        """
        from keepsight.errors import StorageError

        self.written = True
        for path, text in ((self.report, report), (self.junit, junit)):
            if path is None:
                continue
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text(), encoding="utf-8")
            except OSError as error:
                raise StorageError(
                    f"{path} cannot be written: {error.strerror}.", expected="a path to write to.", do="Name another."
                ) from None


@app.command("run")
def run(
    project: Project,
    report: Annotated[Path | None, typer.Option(help="Write the report (Markdown) here.", show_default=False)] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.", show_default=False)] = None,
    server: Annotated[
        str | None,
        typer.Option(help="Run on this server (token: KEEPSIGHT_TOKEN); else here.", show_default=False),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Which recipe; else the setting train.recipe.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Longest time, such as 90s, 10m or 2h; else train.budget_minutes.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="Most that it may cost, in euro.", min=0.0)] = None,
    promote: Annotated[bool, typer.Option(help="Release the model if it passes; else only say whether.")] = True,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "continuous integration",
    wait: Annotated[bool, typer.Option(help="Wait for a run that is under way; else that is an error.")] = True,
    timeout: Annotated[str, typer.Option(help="Longest time to wait for the end, such as 30m or 6h.")] = "6h",
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> int:
    """Preprocess, train, evaluate, gate, deploy. Exit code 0 deployed, 1 gate failed, 2 error, 3 a person decides."""
    files = _Files(report, junit)
    wishes: dict[str, Any] = {"promote": promote, **limits(budget, max_cost)}
    if recipe is not None:
        wishes["recipe"] = recipe
    deadline = time.monotonic() + _seconds(timeout)
    try:
        if server is not None:
            value = _on_server(server, project, wishes, reason, files, wait=wait, deadline=deadline, quiet=json)
        else:
            with opened(workspace) as ws:
                value = _here(ws, project, wishes, reason, files, wait=wait, deadline=deadline, quiet=json)
    except KeepsightError as error:
        _tell_files(files, project, error)
        raise
    row, published = value
    code = exit_code(row)
    result = {
        **row.as_dict(),
        "exit_code": code,
        "registry": published,
        "report": None if report is None else str(report),
        "junit": None if junit is None else str(junit),
    }
    show(result, as_json=json, text=lambda: "\n".join([told_run(row), *_told_registry(project, row, published)]))
    return code


@app.command("init")
def init(
    forge: Annotated[str, typer.Argument(help="github or gitlab.", show_default=False)],
    project: Annotated[str | None, typer.Option(help="Which project, where keepsight.yaml has several.")] = None,
    server_mode: Annotated[
        bool,
        typer.Option("--server-mode/--standalone", help="Runs on your server, or on the forge's runner alone."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a pipeline that is there.")] = False,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Write a pipeline for GitHub or GitLab: on changes, on schedule and on new data, with the report on the change."""
    from keepsight import config
    from keepsight.loop.ci import templates

    root = config.find_root(Path.cwd()) if workspace is None else workspace.resolve()
    written = templates.write(config.load(root), forge, project=project, on_server=server_mode, force=force)
    value = {"written": [str(path) for path in written.paths], "project": written.project, "next": list(written.next)}
    lines = [*(f"Wrote {path}." for path in written.paths), "Next:", *(f"  - {step}" for step in written.next)]
    show(value, as_json=json, text=lambda: "\n".join(lines))


@app.command("candidates")
def candidates(project: Project, workspace: WorkspaceOption = None, json: Json = False) -> None:
    """Models in the registry that are not live, newest first."""
    found = _registry(project, workspace).candidates(project)
    rows = [(item.digest[:12], item.decision, item.actor, item.reason, when(item.pushed_at)) for item in found]
    head = ("model", "gate said", "by", "reason", "made (UTC)")
    show([vars(item) for item in found], as_json=json, text=lambda: table(head, rows, empty="No candidates."))


@app.command("approve")
def approve(
    project: Project,
    model: Annotated[str, typer.Argument(help="Digest of the model, or its beginning.", show_default=False)],
    reason: Reason = "",
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> None:
    """Make a model of the registry the live one: one that the gate asked about, or one that was live before."""
    number = _registry(project, workspace).approve(project, model, actor=actor(), reason=reason)
    value = {"project": project, "model": model, "release": number}
    show(value, as_json=json, text=lambda: f"{model} is live in the registry now: release {number} of {project}.")


def _registry(project: str, workspace: Path | None) -> Registry:
    from keepsight import config
    from keepsight.delivery.registry import open_registry

    root = config.find_root(Path.cwd() if workspace is None else workspace.resolve())
    loaded = config.load(root)
    url = loaded.project(project)["registry.url"]
    if url is None:
        raise BadInputError(
            f"{project} has no registry.", expected="the setting registry.url.", do="Set it in keepsight.yaml."
        )
    return open_registry(str(url), root=root, mlflow_url=loaded["mlflow.url"])


def _on_server(
    url: str,
    project: str,
    wishes: dict[str, Any],
    reason: str,
    files: _Files,
    *,
    wait: bool,
    deadline: float,
    quiet: bool,
) -> tuple[RunRow, dict[str, Any] | None]:
    from keepsight.loop.ci import remote

    tell: Callable[[str], None] = (lambda _: None) if quiet else say
    there = remote.Server(url, project, os.environ.get(TOKEN_VARIABLE), deadline, say=tell)
    try:
        asked = there.request({**wishes, "reason": reason, "trigger": "ci"}, wait=wait)
        tell(f"Run {asked.id[:8]} on {url}")

        def read() -> RunRow:
            row = there.run(asked.id)
            if not row.finished:
                there.check_time(row.id)
            return row

        row = follow_run(read, cancel=lambda: there.cancel(asked.id), quiet=quiet, pauses=remote.pauses())
        files.write(lambda: there.text(row.id, "report.md"), lambda: there.text(row.id, "junit.xml"))
    finally:
        there.close()
    return row, None


def _here(
    ws: Workspace,
    project: str,
    wishes: dict[str, Any],
    reason: str,
    files: _Files,
    *,
    wait: bool,
    deadline: float,
    quiet: bool,
) -> tuple[RunRow, dict[str, Any] | None]:
    from keepsight.loop import leader, runs
    from keepsight.loop.ci import junit, report, standalone
    from keepsight.training import recipes

    ws.check_project(project)
    recipes.get(ws.settings(project)["task"], wishes.get("recipe", ws.settings(project)["train.recipe"]))
    prepared: Prepared | None = None
    if not leader.somebody_leads(ws):
        with progress_bar(quiet=quiet) as on_progress:
            prepared = standalone.prepare(
                ws,
                project,
                actor=actor(),
                progress=lambda text, done, total: on_progress({"text": text, "done": done, "total": total}),
            )
        wishes = {**wishes, "ci": prepared.facts}
    with someone_leads(ws, needed=True):
        run_id = _enqueue(ws, project, wishes, reason, wait=wait, deadline=deadline)

        def read() -> RunRow:
            row = runs.get(ws, run_id)
            if not row.finished and time.monotonic() > deadline:
                raise _too_long(run_id)
            return row

        row = follow_run(read, cancel=lambda: runs.cancel(ws, run_id, actor=actor()), quiet=quiet)
    text = report.of_run(ws, row)
    files.write(lambda: text, lambda: junit.of_run(row))
    published = None
    if prepared is not None:
        revision = next((os.environ[name] for name in REVISION_VARIABLES if name in os.environ), None)
        published = standalone.publish(ws, row, prepared, report=text, revision=revision)
    return row, published


def _enqueue(ws: Workspace, project: str, wishes: dict[str, Any], reason: str, *, wait: bool, deadline: float) -> str:
    from keepsight.loop import runs

    while True:
        try:
            return runs.enqueue(ws, project, trigger="ci", reason=reason, actor=actor(), params=wishes)
        except ConflictError as error:
            busy = str(error.details["run"])
            if not wait:
                raise
            say(f"Run {busy[:8]} is under way; waiting for its end.")
            while not runs.get(ws, busy).finished:
                if time.monotonic() > deadline:
                    raise _too_long(busy) from None
                time.sleep(POLL_S)


def _too_long(run_id: str) -> NotReadyError:
    return NotReadyError(
        f"The run {run_id[:8]} has not ended within --timeout.",
        expected="a run that ends in that time.",
        do="Allow more time, or a smaller --budget.",
        run=run_id,
    )


def _tell_files(files: _Files, project: str, error: KeepsightError) -> None:
    """Report and JUnit of an error; that they cannot be written must not hide it."""
    if files.written:
        return
    from keepsight.loop.ci import junit, report

    with suppress(KeepsightError):
        files.write(lambda: report.of_error(project, error), lambda: junit.of_error(project, error, now=time.time()))


def _told_registry(project: str, row: RunRow, published: dict[str, Any] | None) -> list[str]:
    if published is None:
        return []
    digest = published["bundle"][:12]
    if published["release"] is not None:
        return [f"In the registry: release {published['release']} ({digest})."]
    lines = [f"In the registry as a candidate ({digest})."]
    if row.outcome == "ask":
        lines.append(f'To release it: keepsight ci approve {project} {digest} --reason "..."')
    return lines


def _seconds(timeout: str) -> float:
    from keepsight.config import kinds

    try:
        return kinds.minutes(timeout) * 60
    except ValueError as error:
        raise BadInputError(
            f'--timeout is "{timeout}".', expected=f"{error}.", do="Write it like --timeout 30m."
        ) from None
