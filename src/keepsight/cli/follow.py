"""``train`` and ``retrain``: ask for a run and follow it.

With a server on the workspace the run is a row that its leader picks up. Without one, this process is the leader for as
long as the run takes; if it is killed, the next ``train`` or ``up`` finishes the run.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keepsight.cli.common import (
    EXIT_ERROR,
    Json,
    Project,
    WorkspaceOption,
    actor,
    interval,
    opened,
    progress_bar,
    say,
    show,
)

if TYPE_CHECKING:
    from keepsight.loop.runs import RunRow
    from keepsight.store.workspace import Workspace

POLL_S = 0.1
EXIT_CODES = {"deployed": 0, "kept": 0, "rejected": 1, "ask": 3}
STEP_TEXTS = {
    "version": "committing the labels",
    "features": "looking at the pictures",
    "train": "training",
    "evaluate": "evaluating",
    "gate": "passing the gate",
    "deploy": "releasing",
    "robustness": "spoiling pictures, to see what it bears",
}


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("train")(train)
    app.command("retrain")(retrain)


def train(
    project: Project,
    recipe: Annotated[str | None, typer.Option(help="Which recipe; else the setting train.recipe.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Longest time, such as 90s, 10m or 2h; else train.budget_minutes.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="Most that it may cost, in euro.", min=0.0)] = None,
    version: Annotated[
        str | None, typer.Option(help="Dataset version or tag; else commit and take the newest.")
    ] = None,
    promote: Annotated[bool, typer.Option(help="Release the model if it passes the gate.")] = True,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "trained by hand",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    where: Annotated[
        Path | None,
        typer.Option(help="Train on a rented machine, which this YAML file describes.", show_default=False),
    ] = None,
    start: Annotated[
        bool, typer.Option("--start", help="With --where: rent it now; else only write the task.")
    ] = False,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> int:
    """Train a model, gate it and release it. Exit code 0 released, 1 rejected, 2 error, 3 a person must decide."""
    params: dict[str, Any] = {"promote": promote, **limits(budget, max_cost)}
    with opened(workspace) as ws:
        ws.check_project(project)
        if recipe is not None:
            from keepsight.training import recipes

            recipes.get(ws.settings(project)["task"], recipe)
            params["recipe"] = recipe
        if version is not None:
            from keepsight.data import versions

            params["version"] = versions.get(ws, project, version).number
        if dry_run:
            from keepsight.loop import estimate

            expected = estimate.of_run(ws, project, params).as_dict()
            show(expected, as_json=json, text=lambda: told_estimate(expected))
            return 0
        if where is not None:
            words = [*(() if recipe is None else ("--recipe", recipe))]
            words += [*(() if budget is None else ("--budget", budget))]
            words += [*(() if max_cost is None else ("--max-cost", str(max_cost)))]
            words += [] if promote else ["--no-promote"]
            return _rent(
                ws, project, where, words, version=params.get("version"), reason=reason, start=start, as_json=json
            )
        return _request(ws, project, reason=reason, params=params, follow=True, as_json=json)


def _rent(
    ws: Workspace,
    project: str,
    where: Path,
    words: list[str],
    *,
    version: int | None,
    reason: str,
    start: bool,
    as_json: bool,
) -> int:
    """Brings the data into the bucket, writes the task and, where asked to, starts it."""
    import shlex
    import shutil
    import subprocess

    from keepsight.delivery.where import wish
    from keepsight.errors import ConflictError
    from keepsight.loop import rented

    wanted = wish.load(where)
    with progress_bar(quiet=as_json) as bar:
        task = rented.prepare(
            ws,
            project,
            wanted,
            options=words,
            version=version,
            reason=reason,
            actor=actor(),
            progress=lambda text, done, total: bar({"text": text, "done": done, "total": total}),
        )
    typed = shlex.join(task.command)
    if start:
        if shutil.which(task.command[0]) is None:
            raise ConflictError(
                f"{task.command[0]} is not installed here.",
                expected="the tool that rents the machine.",
                do=f"Where it is installed, type: {typed}",
            )
        # Its output goes to stderr: stdout holds the result alone.
        code = subprocess.run(task.command, check=False, stdout=2).returncode  # noqa: S603 -- our own words
        if code != 0:
            raise ConflictError(
                f"{task.command[0]} ended with code {code}.",
                expected="a task that is taken on.",
                do=f"Read what it said, then type: {typed}",
            )
    lines = [
        f"{task.pictures} pictures lie at {task.source} ({task.uploaded} uploaded, {task.removed} objects removed).",
        f"Wrote {task.path}.",
        "It was started." if start else f"Start it: {typed}",
        f"The new model will be in {task.registry}; take it over with registry.url: {task.registry} and",
        f"  keepsight models fetch {project}",
    ]
    show({**task.as_dict(), "started": start}, as_json=as_json, text=lambda: "\n".join(lines))
    return 0


def told_estimate(expected: Mapping[str, Any]) -> str:
    """An estimate in a line."""
    seconds, cost = expected["seconds"], expected["cost_eur"]
    return (
        f"Estimate: {duration(seconds['value'])} ({duration(seconds['low'])} to {duration(seconds['high'])}), "
        f"{cost['value']:.4f} EUR (at most {cost['high']:.4f}), from {expected['basis']}."
    )


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "3 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def retrain(
    project: Project,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "retrained by hand",
    follow: Annotated[bool, typer.Option(help="Wait for the end; --no-follow only asks for it.")] = True,
    workspace: WorkspaceOption = None,
    json: Json = False,
) -> int:
    """Retrain on everything that was reviewed since; exit codes as for train."""
    with opened(workspace) as ws:
        return _request(ws, project, reason=reason, params={}, follow=follow, as_json=json)


def limits(budget: str | None, max_cost: float | None) -> dict[str, Any]:
    """What the options of time and money mean for a run.

    Raises:
        BadInputError: The duration is none.
    """
    found: dict[str, Any] = {}
    if budget is not None:
        from keepsight.config import kinds
        from keepsight.errors import BadInputError

        try:
            found["budget_minutes"] = kinds.minutes(budget)
        except ValueError as error:
            raise BadInputError(
                f'--budget is "{budget}".', expected=f"{error}.", do="Write it like --budget 10m."
            ) from None
    if max_cost is not None:
        found["max_cost_eur"] = max_cost
    return found


def _request(ws: Workspace, project: str, *, reason: str, params: dict[str, Any], follow: bool, as_json: bool) -> int:
    from keepsight.loop import runs

    with someone_leads(ws, needed=follow):
        run_id = runs.enqueue(ws, project, trigger="hand", reason=reason, actor=actor(), params=params)
        if not follow:
            show({"run": run_id}, as_json=as_json, text=lambda: f"Asked for run {run_id[:8]}.")
            return 0
        row = follow_run(
            lambda: runs.get(ws, run_id), cancel=lambda: runs.cancel(ws, run_id, actor=actor()), quiet=as_json
        )
    show(row.as_dict(), as_json=as_json, text=lambda: told_run(row))
    return exit_code(row)


def exit_code(row: RunRow) -> int:
    """0 released, 1 rejected, 2 error, 3 a person must decide."""
    return EXIT_CODES.get(row.outcome or "", EXIT_ERROR) if row.status == "done" else EXIT_ERROR


@contextmanager
def someone_leads(ws: Workspace, *, needed: bool) -> Iterator[None]:
    """Makes sure that the run is worked on: by a server's loop if there is one, else by one in this process."""
    from keepsight.loop import leader

    if not needed or leader.somebody_leads(ws):
        yield
        return
    own = leader.Leader(ws)
    own.start()
    try:
        yield
        own.mirror.finish()
    finally:
        own.stop()


def follow_run(
    read: Callable[[], RunRow],
    *,
    cancel: Callable[[], None],
    quiet: bool,
    pauses: Iterable[float] = itertools.repeat(POLL_S),
) -> RunRow:
    """The run once it has ended; tells its steps and its progress meanwhile.

    Args:
        read: Where the run stands.
        cancel: What Ctrl-C does.
        quiet: Tell nothing.
        pauses: Seconds between two looks.
    """
    step = None
    estimated = False
    with progress_bar(quiet=quiet) as on_progress:
        for pause in pauses:
            row = read()
            if not estimated and not quiet and "estimate" in row.params:
                estimated = True
                say(f"  {told_estimate(row.params['estimate'])}")
            if row.step != step and row.step is not None and not quiet:
                step = row.step
                say(f"  {STEP_TEXTS.get(step, step)} …")
            if row.progress:
                on_progress(row.progress)
            if row.finished:
                return row
            try:
                time.sleep(pause)
            except KeyboardInterrupt:
                cancel()
                say("Cancelled.")
    return read()


def told_run(row: RunRow) -> str:
    """What came of a run, for people."""
    if row.error is not None:
        return f"{row.error['found']}\n  Expected: {row.error['expected']}\n  What to do: {row.error['do']}"
    if row.status != "done":
        return f"The run was {row.status}."
    record = row.record or {}
    metrics, plan = record.get("metrics", {}), record.get("plan", {})
    headline = str(record.get("headline", "accuracy"))
    lines = [
        f"Model {row.model_number} of {row.project}, trained on dataset version {row.dataset_version} "
        f"in {record.get('duration_s', 0):.0f} s ({record.get('cost_eur', 0):.4f} EUR)",
        *([f"  recipe {plan['chosen']}: {plan['why']}"] if "chosen" in plan else []),
        f"  {headline.replace('_', ' ')} on the test pictures: {interval(metrics.get(headline))}",
    ]
    for check in (row.gate or {}).get("checks", []):
        mark = {"pass": "ok  ", "fail": "FAIL", "cannot_tell": "?   "}[check["status"]]
        if check["status"] != "pass" and not check.get("binding", True):
            mark = "note"  # it decides nothing
        lines.append(f"  {mark} {check['name']}: {check['reason']}")
    ends = {
        "deployed": "Released: it is the live model now.",
        "kept": "Kept as challenger; release it with `keepsight models promote`.",
        "ask": "A person must decide: `keepsight models promote` or `keepsight models discard`.",
        "rejected": "Not released: it did not pass the gate.",
    }
    lines.append(ends[row.outcome or "kept"])
    lines += [f"Warning ({each['step']}): {each['found']} What to do: {each['do']}" for each in row.warnings]
    if record.get("answers_by_itself") is False:
        lines.append(
            "Every picture goes to review for now: too few show at which confidence its answers are as right as\n"
            "review.target_accuracy asks. More labels mend that; or decide yourself with review.min_confidence."
        )
    return "\n".join(lines)
